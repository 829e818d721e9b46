//! What the checks share: the repositories, content made for this run, and its removal.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::BTreeSet;
use std::time::{SystemTime, UNIX_EPOCH};

use reqwest::{Method, Url};

pub(super) use crate::digest::{sha256, sha512};
use crate::http::{Exchange, Registry, Request};
use crate::outcome::{Finding, Outcome};
use crate::raw::{self, RawAnswers, RawRequest};

/// The media type of the manifests pushed.
pub(super) const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
/// The media type of an index, which a list of referrers is too.
pub(super) const INDEX_TYPE: &str = "application/vnd.oci.image.index.v1+json";
/// The media type of bytes.
pub(super) const BYTES_TYPE: &str = "application/octet-stream";

/// One run against one registry.
#[derive(Debug)]
pub struct Context<'a> {
    registry: &'a Registry,
    /// The repository pushed to.
    pub repository: String,
    /// A second one, to mount from the first.
    pub other_repository: String,
    /// Part of every tag and blob, so that runs do not meet each other's content.
    pub nonce: String,
    counter: Cell<u32>,
    image: OnceCell<Image>,
    litter: RefCell<Litter>,
    warned: RefCell<Option<Exchange>>,
}

/// A small image in the registry.
#[derive(Debug, Clone)]
pub struct Image {
    /// A tag that stands for it.
    pub tag: String,
    /// The manifest's digest.
    pub digest: String,
    /// The manifest as pushed.
    pub manifest: Vec<u8>,
    /// The digest of its layer.
    pub layer_digest: String,
    /// The bytes of its layer.
    pub layer: Vec<u8>,
}

/// What was pushed: URLs to delete, by kind, since manifests must go before the blobs they refer to.
#[derive(Debug, Default)]
struct Litter {
    sessions: Vec<String>,
    tags: Vec<String>,
    manifests: Vec<String>,
    blobs: Vec<String>,
}

impl<'a> Context<'a> {
    /// A run in repositories below `namespace`.
    pub(super) fn new(registry: &'a Registry, namespace: &str) -> anyhow::Result<Self> {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH)?;
        Ok(Self {
            registry,
            repository: format!("{namespace}/spec"),
            other_repository: format!("{namespace}/spec-other"),
            nonce: format!("{:x}-{:x}", since_epoch.as_nanos(), std::process::id()),
            counter: Cell::new(0),
            image: OnceCell::new(),
            litter: RefCell::default(),
            warned: RefCell::default(),
        })
    }

    /// The registry that is judged.
    pub fn registry(&self) -> &Registry {
        self.registry
    }

    /// Sends a request to any URL of the registry.
    pub fn send(&self, request: Request) -> Outcome<Exchange> {
        let exchange = self.registry.send(request)?;
        if exchange.header("Warning").is_some() {
            self.warned.borrow_mut().get_or_insert_with(|| exchange.clone());
        }
        Ok(exchange)
    }

    /// The first answer that came with a `Warning`.
    pub(super) fn warned(&self) -> Option<Exchange> {
        self.warned.borrow().clone()
    }

    /// A raw request with the headers that any request has, and with credentials if the registry wants them
    /// for such a request in the run's first repository. The answer ends the connection unless `persistent`.
    pub(super) fn raw_request(&self, method: &'static str, target: &[u8], persistent: bool) -> Outcome<RawRequest> {
        // Whatever is needed to read and to write is known once this has been asked.
        let tag = &self.image()?.tag;
        self.ask(Method::HEAD, &format!("manifests/{tag}"))?;
        let known = if method == "GET" { Method::GET } else { Method::POST };
        let authorization = self.registry.known_authorization(&known, &self.path("blobs/uploads/"));
        let mut request = RawRequest::new(method, target).header("Host", &raw::host(self.registry));
        request = request.header("User-Agent", concat!("rconform/", env!("CARGO_PKG_VERSION")));
        if let Some(authorization) = authorization {
            request = request.header("Authorization", &authorization);
        }
        Ok(if persistent { request } else { request.header("Connection", "close") })
    }

    /// Sends a raw request.
    pub(super) fn send_raw(&self, request: &RawRequest) -> Outcome<RawAnswers> {
        raw::send(self.registry, request)
    }

    /// Fails unless the registry still answers.
    pub(super) fn must_still_serve(&self) -> Outcome {
        self.send(Request::new(Method::GET, "/v2/"))?.must_be(&[200])
    }

    /// `/v2/REPOSITORY/path` in the run's first repository.
    pub fn path(&self, path: &str) -> String {
        format!("/v2/{}/{path}", self.repository)
    }

    /// Sends a request without a body to a path in the run's first repository.
    pub fn ask(&self, method: Method, path: &str) -> Outcome<Exchange> {
        let request = Request::new(method, self.path(path));
        self.send(if path.starts_with("manifests/") { request.header("Accept", MANIFEST_TYPE) } else { request })
    }

    /// A name never used before, fit for a tag.
    pub fn fresh_name(&self) -> String {
        self.counter.set(self.counter.get() + 1);
        format!("run-{}-{}", self.nonce, self.counter.get())
    }

    /// Bytes never pushed before, a little over 1 KiB.
    pub fn fresh_bytes(&self) -> Vec<u8> {
        self.fresh_bytes_of(1100)
    }

    /// So many bytes never pushed before.
    pub fn fresh_bytes_of(&self, size_bytes: usize) -> Vec<u8> {
        let name = self.fresh_name();
        let mut bytes: Vec<u8> =
            (0..size_bytes / name.len() + 1).flat_map(|line| format!("{name} {line}\n").into_bytes()).collect();
        bytes.truncate(size_bytes);
        bytes
    }

    /// Starts an upload (end-4a); its URL. Not offered where pushing is switched off.
    pub fn begin_upload(&self) -> Outcome<String> {
        self.begin_upload_in(&self.repository).map(|(_, url)| url)
    }

    /// Starts an upload in any repository; the answer and the upload's URL.
    pub fn begin_upload_in(&self, repository: &str) -> Outcome<(Exchange, String)> {
        let answer = self.send(Request::new(Method::POST, format!("/v2/{repository}/blobs/uploads/")))?;
        if matches!(answer.status(), 403 | 405 | 501) {
            return Err(Finding::NotOffered(format!("pushing is answered with {}", answer.status())));
        }
        answer.must_be(&[202])?;
        let url = answer.resolve(answer.must_have("Location")?)?.to_string();
        self.will_have_session(url.clone());
        Ok((answer, url))
    }

    /// Notes the upload that an answer may have begun, whether it was meant to or not.
    pub fn note_session(&self, answer: &Exchange) {
        if answer.status() == 202
            && let Some(location) = answer.header("Location")
            && let Ok(url) = answer.resolve(location)
        {
            self.will_have_session(url.into());
        }
    }

    /// The request that closes an upload (end-6) with `body` as its last or only bytes.
    pub fn close_request(&self, upload: &str, digest: &str, body: &[u8]) -> Request {
        self.will_have_blob(digest);
        let separator = if upload.contains('?') { '&' } else { '?' };
        Request::new(Method::PUT, format!("{upload}{separator}digest={digest}")).body(BYTES_TYPE, body)
    }

    /// Pushes a blob by POST and PUT; its digest.
    pub fn push_blob(&self, bytes: &[u8]) -> Outcome<String> {
        let digest = sha256(bytes);
        let upload = self.begin_upload()?;
        self.send(self.close_request(&upload, &digest, bytes))?.must_be(&[201])?;
        Ok(digest)
    }

    /// Puts a manifest under a tag or digest (end-7).
    pub fn put_manifest(&self, reference: &str, manifest: &[u8]) -> Outcome<Exchange> {
        self.put_manifest_as(MANIFEST_TYPE, reference, manifest)
    }

    /// Puts a manifest of any type; a query may follow the reference.
    pub fn put_manifest_as(&self, media_type: &str, reference: &str, manifest: &[u8]) -> Outcome<Exchange> {
        self.will_have_manifest(&self.repository, reference, manifest);
        self.send(Request::new(Method::PUT, self.path(&format!("manifests/{reference}"))).body(media_type, manifest))
    }

    /// Notes a manifest that a request may make.
    pub fn will_have_manifest(&self, repository: &str, reference: &str, manifest: &[u8]) {
        let mut litter = self.litter.borrow_mut();
        let path = |reference: &str| format!("/v2/{repository}/manifests/{reference}");
        litter.manifests.push(path(&sha256(manifest)));
        // A wrong digest too: a registry that takes it has something to delete.
        if reference.contains(':') { litter.manifests.push(path(reference)) } else { litter.tags.push(path(reference)) }
    }

    /// Pushes a manifest never pushed before under its digest, which is returned with the manifest.
    pub fn push_fresh_manifest(&self, extra: &str) -> Outcome<(String, Vec<u8>)> {
        let manifest = self.fresh_manifest(extra)?;
        let digest = sha256(&manifest);
        self.put_manifest(&digest, &manifest)?.must_be(&[201])?;
        Ok((digest, manifest))
    }

    /// A manifest never pushed before, over blobs that are there. `extra` is JSON put before the
    /// closing brace, as `,"name":value`.
    pub fn fresh_manifest(&self, extra: &str) -> Outcome<Vec<u8>> {
        let layer = self.fresh_bytes();
        let digest = self.push_blob(&layer)?;
        Ok(self.manifest_over(&digest, layer.len(), extra))
    }

    /// A manifest whose only layer is a blob that may or may not be there, with an empty config that is.
    pub fn manifest_over(&self, digest: &str, size: usize, extra: &str) -> Vec<u8> {
        let note = self.fresh_name();
        format!(
            r#"{{"schemaVersion":2,"mediaType":"{MANIFEST_TYPE}","config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{digest}","size":{size}}},"layers":[{{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"{digest}","size":{size}}}],"annotations":{{"note":"{note}"}}{extra}}}"#
        )
        .into_bytes()
    }

    /// The image most checks read; pushed when first asked for.
    pub fn image(&self) -> Outcome<&Image> {
        if let Some(image) = self.image.get() {
            return Ok(image);
        }
        let layer = self.fresh_bytes();
        let layer_digest = self.push_blob(&layer)?;
        let manifest = self.manifest_over(&layer_digest, layer.len(), "");
        let tag = self.fresh_name();
        self.put_manifest(&tag, &manifest)?.must_be(&[201])?;
        let digest = sha256(&manifest);
        Ok(self.image.get_or_init(|| Image { tag, digest, manifest, layer_digest, layer }))
    }

    /// Notes a blob that a request may make, so that it is removed.
    pub fn will_have_blob(&self, digest: &str) {
        self.litter.borrow_mut().blobs.push(self.path(&format!("blobs/{digest}")));
    }

    /// Notes a blob that a request may mount in the second repository.
    pub fn will_have_mounted(&self, digest: &str) {
        self.litter.borrow_mut().blobs.push(format!("/v2/{}/blobs/{digest}", self.other_repository));
    }

    /// Notes an upload that a request may begin.
    pub fn will_have_session(&self, url: String) {
        self.litter.borrow_mut().sessions.push(url);
    }

    /// Deletes what was pushed; what could not be deleted. Tags and unfinished uploads are no such
    /// thing: the first go with their manifests, the second time out.
    pub(super) fn clean_up(self) -> Vec<String> {
        let litter = self.litter.into_inner();
        let delete = |url: &String| self.registry.send(Request::new(Method::DELETE, url.clone())).map_or(0, |e| e.status());
        // A Location may lead to any host; nothing is deleted on another than the one judged.
        let at_home = |url: &&String| Url::parse(url).is_ok_and(|url| url.origin() == self.registry.url().origin());
        for url in litter.sessions.iter().filter(at_home).chain(&litter.tags) {
            delete(url);
        }
        // Where nothing can be deleted, what never came about is not left behind either.
        let there = |url: &String| self.registry.send(Request::new(Method::HEAD, url.clone())).is_ok_and(|e| e.status() == 200);
        let stays = |url: &String| !matches!(delete(url), 200..=299 | 404) && there(url);
        // What was pushed last goes first: an index before what it lists.
        let mut seen = BTreeSet::new();
        let all = litter.manifests.into_iter().rev().chain(litter.blobs);
        all.filter(|url| seen.insert(url.clone())).filter(stays).collect()
    }
}

/// Fails unless `header` names the digest of `bytes`. Another registered algorithm than the one asked
/// with is allowed (distribution-spec, Pulling manifests), an unregistered one cannot be judged.
pub(super) fn must_match(exchange: &Exchange, header: &str, bytes: &[u8]) -> Outcome {
    let actual = match header.split_once(':') {
        Some(("sha256", _)) => sha256(bytes),
        Some(("sha512", _)) => sha512(bytes),
        _ => return Err(Finding::Differs(format!("Docker-Content-Digest: {header:?} is of an unregistered algorithm"))),
    };
    exchange.must(header == actual, format_args!("Docker-Content-Digest: {actual}"))
}
