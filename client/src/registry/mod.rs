//! The registry protocol, as a client speaks it (distribution-spec 1.1): one repository of one registry,
//! and its mirrors.
//!
//! Everything that may pass is tried again here, so that an error of this module is final.

mod allowance;
mod auth;
mod blob;
mod catalog;
mod certificate;
mod challenge;
mod host;
mod http;
mod listing;
mod login;
mod look;
mod probe;
mod redirect;
mod referrer;
mod retry;
mod scheme;
mod scope;
mod small;
mod timing;
mod tls;
mod token;
mod upload;
mod verifier;

use std::cell::Cell;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use longshore_runtime::image::{Descriptor, media_type};
use longshore_runtime::name::{Digest, MANIFEST_LIMIT_BYTES, Reference};
use longshore_runtime::parallel::Cancel;
use longshore_runtime::source::{BlobRead, BlobReader, Referring, Resolved};
use longshore_runtime::{RawManifest, Source};

pub use self::allowance::Allowance;
use self::blob::{Blob, Wanted};
pub use self::catalog::catalog;
use self::host::{Host, broken_off};
use self::http::Answer;
pub use self::listing::{Referrer, referrers_tag};
pub use self::login::log_in;
pub use self::probe::{Probe, probe};
use self::retry::transient;
use self::scope::Action;
use self::timing::Timing;
use self::upload::Upload;
pub use self::upload::{Content, Sent};
use crate::config::Registries;
use crate::credentials::Credentials;
use crate::error::{Error, Result};

/// How often a manifest that does not match its digest is asked for again.
const WRONG_MANIFESTS_LIMIT: u32 = 3;

/// One repository of a registry. Any number of threads may use it at once.
#[derive(Debug)]
pub struct Repository {
    /// The mirrors in order, and last the registry itself.
    hosts: Vec<Host>,
    /// Who is asked for which blob, where some came wrong.
    trust: Mutex<HashMap<Digest, Trust>>,
    cancel: Cancel<'static>,
}

/// The hosts that are trusted with a blob. They are counted from the last, the registry itself.
#[derive(Debug, Clone, Copy)]
struct Trust {
    trusted: usize,
    /// The first of those that bytes came from.
    served: usize,
}

impl Repository {
    /// The repository a reference names, reached as configured. Opens a connection only to hosts that may speak
    /// HTTPS or not.
    pub fn new(registries: &Registries, reference: &Reference) -> Result<Self> {
        Self::with_credentials(registries, reference, None)
    }

    /// The same, with these credentials for the registry itself in place of what is kept for it.
    pub fn with_credentials(registries: &Registries, reference: &Reference, credentials: Option<Credentials>) -> Result<Self> {
        let timing = Timing::from_environment();
        let places = registries.places(reference)?;
        let mut hosts: Vec<Host> =
            places.iter().map(|place| Host::new(place, &registries.network, timing)).collect::<Result<_>>()?;
        if let (Some(registry), Some(credentials)) = (hosts.last_mut(), credentials) {
            registry.use_credentials(credentials);
        }
        Ok(Self { hosts, trust: Mutex::default(), cancel: Cancel::default() })
    }

    /// The same without mirrors, which have what they happen to have: what is pushed to counts.
    #[must_use]
    pub fn without_mirrors(mut self) -> Self {
        let at = self.hosts.iter().position(|host| host.may.push).unwrap_or(self.hosts.len() - 1);
        self.hosts = vec![self.hosts.swap_remove(at)];
        self
    }

    fn registry(&self) -> &Host {
        &self.hosts[self.hosts.len() - 1]
    }

    /// The first mirror that takes what is pushed, else the registry.
    fn pushed_to(&self) -> &Host {
        self.hosts.iter().find(|host| host.may.push).unwrap_or_else(|| self.registry())
    }

    /// Asks the mirrors in order, once each, and then the registry, for as long as it takes. A mirror is asked what it
    /// may be: whether a tag, or only what has a digest.
    fn at_any<'a, T>(&'a self, reference: &Reference, attempt: impl Fn(&'a Host) -> Result<T>) -> Result<T> {
        let mirrors = &self.hosts[..self.hosts.len() - 1];
        let may = |mirror: &&Host| if reference.digest().is_some() { mirror.may.pull } else { mirror.may.resolve };
        for mirror in mirrors.iter().filter(may).filter(|mirror| !mirror.is_down()) {
            match attempt(mirror) {
                Ok(answered) => return Ok(answered),
                Err(failure) if transient(&failure).is_some() => mirror.set_down(),
                Err(_) => {}
            }
        }
        let registry = self.registry();
        registry.retrying(&self.cancel, || attempt(registry))
    }

    /// The manifest or index a reference stands for (end-3).
    pub fn get_manifest(&self, reference: &Reference) -> Result<RawManifest> {
        let wrong = Cell::new(0);
        self.at_any(reference, |host| self.manifest_of(host, reference, &wrong))
    }

    /// The same as the host has it that is pushed to: for who writes there what follows from it.
    pub fn get_own_manifest(&self, reference: &Reference) -> Result<RawManifest> {
        let (host, wrong) = (self.pushed_to(), Cell::new(0));
        host.retrying(&self.cancel, || self.manifest_of(host, reference, &wrong))
    }

    /// One attempt; `wrong` counts those that brought another.
    fn manifest_of(&self, host: &Host, reference: &Reference, wrong: &Cell<u32>) -> Result<RawManifest> {
        let attempted = || format!("get manifest {}", reference.identifier());
        let mut answer = self.ask_manifest(host, reference, &reqwest::Method::GET)?;
        let media_type = media_type_of(&answer);
        let bytes = answer.body(MANIFEST_LIMIT_BYTES).map_err(|e| broken_off(&host.endpoint.host, &e))?;
        if bytes.len() > MANIFEST_LIMIT_BYTES {
            return Err(host.broken(&attempted(), "it is longer than 4 MiB".into()));
        }
        let said = answer.header("docker-content-digest").and_then(|digest| digest.parse().ok());
        let is_other = reference.digest().cloned().or(said).is_some_and(|expected: Digest| {
            let mut hasher = expected.algorithm().hasher();
            hasher.update(&bytes);
            hasher.finish() != expected
        });
        if is_other && !std::ptr::eq(host, self.registry()) {
            return Err(host.broken(&attempted(), "it sent another".into()));
        }
        // A length that is too small cuts it off, and nothing else tells. What comes each time is what is there.
        if is_other && wrong.replace(wrong.get() + 1) < WRONG_MANIFESTS_LIMIT {
            return Err(broken_off(&host.endpoint.host, &std::io::Error::other("it is not what its digest promises")));
        }
        Ok(RawManifest { media_type, digest: Digest::of(&bytes), bytes })
    }

    /// The digest a reference stands for (end-3, as HEAD); `None` where only the manifest itself can tell.
    pub fn head_manifest(&self, reference: &Reference) -> Result<Option<Resolved>> {
        let asked = self.at_any(reference, |host| {
            let answer = self.ask_manifest(host, reference, &reqwest::Method::HEAD)?;
            let digest = answer.header("docker-content-digest").and_then(|digest| digest.parse().ok());
            Ok(digest.map(|digest| Resolved { digest, media_type: media_type_of(&answer) }))
        });
        match asked {
            // Some do without HEAD; what is really wrong the GET says better.
            Err(Error::Refused { .. }) => Ok(None),
            other => other,
        }
    }

    fn ask_manifest<'a>(&'a self, host: &'a Host, reference: &Reference, method: &reqwest::Method) -> Result<Answer<'a>> {
        let attempted = || format!("get manifest {}", reference.identifier());
        let url = format!("{}/manifests/{}", host.base, reference.identifier());
        let accept = media_type::MANIFESTS.join(", ");
        let build = |client: &reqwest::Client| client.request(method.clone(), &url).header("accept", &accept);
        let mut answer = host.send(Action::Pull, &self.cancel, attempted, build)?;
        host.expect(&mut answer, &[200], attempted)?;
        Ok(answer)
    }

    fn get_blob<'a>(&'a self, blob: &Descriptor, wanted: Wanted, cancel: &'a Cancel<'a>) -> Result<Option<Blob<'a>>> {
        let trusted = self.trust_in(&blob.digest, |trust| trust.trusted);
        let opened = Blob::open(&self.hosts[self.hosts.len() - trusted..], blob, wanted, cancel)?;
        if let Some(blob) = &opened {
            self.trust_in(blob.digest(), |trust| trust.served = trust.served.max(blob.hosts_left()));
        }
        Ok(opened)
    }

    fn trust_in<T>(&self, blob: &Digest, look: impl FnOnce(&mut Trust) -> T) -> T {
        let mut trust = self.trust.lock().unwrap_or_else(PoisonError::into_inner);
        look(trust.entry(blob.clone()).or_insert(Trust { trusted: self.hosts.len(), served: 1 }))
    }

    /// Whether a blob is there (end-2).
    pub fn has_blob(&self, digest: &Digest, cancel: &Cancel<'_>) -> Result<bool> {
        upload::is_there(self.pushed_to(), digest, cancel)
    }

    /// Uploads a blob (end-4a, end-6), or has it mounted (end-11). `sent` is told how many bytes were handed
    /// to the connection.
    pub fn put_blob<R: BlobRead + 'static>(
        &self,
        content: &Content<'_, R>,
        sent: impl Fn(u64) + Clone + Send + 'static,
        cancel: &Cancel<'_>,
    ) -> Result<Sent> {
        Upload::new(self.pushed_to(), content, sent, cancel).run()
    }

    /// Stores a manifest or index under a tag or digest (end-7), byte for byte.
    pub fn put_manifest(&self, identifier: &str, manifest: &RawManifest) -> Result<()> {
        self.store_manifest(identifier, manifest).map(drop)
    }

    /// The same. Whether the registry has seen what the manifest refers to, and lists it there (`OCI-Subject`).
    pub(crate) fn store_manifest(&self, identifier: &str, manifest: &RawManifest) -> Result<bool> {
        let attempted = || format!("put manifest {identifier}");
        let host = self.pushed_to();
        let url = format!("{}/manifests/{identifier}", host.base);
        host.retrying(&self.cancel, || {
            let mut answer = host.send(Action::Push, &self.cancel, attempted, |client| {
                client.put(&url).header("content-type", &manifest.media_type).body(manifest.bytes.clone())
            })?;
            host.expect(&mut answer, &[201], attempted)?;
            match answer.header("docker-content-digest") {
                Some(digest) if digest != manifest.digest.as_str() => {
                    Err(host.broken(&attempted(), format!("it stored {digest:?} where {} was sent", manifest.digest)))
                }
                _ => Ok(answer.header("oci-subject").is_some()),
            }
        })
    }
}

/// The `Content-Type` without parameters.
fn media_type_of(answer: &Answer<'_>) -> String {
    let media_type = answer.header("content-type").unwrap_or_default();
    media_type.split(';').next().unwrap_or_default().trim().to_owned()
}

impl Source for Repository {
    fn manifest(&self, reference: &Reference) -> longshore_runtime::Result<RawManifest> {
        Ok(self.get_manifest(reference)?)
    }

    fn resolve(&self, reference: &Reference) -> longshore_runtime::Result<Option<Resolved>> {
        Ok(self.head_manifest(reference)?)
    }

    fn blob<'a>(
        &'a self,
        _: &Reference,
        blob: &Descriptor,
        offset: u64,
        cancel: &'a Cancel<'a>,
    ) -> longshore_runtime::Result<BlobReader<'a>> {
        let opened = self.get_blob(blob, Wanted::From(offset), cancel)?;
        Ok(opened.map_or_else(|| Box::new(std::io::empty()) as BlobReader<'a>, |bytes| Box::new(bytes)))
    }

    fn blob_range<'a>(
        &'a self,
        _: &Reference,
        blob: &Descriptor,
        range: Range<u64>,
        cancel: &'a Cancel<'a>,
    ) -> longshore_runtime::Result<Option<BlobReader<'a>>> {
        let opened = self.get_blob(blob, Wanted::Range(range), cancel)?;
        Ok(opened.map(|bytes| Box::new(bytes) as BlobReader<'a>))
    }

    fn referrers(&self, reference: &Reference, subject: &Digest) -> longshore_runtime::Result<Vec<Referring>> {
        Ok(self.referring(reference, subject)?)
    }

    fn latency(&self) -> Duration {
        self.hosts.iter().find_map(|host| host.pool.latency()).unwrap_or_default()
    }

    fn distrust(&self, blob: &Digest) -> bool {
        self.trust_in(blob, |trust| {
            let others = trust.served - 1;
            *trust = Trust { trusted: others.max(1), served: 1 };
            others > 0
        })
    }
}
