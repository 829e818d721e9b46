//! kill -9 at random moments of a mixed load: what was acknowledged and not deleted since is there
//! after every restart, byte for byte, and `rhub check` finds everything well.
//!
//! `LONGSHORE_LONG=1` kills 500 times instead of 40. Every run says its seed; `LONGSHORE_SEED` takes
//! one, and the same clients do the same work again (when they are killed is still up to the machine).

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

mod common;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use common::{OCI_INDEX, OCI_MANIFEST, Reply, Rhub, command, descriptor, image_manifest, index_manifest, wait_until};
use longshore_runtime::name::Digest;

const CLIENTS: usize = 4;
const REPOSITORIES: [&str; 2] = ["team/app", "team/blobs"];
/// Tags of each client in each repository.
const TAGS: usize = 3;
/// Kills between two looks at everything by `rhub check`.
const KILLS_PER_CHECK: usize = 20;
/// How often a client pushes again what the collector took before it was referred to.
const PUSH_ATTEMPTS: usize = 8;

/// The content of layers, shared by everybody: small, cached, and larger than what is written at once.
static LAYERS: LazyLock<Vec<(Digest, Vec<u8>)>> = LazyLock::new(|| {
    let sizes = [100, 5_000, 70_000, 1_200_000];
    let layer = |n: usize| {
        let seed = Digest::of(&n.to_le_bytes());
        let content = seed.as_str().as_bytes().repeat(1 + sizes[n % sizes.len()] / 71);
        (Digest::of(&content), content)
    };
    (0..20).map(layer).collect()
});

/// SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit
    }

    fn index(&mut self, limit: usize) -> usize {
        usize::try_from(self.below(limit as u64)).unwrap()
    }

    fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.index(of.len())]
    }
}

/// Sends a request; `None` when the server was killed under it.
fn try_send(address: &str, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Option<Reply> {
    let mut connection = std::net::TcpStream::connect(address).ok()?;
    let mut head = format!("{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n", body.len());
    headers.iter().for_each(|(name, value)| head.push_str(&format!("{name}: {value}\r\n")));
    connection.write_all(format!("{head}\r\n").as_bytes()).ok()?;
    connection.write_all(body).ok()?;
    let reply = Reply::read(connection)?;
    let length = reply.find_header("content-length").map(|length| length.parse().unwrap());
    // Broken off in the middle of the body.
    (method == "HEAD" || length.is_none_or(|length: usize| length == reply.body.len())).then_some(reply)
}

/// A manifest, and what it leads to.
#[derive(Debug, PartialEq, Eq)]
struct Image {
    manifest: Vec<u8>,
    media_type: &'static str,
    layers: Vec<usize>,
    children: Vec<Arc<Image>>,
}

impl Image {
    /// One that nobody else makes.
    fn new(layers: Vec<usize>, name: &str) -> Self {
        let content = |n: usize| LAYERS[n].1.as_slice();
        let listed: Vec<_> = layers.iter().map(|n| descriptor("a/layer", content(*n))).collect();
        let plain = image_manifest(content(layers[0]), b"").replace(&descriptor(LAYER_TYPE, b""), &listed.join(","));
        let manifest = plain.replacen('{', &format!(r#"{{"annotations":{{"name":"{name}"}},"#), 1).into_bytes();
        Self { manifest, media_type: OCI_MANIFEST, layers, children: Vec::new() }
    }

    fn index(children: Vec<Arc<Self>>) -> Self {
        let texts: Vec<_> = children.iter().map(|child| std::str::from_utf8(&child.manifest).unwrap()).collect();
        let manifest = index_manifest(&texts).into_bytes();
        Self { manifest, media_type: OCI_INDEX, layers: Vec::new(), children }
    }

    fn digest(&self) -> Digest {
        Digest::of(&self.manifest)
    }
}

const LAYER_TYPE: &str = "application/vnd.oci.image.layer.v1.tar";

/// An upload in chunks that goes on over restarts.
struct Chunked {
    repo: &'static str,
    location: String,
    layer: usize,
    acknowledged: usize,
    /// Its last request may have been taken without an answer.
    finishing: bool,
}

/// A client, and what it knows of its own tags: nobody else touches them. Blobs it shares with all.
struct Client {
    name: usize,
    random: Random,
    serial: usize,
    /// For every tag what it is on; more than one while a change of it is not acknowledged.
    tags: BTreeMap<(&'static str, String), Vec<Option<Arc<Image>>>>,
    chunked: Option<Chunked>,
    acknowledged: u64,
}

impl Client {
    fn new(name: usize, seed: u64) -> Self {
        let tags = REPOSITORIES.iter().flat_map(|repo| (0..TAGS).map(move |n| ((*repo, format!("c{name}-{n}")), vec![None])));
        let random = Random(seed ^ ((name as u64) << 32));
        Self { name, random, serial: 0, tags: tags.collect(), chunked: None, acknowledged: 0 }
    }

    /// Works until the server is killed.
    fn work(&mut self, address: &str) {
        while self.step(address).is_some() {}
    }

    fn step(&mut self, address: &str) -> Option<()> {
        let repo = *self.random.pick(&REPOSITORIES);
        let tag = format!("c{}-{}", self.name, self.random.index(TAGS));
        match self.random.below(12) {
            0..=3 => {
                let image = Arc::new(self.new_image());
                self.push(address, repo, &image, &tag)
            }
            4 => {
                let children = (0..2).map(|_| Arc::new(self.new_image())).collect();
                self.push(address, repo, &Arc::new(Image::index(children)), &tag)
            }
            5 | 6 => self.retag(address, repo, &tag),
            7 | 8 => self.delete_tag(address, repo, &tag),
            9 => self.delete_image(address, repo, &tag),
            _ => self.send_chunk(address, repo),
        }
    }

    fn new_image(&mut self) -> Image {
        self.serial += 1;
        let mut layers: Vec<_> = (0..=self.random.index(3)).map(|_| self.random.index(LAYERS.len())).collect();
        layers.dedup();
        Image::new(layers, &format!("{}-{}-{}", self.name, self.serial, self.random.below(u64::MAX)))
    }

    fn now(&self, repo: &'static str, tag: &str) -> Option<Arc<Image>> {
        let possible = &self.tags[&(repo, tag.to_owned())];
        assert_eq!(possible.len(), 1, "known since the restart");
        possible[0].clone()
    }

    fn may_become(&mut self, repo: &'static str, tag: &str, image: Option<&Arc<Image>>) {
        self.tags.get_mut(&(repo, tag.to_owned())).unwrap().push(image.cloned());
    }

    fn is(&mut self, repo: &'static str, tag: &str, image: Option<&Arc<Image>>) {
        self.acknowledged += 1;
        self.tags.insert((repo, tag.to_owned()), vec![image.cloned()]);
    }

    /// Pushes an image as clients do: what it refers to first, and what is there not again.
    fn push(&mut self, address: &str, repo: &'static str, image: &Arc<Image>, tag: &str) -> Option<()> {
        self.may_become(repo, tag, Some(image));
        for _ in 0..PUSH_ATTEMPTS {
            if self.push_content(address, repo, image)? && self.put(address, repo, image, tag)? {
                self.is(repo, tag, Some(image));
                return Some(());
            }
        }
        // The collector was always faster; the tag is as it was.
        self.tags.get_mut(&(repo, tag.to_owned())).unwrap().pop();
        Some(())
    }

    fn push_content(&mut self, address: &str, repo: &'static str, image: &Image) -> Option<bool> {
        for n in &image.layers {
            self.push_layer(address, repo, *n)?;
        }
        for child in &image.children {
            if !self.push_content(address, repo, child)? || !self.put(address, repo, child, child.digest().as_str())? {
                return Some(false);
            }
        }
        Some(true)
    }

    /// `false` when something it refers to was collected again.
    fn put(&self, address: &str, repo: &str, image: &Image, name: &str) -> Option<bool> {
        let path = format!("/v2/{repo}/manifests/{name}");
        let reply = try_send(address, "PUT", &path, &[("content-type", image.media_type)], &image.manifest)?;
        assert!(reply.status == 201 || reply.error() == common::error(404, "MANIFEST_BLOB_UNKNOWN"), "{reply:?}");
        Some(reply.status == 201)
    }

    fn push_layer(&mut self, address: &str, repo: &str, n: usize) -> Option<()> {
        let (digest, content) = &LAYERS[n];
        if try_send(address, "HEAD", &format!("/v2/{repo}/blobs/{digest}"), &[], b"")?.status == 200 {
            return Some(());
        }
        let uploads = format!("/v2/{repo}/blobs/uploads/");
        let started = match self.random.below(3) {
            0 => {
                let other = self.random.pick(&REPOSITORIES);
                try_send(address, "POST", &format!("{uploads}?mount={digest}&from={other}"), &[], b"")?
            }
            1 => try_send(address, "POST", &format!("{uploads}?digest={digest}"), &[], content)?,
            _ => try_send(address, "POST", &uploads, &[], b"")?,
        };
        if started.status == 201 {
            return Some(());
        }
        assert_eq!(started.status, 202, "{started:?}");
        let put = format!("{}?digest={digest}", started.header("location"));
        let reply = try_send(address, "PUT", &put, &[], content)?;
        assert_eq!(reply.status, 201, "{reply:?}");
        Some(())
    }

    /// Puts another tag on what has one: nothing of it can have been collected.
    fn retag(&mut self, address: &str, repo: &'static str, tag: &str) -> Option<()> {
        let other = format!("c{}-{}", self.name, self.random.index(TAGS));
        let Some(image) = self.now(repo, &other) else { return Some(()) };
        self.may_become(repo, tag, Some(&image));
        assert!(self.put(address, repo, &image, tag)?, "{repo}:{other} lost what it refers to");
        self.is(repo, tag, Some(&image));
        Some(())
    }

    fn delete_tag(&mut self, address: &str, repo: &'static str, tag: &str) -> Option<()> {
        let expected = if self.now(repo, tag).is_some() { 202 } else { 404 };
        self.may_become(repo, tag, None);
        let reply = try_send(address, "DELETE", &format!("/v2/{repo}/manifests/{tag}"), &[], b"")?;
        assert_eq!(reply.status, expected, "{repo}:{tag}: {reply:?}");
        self.is(repo, tag, None);
        Some(())
    }

    /// Deletes what a tag is on, and with it every tag on it.
    fn delete_image(&mut self, address: &str, repo: &'static str, tag: &str) -> Option<()> {
        let Some(image) = self.now(repo, tag) else { return Some(()) };
        let on_it = |(key, possible): (&(&str, String), &Vec<Option<Arc<Image>>>)| {
            (key.0 == repo && possible.contains(&Some(Arc::clone(&image)))).then(|| key.1.clone())
        };
        let tags: Vec<_> = self.tags.iter().filter_map(on_it).collect();
        tags.iter().for_each(|tag| self.may_become(repo, tag, None));
        let reply = try_send(address, "DELETE", &format!("/v2/{repo}/manifests/{}", image.digest()), &[], b"")?;
        assert_eq!(reply.status, 202, "{reply:?}");
        tags.iter().for_each(|tag| self.is(repo, tag, None));
        Some(())
    }

    /// Sends the next chunk of the upload this client has under way.
    fn send_chunk(&mut self, address: &str, repo: &'static str) -> Option<()> {
        if self.chunked.is_none() {
            let layer = self.random.index(LAYERS.len());
            let started = try_send(address, "POST", &format!("/v2/{repo}/blobs/uploads/"), &[], b"")?;
            assert_eq!(started.status, 202, "{started:?}");
            let location = started.header("location").to_owned();
            self.chunked = Some(Chunked { repo, location, layer, acknowledged: 0, finishing: false });
        }
        let upload = self.chunked.as_mut().unwrap();
        let (digest, content) = &LAYERS[upload.layer];
        let start = upload.acknowledged;
        if start == content.len() {
            upload.finishing = true;
            let reply = try_send(address, "PUT", &format!("{}?digest={digest}", upload.location), &[], b"")?;
            assert_eq!(reply.status, 201, "{reply:?}");
            self.chunked = None;
            return Some(());
        }
        let end = content.len().min(start + 1 + self.random.index(500_000));
        let range = format!("{start}-{}", end - 1);
        let reply = try_send(address, "PATCH", &upload.location, &[("content-range", &range)], &content[start..end])?;
        assert_eq!(reply.status, 202, "{reply:?}");
        upload.acknowledged = end;
        self.acknowledged += 1;
        Some(())
    }

    /// What was acknowledged is there; what was under way may be.
    fn hold(&mut self, rhub: &Rhub, seen: &mut BTreeSet<(&'static str, usize)>) {
        for ((repo, tag), possible) in &mut self.tags {
            let reply = rhub.get(&format!("/v2/{repo}/manifests/{tag}"));
            let is_it = |image: &Option<Arc<Image>>| match image {
                Some(image) => reply.status == 200 && reply.body == image.manifest,
                None => reply.status == 404,
            };
            let found = possible.iter().find(|image| is_it(image));
            let found = found.unwrap_or_else(|| panic!("{repo}:{tag} is {reply:?}, and must be one of {possible:?}")).clone();
            if let Some(image) = &found {
                assert_eq!(reply.header("docker-content-digest"), image.digest().as_str());
                whole(rhub, repo, image, seen);
            }
            *possible = vec![found];
        }
        let Some(upload) = &mut self.chunked else { return };
        let status = rhub.get(&upload.location);
        // Without a byte in it, a session is of the process alone.
        if status.status == 404 && (upload.finishing || upload.acknowledged == 0) {
            self.chunked = None;
            return;
        }
        assert_eq!(status.status, 204, "an upload of {}: {status:?}", upload.repo);
        let last: usize = status.header("range").split_once('-').unwrap().1.parse().unwrap();
        let arrived = last + 1;
        assert!(arrived >= upload.acknowledged, "{} bytes were acknowledged, {arrived} are there", upload.acknowledged);
        if arrived == 1 {
            // Or none: it is said in the same words.
            self.chunked = None;
            return;
        }
        upload.acknowledged = arrived;
    }
}

/// Everything an image leads to is there, byte for byte.
fn whole(rhub: &Rhub, repo: &'static str, image: &Image, seen: &mut BTreeSet<(&'static str, usize)>) {
    for n in &image.layers {
        if seen.insert((repo, *n)) {
            let (digest, content) = &LAYERS[*n];
            let reply = rhub.get(&format!("/v2/{repo}/blobs/{digest}"));
            assert!(reply.status == 200 && reply.body == *content, "{repo}@{digest}: {} {}", reply.status, reply.body.len());
        }
    }
    for child in &image.children {
        let reply = rhub.get(&format!("/v2/{repo}/manifests/{}", child.digest()));
        assert!(reply.status == 200 && reply.body == child.manifest, "{repo}@{}: {reply:?}", child.digest());
        whole(rhub, repo, child, seen);
    }
}

/// Reads what may be there or not until the server is killed: never a wrong byte.
fn read_along(address: &str, mut random: Random, reads: &AtomicU64) {
    loop {
        let (digest, content) = random.pick(&LAYERS);
        let path = format!("/v2/{}/blobs/{digest}", random.pick(&REPOSITORIES));
        let Some(reply) = try_send(address, "GET", &path, &[], b"") else { return };
        assert!(reply.status == 404 || reply.status == 200 && reply.body == *content, "{path}: {}", reply.status);
        reads.fetch_add(1, Ordering::Relaxed);
    }
}

/// Collects without mercy, until the server is killed; gives how many contents were removed.
fn collect_along(data: &Path, over: &AtomicBool) -> u64 {
    let mut removed = 0;
    while !over.load(Ordering::Relaxed) {
        let mut gc = Command::new(env!("CARGO_BIN_EXE_rhub"));
        let output = gc.args(["gc", "--grace", "0", "--data"]).arg(data).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let words = text.split("; ").nth(1).and_then(|words| words.split(' ').next());
        removed += words.map_or(0, |count| count.parse::<u64>().unwrap());
    }
    removed
}

/// One life of the server, ended at a random moment.
struct Life<'a> {
    data: &'a Path,
    random: &'a mut Random,
    reads: &'a AtomicU64,
    collected: &'a AtomicU64,
}

impl Life<'_> {
    /// Mostly short; now and then long enough for the server's own collector to run.
    fn run(&mut self, clients: &mut [Client]) {
        let longest_us = if self.random.below(8) == 0 { 2_200_000 } else { 250_000 };
        let lasts = Duration::from_micros(self.random.below(longest_us));
        let rhub = start(self.data);
        let (address, over) = (rhub.address.clone(), AtomicBool::new(false));
        let reader = Random(self.random.below(u64::MAX));
        std::thread::scope(|scope| {
            for client in clients {
                let address = &address;
                scope.spawn(move || client.work(address));
            }
            scope.spawn(|| read_along(&address, reader, self.reads));
            scope.spawn(|| self.collected.fetch_add(collect_along(self.data, &over), Ordering::Relaxed));
            // The one thing waited for is a moment that nothing in the server has chosen.
            std::thread::sleep(lasts);
            rhub.kill_nine();
            over.store(true, Ordering::Relaxed);
        });
        if self.random.below(4) == 0 {
            self.die_young();
        }
    }

    /// A start that does not live to see its end.
    fn die_young(&mut self) {
        let mut child = command(self.data).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_micros(self.random.below(60_000)));
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

fn start(data: &Path) -> Rhub {
    let settings = ["gc.interval_s=1", "gc.grace_s=1", "gc.untagged_after_s=1", "limits.journal_rewrite_bytes=10000"];
    Rhub::start_with(data, &settings.map(|setting| ["--set", setting]).concat())
}

/// Nothing is listed that nobody pushed, and nothing is missing.
fn lists_are_right(rhub: &Rhub, clients: &[Client]) {
    let mut expected: HashMap<&str, BTreeSet<&str>> = HashMap::new();
    for ((repo, tag), _) in clients.iter().flat_map(|client| &client.tags).filter(|(_, possible)| possible[0].is_some()) {
        expected.entry(repo).or_default().insert(tag);
    }
    for repo in REPOSITORIES {
        let reply = rhub.get(&format!("/v2/{repo}/tags/list"));
        let listed = if reply.status == 404 { serde_json::json!([]) } else { reply.json()["tags"].clone() };
        let listed: BTreeSet<_> = listed.as_array().unwrap().iter().map(|tag| tag.as_str().unwrap()).collect();
        assert_eq!(listed, expected.remove(repo).unwrap_or_default(), "{repo}");
    }
}

fn everything_is_well(data: &Path) {
    let output = Command::new(env!("CARGO_BIN_EXE_rhub")).args(["check", "--data"]).arg(data).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("everything is well"), "{said}");
    assert!(!said.contains("does not have"), "{said}");
}

#[test]
fn what_was_acknowledged_survives_kill_nine_at_random_moments() {
    let kills = if std::env::var_os("LONGSHORE_LONG").is_some() { 500 } else { 40 };
    let seed = std::env::var("LONGSHORE_SEED").map_or_else(
        |_| u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() % (1 << 40)).unwrap(),
        |text| text.parse().unwrap(),
    );
    eprintln!("LONGSHORE_SEED={seed}");
    let dir = tempfile::tempdir().unwrap();
    let (reads, collected) = (AtomicU64::new(0), AtomicU64::new(0));
    let mut clients: Vec<_> = (0..CLIENTS).map(|name| Client::new(name, seed)).collect();
    let mut random = Random(seed);
    for kill in 1..=kills {
        Life { data: dir.path(), random: &mut random, reads: &reads, collected: &collected }.run(&mut clients);
        let rhub = start(dir.path());
        let mut seen = BTreeSet::new();
        clients.iter_mut().for_each(|client| client.hold(&rhub, &mut seen));
        lists_are_right(&rhub, &clients);
        rhub.kill_nine();
        if kill % KILLS_PER_CHECK == 0 {
            everything_is_well(dir.path());
        }
    }
    let acknowledged: u64 = clients.iter().map(|client| client.acknowledged).sum();
    let (reads, collected) = (reads.into_inner(), collected.into_inner());
    eprintln!("{kills} kills, {acknowledged} changes acknowledged, {reads} blobs read, {collected} contents collected");
    assert!(acknowledged > kills as u64 && collected > 0, "too little happened");
    wait_until_nothing_is_left_of_dead_starts(dir.path());
}

/// What a killed process was writing, the next start removes.
fn wait_until_nothing_is_left_of_dead_starts(data: &Path) {
    drop(start(data));
    let temporary = |name: &str| name.starts_with("tmp-");
    wait_until("leftovers are gone", || {
        let names = std::fs::read_dir(data.join("uploads")).unwrap();
        !names.into_iter().any(|entry| temporary(&entry.unwrap().file_name().to_string_lossy()))
    });
}
