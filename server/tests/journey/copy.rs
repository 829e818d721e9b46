//! Copying between registries, layouts, archives and the store, through the real program.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use longshore_runtime::name::{Digest, Platform};
use serde_json::{Value, json};

use super::common::needs::{installed, root};
use super::common::proxy::{Fault, Link, Passed, Proxy, Weather};
use super::common::{OCI_INDEX, OCI_MANIFEST, Rhub, wait_until};
use super::image::{Blob, INDEX, Image, tar};
use super::tools::{User, stderr};
use super::users::{Hub, PASSWORD};

fn image() -> Image {
    Image::new(&[tar(&[("bin/a", b"one")]), tar(&[("bin/b", &b"two".repeat(100_000)), (".wh.gone", b"")])])
}

/// An image of several layers that do not compress.
fn large(layers: u64, bytes: usize) -> Image {
    let parts: Vec<Image> = (1..=layers).map(|seed| Image::bulky(seed, 1, bytes)).collect();
    let diff_ids = parts.iter().flat_map(|part| part.diff_ids.clone()).collect();
    Image::from_parts(parts.into_iter().flat_map(|part| part.layers).collect(), diff_ids, &Platform::host())
}

/// Two registries, and somebody who copies.
struct Two {
    from: Rhub,
    to: Rhub,
    user: User,
    _data: [tempfile::TempDir; 2],
}

impl Two {
    fn new() -> Self {
        let data = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        Self { from: Rhub::start(data[0].path()), to: Rhub::start(data[1].path()), user: User::new(), _data: data }
    }

    /// With an image in the first.
    fn with(image: &Image, repository: &str, tag: &str) -> Self {
        let two = Self::new();
        host(&two.from, repository, tag, image);
        two
    }

    fn path(&self, name: &str) -> PathBuf {
        self.user.home().join(name)
    }

    fn copy(&self, arguments: &[&str]) -> String {
        self.user.succeed("rbox", &[&["copy"], arguments].concat())
    }
}

/// Puts an image into a registry, without any of the programs under test.
fn host(rhub: &Rhub, repository: &str, tag: &str, image: &Image) {
    image.blobs().for_each(|blob| drop(rhub.push_blob(repository, &blob.bytes)));
    assert_eq!(rhub.put_manifest(repository, tag, OCI_MANIFEST, &image.manifest.bytes).status, 201);
}

/// An image is in a registry, byte for byte.
fn assert_has(rhub: &Rhub, repository: &str, tag: &str, image: &Image) {
    assert_eq!(rhub.get(&format!("/v2/{repository}/manifests/{tag}")).body, image.manifest.bytes);
    for blob in image.blobs() {
        assert_eq!(rhub.get(&format!("/v2/{repository}/blobs/{}", blob.digest())).body, blob.bytes);
    }
}

/// An index of two images, of this machine's platform and another, in a registry.
pub(super) fn host_index(rhub: &Rhub, repository: &str, tag: &str) -> (Image, Image, Blob) {
    let other = Platform { architecture: "s390x".into(), ..Platform::host() };
    let layers = Image::new(&[tar(&[("other", b"x")])]);
    let images = [(image(), Platform::host()), (Image::from_parts(layers.layers, layers.diff_ids, &other), other)];
    let entries = images.iter().map(|(image, platform)| {
        host(rhub, repository, image.manifest.digest().as_str(), image);
        let mut entry = image.manifest.descriptor();
        entry["platform"] = json!({ "os": platform.os, "architecture": platform.architecture });
        entry
    });
    let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": entries.collect::<Vec<_>>() });
    let index = Blob { media_type: INDEX, bytes: index.to_string().into_bytes() };
    assert_eq!(rhub.put_manifest(repository, tag, OCI_INDEX, &index.bytes).status, 201);
    let [(own, _), (other, _)] = images;
    (own, other, index)
}

#[test]
fn an_image_goes_round_through_every_place_and_stays_what_it_is() {
    let image = image();
    let two = Two::with(&image, "team/app", "1");
    let digest = image.manifest.digest().to_string();
    let source = format!("docker://{}/team/app:1", two.from.address);
    let (layout, archive) = (two.path("layout"), two.path("app.tar"));
    let at = |kind: &str, path: &Path, tag: &str| format!("{kind}:{}:{tag}", path.display());
    let last = format!("{}/round:2", two.to.address);
    let digestfile = two.path("digest");
    let hops = [source, at("oci", &layout, "a"), at("oci-archive", &archive, "b"), "store:round:3".into(), last.clone()];
    for hop in hops.windows(2) {
        let said = two.copy(&["-q", "--digestfile", digestfile.to_str().unwrap(), &hop[0], &hop[1]]);
        assert_eq!(said, format!("{digest}\n"), "{hop:?}");
        assert_eq!(std::fs::read_to_string(&digestfile).unwrap(), digest);
    }
    assert_has(&two.to, "round", "2", &image);
    let names = |dir: &Path| std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name()).collect::<Vec<_>>();
    assert_eq!(names(&layout).len(), 3, "blobs, index.json, oci-layout");
    assert!(!names(two.user.home()).iter().any(|name| name.to_string_lossy().contains(".tmp")));

    // It runs from the store; once more nothing travels; by digest, too.
    assert_eq!(two.user.succeed("rbox", &["images", "-q"]).lines().count(), 1);
    let again = two.user.output("rbox", &["copy", &hops[0], &last]);
    assert_eq!(stderr(&again).matches("Already exists").count(), 3, "{}", stderr(&again));
    let pinned = format!("{}/round@{digest}", two.to.address);
    two.copy(&[&format!("docker://{}/team/app@{digest}", two.from.address), &format!("docker://{pinned}")]);
    let other = format!("{}/round@{}", two.to.address, Digest::of(b"another"));
    assert!(two.user.fail("rbox", &["copy", &hops[0], &other]).contains("does not match its digest"));
}

#[test]
fn a_docker_archive_holds_the_same_files_and_configuration() {
    let image = image();
    let two = Two::with(&image, "app", "1");
    let archive = format!("docker-archive:{}", two.path("app.tar").display());
    two.copy(&[&format!("{}/app:1", two.from.address), &format!("{archive}:example/app:7")]);
    two.user.succeed("rbox", &["load", "-q", "-i", two.path("app.tar").to_str().unwrap()]);
    let id = image.config.digest().to_string();
    assert_eq!(two.user.succeed("rbox", &["images", "-q", "--no-trunc", "example/app"]), format!("{id}\n"));
    two.copy(&[&archive, &format!("{}/again:1", two.to.address)]);
    let manifest: Value = serde_json::from_slice(&two.to.get("/v2/again/manifests/1").body).unwrap();
    assert_eq!(manifest["config"]["digest"], id);
}

#[test]
fn an_archive_goes_into_a_pipe_a_device_and_where_a_link_leads() {
    let two = Two::with(&image(), "app", "1");
    let source = format!("docker://{}/app:1", two.from.address);
    let [pipe, null, file, link] = ["pipe", "null", "file", "link"].map(|name| two.path(name));
    rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RWXU).unwrap();
    std::os::unix::fs::symlink("/dev/null", &null).unwrap();
    std::os::unix::fs::symlink("file", &link).unwrap();
    for kind in ["oci-archive", "docker-archive"] {
        std::fs::write(&file, "before").unwrap();
        let to = |path: &Path| format!("{kind}:{}", path.display());
        two.copy(&[&source, &to(&link)]);
        let read = std::thread::spawn({
            let pipe = pipe.clone();
            move || std::fs::read(pipe).unwrap()
        });
        two.copy(&[&source, &to(&pipe)]);
        assert!(read.join().unwrap() == std::fs::read(&file).unwrap(), "{kind}");
        two.copy(&[&source, &to(&null)]);
        assert!([&null, &link].iter().all(|path| path.is_symlink()));
        two.copy(&[&to(&file), &format!("{}/{kind}:1", two.to.address)]);
    }
}

#[test]
fn one_image_of_an_index_or_all_of_it() {
    let two = Two::new();
    let (own, other, index) = host_index(&two.from, "multi", "1");
    let source = format!("docker://{}/multi:1", two.from.address);
    two.copy(&[&source, &format!("{}/own:1", two.to.address)]);
    assert_has(&two.to, "own", "1", &own);
    two.copy(&["--platform", "linux/s390x", &source, &format!("{}/other:1", two.to.address)]);
    assert_has(&two.to, "other", "1", &other);
    assert!(two.user.fail("rbox", &["copy", "--platform", "linux/mips", &source, "oci:x"]).contains("made for"));
    for flag in ["--all", "-a", "--all-platforms"] {
        let layout = two.path(&format!("all{flag}"));
        let place = format!("oci:{}:1", layout.display());
        two.copy(&[flag, &source, &place]);
        let name = format!("all{}", flag.len());
        two.copy(&[flag, &place, &format!("{}/{name}:1", two.to.address)]);
        assert_eq!(two.to.get(&format!("/v2/{name}/manifests/1")).body, index.bytes);
        for image in [&own, &other] {
            assert_has(&two.to, &name, image.manifest.digest().as_str(), image);
        }
    }
    two.copy(&[&source, "store:multi:1"]);
    assert!(two.user.fail("rbox", &["copy", "--all", &source, "store:multi:1"]).contains("leave --all out"));
}

#[test]
fn what_refers_to_an_image_goes_along() {
    let image = image();
    let two = Two::with(&image, "app", "1");
    let subject = image.manifest.descriptor();
    let put = |content: &[u8], of: &Value| -> (Value, Vec<u8>) {
        two.from.push_blob("app", b"{}");
        two.from.push_blob("app", content);
        let mut manifest: Value = serde_json::from_str(&super::common::image_manifest(b"{}", content)).unwrap();
        manifest["subject"] = of.clone();
        manifest["artifactType"] = "application/x.sbom".into();
        let bytes = manifest.to_string().into_bytes();
        let digest = Digest::of(&bytes);
        assert_eq!(two.from.put_manifest("app", digest.as_str(), OCI_MANIFEST, &bytes).status, 201);
        (json!({ "mediaType": OCI_MANIFEST, "digest": digest, "size": bytes.len() }), bytes)
    };
    let (sbom, sbom_bytes) = put(b"an SBOM", &subject);
    let (signature, signature_bytes) = put(b"its signature", &sbom);
    // As cosign does it.
    let by_tag = format!("{}.sig", image.manifest.digest().as_str().replace(':', "-"));
    two.from.push_image("app", &by_tag, "signed");
    let source = format!("docker://{}/app:1", two.from.address);

    two.copy(&[&source, &format!("{}/without:1", two.to.address)]);
    let digest_of = |descriptor: &Value| descriptor["digest"].as_str().unwrap().to_owned();
    assert_eq!(two.to.get(&format!("/v2/without/manifests/{}", digest_of(&sbom))).status, 404);

    let layout = format!("oci:{}:1", two.path("layout").display());
    let archive = format!("oci-archive:{}:1", two.path("a.tar").display());
    let names = ["direct", "layout", "archive", "pushed"];
    let to: Vec<String> = names.iter().map(|name| format!("{}/{name}:1", two.to.address)).collect();
    two.copy(&["--referrers", &source, &to[0]]);
    two.copy(&["--referrers", &source, &layout]);
    two.copy(&["--referrers", &layout, &to[1]]);
    two.copy(&["--referrers", &layout, &archive]);
    two.copy(&["--referrers", &archive, &to[2]]);
    two.user.succeed("rpush", &["--referrers", &layout, &to[3]]);
    for name in names {
        assert_has(&two.to, name, "1", &image);
        let get = |what: &str| two.to.get(&format!("/v2/{name}/{what}"));
        let listed = get(&format!("referrers/{}", image.manifest.digest())).json();
        assert_eq!(listed["manifests"][0]["digest"], digest_of(&sbom), "{name}");
        assert_eq!(get(&format!("manifests/{}", digest_of(&sbom))).body, sbom_bytes);
        assert_eq!(get(&format!("manifests/{}", digest_of(&signature))).body, signature_bytes);
        assert_eq!(get(&format!("manifests/{by_tag}")).status, 200, "{name}");
    }
}

#[test]
fn what_comes_into_the_store_is_subject_to_the_policy() {
    let two = Two::with(&image(), "app", "1");
    let (policy, layout) = (two.path("policy.toml"), format!("oci:{}", two.path("layout").display()));
    let (good, bad) = (format!("docker://{}/app:1", two.from.address), format!("docker://{}/app:1", two.to.address));
    std::fs::write(&policy, format!("default = \"reject\"\n[images]\n\"{}/app\" = \"accept\"\n", two.from.address)).unwrap();
    let copy = |from: &str, to: &str| {
        let output = two.user.command("rbox", &["copy", "-q", from, to]).env("LONGSHORE_POLICY", &policy).output().unwrap();
        (output.status.success(), stderr(&output))
    };
    // Who only passes something on does not run it.
    assert!(copy(&good, &layout).0 && copy(&good, &bad).0);
    for refused in [&bad, &layout] {
        let (done, said) = copy(refused, "store:app:1");
        assert!(!done && said.contains("policy.toml"), "{said}");
    }
    assert_eq!(two.user.succeed("rbox", &["images", "-q"]), "");
    // Nor does it get a name that others vouch for.
    assert!(!copy(&good, "store:app:1").0);
    assert!(copy(&good, &format!("store:{}/app:2", two.from.address)).0);
    let store = format!("oci:{}:x", two.user.store().display());
    assert!(two.user.fail("rbox", &["copy", &good, &store]).contains("store:NAME"));
}

#[test]
fn within_one_registry_blobs_are_mounted() {
    let image = image();
    let two = Two::with(&image, "base", "1");
    let proxy = Proxy::start(&two.from.address, Weather::default());
    two.copy(&[&format!("{}/base:1", proxy.address), &format!("{}/team/app:1", proxy.address)]);
    assert_has(&two.from, "team/app", "1", &image);
    let sent: Vec<String> =
        proxy.passed().into_iter().filter(|passed| passed.method == "PUT").map(|passed| passed.path).collect();
    assert_eq!(sent, ["/v2/team/app/manifests/1"], "no blob travels");
    assert!(!proxy.passed().iter().any(|passed| passed.method == "GET" && passed.path.contains("/blobs/")));
}

fn puts(proxy: &Proxy) -> Vec<Passed> {
    proxy.passed().into_iter().filter(|passed| passed.method == "PUT" && passed.path.contains("/uploads/")).collect()
}

#[test]
fn a_wrong_byte_on_the_way_closes_no_upload() {
    let image = large(1, 3_000_000);
    let two = Two::with(&image, "app", "1");
    let weather = Weather { faults: vec![Fault::WrongByte], blob_faults: 1, ..Weather::default() };
    let proxy = Proxy::start(&two.from.address, weather);
    let source = format!("docker://{}/app:1", proxy.address);
    let layer = image.layers[0].digest();
    proxy.set(|weather| weather.only = Some(format!("/v2/app/blobs/{layer}")));

    let to = Proxy::start(&two.to.address, Weather::default());
    let said = two.user.fail("rbox", &["copy", &source, &format!("{}/app:1", to.address)]);
    assert!(said.contains("does not match its digest"), "{said}");
    let of_layer = puts(&to).into_iter().filter(|passed| passed.request_bytes > 1_000_000);
    assert!(of_layer.count() >= 1, "it was on its way");
    assert_eq!(two.to.get(&format!("/v2/app/blobs/{layer}")).status, 404);
    assert_eq!(two.to.get("/v2/app/manifests/1").status, 404);
    // Nor does it leave one open.
    let ended: Vec<Passed> = to.passed().into_iter().filter(|passed| passed.method == "DELETE").collect();
    assert_eq!(ended.len(), 1, "{ended:?}");
    assert_eq!(two.to.get(ended[0].path.split('?').next().unwrap()).status, 404);
    two.copy(&[&source, &format!("{}/app:1", to.address)]);
    assert_has(&two.to, "app", "1", &image);

    // Into files: nothing has the blob's name, and the next attempt is as if there had been none.
    for kind in ["oci", "oci-archive", "docker-archive"] {
        proxy.set(|_| {});
        let path = two.path(kind);
        let place = format!("{kind}:{}", path.display());
        let said = two.user.fail("rbox", &["copy", &source, &place]);
        assert!(said.contains("does not match its digest") || kind == "docker-archive", "{said}");
        match kind {
            "oci" => assert!(!path.join("blobs/sha256").join(layer.hex()).exists()),
            _ => assert!(!path.exists()),
        }
        two.copy(&[&source, &place]);
    }
}

#[test]
fn a_copy_comes_through_breaks_on_both_sides() {
    use Fault::{BadGateway, BeforeHead, CutRequest, InHead, Middle, Reset, ServerError};
    let image = large(2, 3_000_000);
    let two = Two::with(&image, "app", "1");
    let seed = u64::from(std::process::id());
    let faults = vec![BeforeHead, InHead, Middle, Middle, Reset, BadGateway];
    let from = Proxy::start(&two.from.address, Weather { faults, seed, blob_faults: 8, other_faults: 2, ..Weather::default() });
    let faults = vec![CutRequest, CutRequest, BadGateway, ServerError];
    let to = Proxy::start(&two.to.address, Weather { faults, seed, blob_faults: 4, other_faults: 2, ..Weather::default() });
    let arguments = ["copy", &format!("{}/app:1", from.address), &format!("{}/app:1", to.address)];
    let output = two.user.command("rbox", &arguments).env("LONGSHORE_TEST_TIMING", "stall=2000,backoff=4").output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    assert_has(&two.to, "app", "1", &image);
    let asked_how_far = to.passed().iter().any(|passed| passed.method == "GET" && passed.path.contains("/uploads/"));
    assert!(asked_how_far, "{:?}", to.injected());
}

#[test]
fn after_kill_nine_only_the_rest_moves() {
    let image = large(3, 4_000_000);
    let layer_bytes = image.layers.iter().map(|layer| layer.bytes.len() as u64).max().unwrap();
    let two = Two::with(&image, "app", "1");
    let proxy = Proxy::start(&two.from.address, Weather::default());
    let slowly = Link { latency: std::time::Duration::ZERO, bytes_per_second: 4_000_000 };
    let layout = two.path("layout");
    for destination in [format!("{}/app:1", two.to.address), format!("oci:{}:1", layout.display())] {
        proxy.set(|weather| weather.link = Some(slowly));
        let before = proxy.body_bytes();
        let arguments = ["copy", "--jobs", "1", &format!("{}/app:1", proxy.address), &destination];
        let mut child = two.user.command("rbox", &arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        wait_until("a layer and a half have come", || proxy.body_bytes() - before > layer_bytes * 3 / 2);
        child.kill().unwrap();
        child.wait().unwrap();
        proxy.set(|weather| weather.link = None);
        let begun = proxy.body_bytes();
        two.copy(&["--jobs", "1", &format!("{}/app:1", proxy.address), &destination]);
        let moved = proxy.body_bytes() - begun;
        // Into a registry: the layer that was complete is not fetched again. Into a layout: no byte is.
        let most = layer_bytes * if destination.starts_with("oci:") { 3 } else { 4 } / 2 + 500_000;
        assert!(moved < most, "{moved} bytes moved to {destination}");
    }
    assert_has(&two.to, "app", "1", &image);
    two.copy(&[&format!("oci:{}:1", layout.display()), &format!("{}/again:1", two.to.address)]);
    assert_has(&two.to, "again", "1", &image);
}

#[test]
fn many_at_once_into_one_layout_lose_nothing() {
    let image = large(2, 1_000_000);
    let two = Two::with(&image, "app", "1");
    let layout = two.path("layout");
    let children: Vec<_> = (0..6)
        .map(|number| {
            let to = format!("oci:{}:{number}", layout.display());
            let arguments = ["copy", "-q", &format!("{}/app:1", two.from.address), &to];
            two.user.command("rbox", &arguments).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
        })
        .collect();
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
    }
    for number in 0..6 {
        let to = format!("{}/back:{number}", two.to.address);
        two.copy(&["-q", &format!("oci:{}:{number}", layout.display()), &to]);
        assert_has(&two.to, "back", &number.to_string(), &image);
    }
    let left = std::fs::read_dir(&layout)
        .unwrap()
        .filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().starts_with('.'));
    assert_eq!(left.count(), 0);
}

#[test]
fn credentials_come_by_flag_file_and_environment() {
    let image = image();
    let two = Two::new();
    let file = two.path("creds");
    std::fs::write(&file, format!("me:{PASSWORD}\n")).unwrap();
    let rules = "[[access.rules]]\nwho = [\"user:me\"]\nrepositories = [\"**\"]\nallow = [\"pull\", \"push\"]\n";
    let guarded = Hub::start(&["me"], rules);
    let name = format!("{}/app:1", guarded.rhub.address);
    let right = format!("me:{PASSWORD}");
    image.write_layout(&two.path("layout"), "1");
    let layout = format!("oci:{}:1", two.path("layout").display());
    let said = two.user.fail("rbox", &["copy", "--dest-creds", "me:mistaken", &layout, &name]);
    assert!(!said.contains("mistaken"), "{said}");
    two.user.fail("rbox", &["copy", &layout, &name]);
    two.copy(&["--dest-creds-file", file.to_str().unwrap(), &layout, &name]);
    two.copy(&["--src-creds", &right, &name, &format!("{}/app:1", two.to.address)]);
    let arguments = ["copy", "-q", &name, &format!("{}/app:2", two.to.address)];
    let output = two.user.command("rbox", &arguments).env("LONGSHORE_SRC_CREDS", &right).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    assert_has(&two.to, "app", "2", &image);
    two.user.succeed("rpull", &["-q", "--creds", &right, &name]);
    two.user.succeed("rpush", &["-q", "--creds-file", file.to_str().unwrap(), &layout, &name]);
}

/// A running docker-registry, ended when dropped.
pub(super) struct DockerRegistry {
    child: std::process::Child,
    pub(super) address: String,
    _data: tempfile::TempDir,
}

impl DockerRegistry {
    pub(super) fn start() -> Self {
        // It cannot be asked which port it got, so a free one is found for it.
        let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let data = tempfile::tempdir().unwrap();
        let config = data.path().join("config.yml");
        let text = format!(
            "version: 0.1\nlog: {{ level: error }}\nhttp: {{ addr: \"{address}\" }}\n\
             storage: {{ filesystem: {{ rootdirectory: \"{}\" }}, delete: {{ enabled: true }} }}\n",
            data.path().join("data").display()
        );
        std::fs::write(&config, text).unwrap();
        let mut command = Command::new("docker-registry");
        let child = command.arg("serve").arg(&config).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let started = Self { child, address, _data: data };
        wait_until("docker-registry serves", || std::net::TcpStream::connect(&started.address).is_ok());
        started
    }
}

impl Drop for DockerRegistry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn debians_registry_gives_and_takes() {
    if !installed("docker-registry") {
        return;
    }
    let peer = DockerRegistry::start();
    let two = Two::new();
    let (own, other, index) = host_index(&two.from, "multi", "1");
    // What refers to an image is found again where the registry keeps no list itself.
    let mut sbom: Value = serde_json::from_slice(&own.manifest.bytes).unwrap();
    sbom["subject"] = own.manifest.descriptor();
    let sbom = sbom.to_string();
    let sbom_digest = Digest::of(sbom.as_bytes());
    assert_eq!(two.from.put_manifest("multi", sbom_digest.as_str(), OCI_MANIFEST, sbom.as_bytes()).status, 201);

    let there = format!("{}/deep/er:1", peer.address);
    two.copy(&["-a", "--referrers", &format!("{}/multi:1", two.from.address), &there]);
    two.copy(&["-a", "--referrers", &there, &format!("{}/app:1", two.to.address)]);
    assert_eq!(two.to.get("/v2/app/manifests/1").body, index.bytes);
    for image in [&own, &other] {
        assert_has(&two.to, "app", image.manifest.digest().as_str(), image);
    }
    let listed = two.to.get(&format!("/v2/app/referrers/{}", own.manifest.digest())).json();
    assert_eq!(listed["manifests"][0]["digest"], sbom_digest.as_str());
    // Within it: mounted.
    two.copy(&["-a", &there, &format!("{}/elsewhere:1", peer.address)]);
}

#[test]
fn skopeo_umoci_and_buildah_read_what_is_written_and_write_what_is_read() {
    if !root() || !["skopeo", "umoci", "buildah"].iter().all(|peer| installed(peer)) {
        return;
    }
    let image = image();
    let two = Two::with(&image, "app", "1");
    let home = two.user.home();
    let run = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).current_dir(home).output().unwrap();
        assert!(output.status.success(), "{program} {arguments:?}: {}", stderr(&output));
        String::from_utf8(output.stdout).unwrap()
    };
    let inspect = |place: &str| run("skopeo", &["inspect", "--raw", place]);
    let source = format!("{}/app:1", two.from.address);
    let at = |kind: &str, name: &str| format!("{kind}:{}", two.path(name).display());
    let (layout, archive, docker) = (at("oci", "layout"), at("oci-archive", "o.tar"), at("docker-archive", "d.tar"));
    two.copy(&[&source, &format!("{layout}:1")]);
    two.copy(&[&source, &format!("{archive}:1")]);
    two.copy(&[&source, &format!("{docker}:a/b:1")]);
    for place in [format!("{layout}:1"), format!("{archive}:1"), archive.clone()] {
        assert_eq!(inspect(&place).as_bytes(), image.manifest.bytes, "{place}");
    }
    assert!(inspect(&docker).contains(&image.config.digest().to_string()));
    run("skopeo", &["copy", "-q", "--insecure-policy", &docker, &at("dir", "dir")]);
    let storage = ["--root", "storage", "--runroot", "run", "--storage-driver", "vfs"];
    let buildah = |arguments: &[&str]| run("buildah", &[&storage[..], arguments].concat());
    let id = buildah(&["pull", "-q", "oci:layout:1"]);
    assert_eq!(id.trim(), image.config.digest().hex());
    for place in ["oci-archive:o.tar", "docker-archive:d.tar:a/b:1"] {
        assert_eq!(buildah(&["pull", "-q", place]), id, "{place}");
    }

    // umoci changes what we wrote; we add to what it wrote; it collects what nothing names.
    run("umoci", &["config", "--image", "layout:1", "--tag", "2", "--config.cmd", "/bin/other"]);
    two.copy(&[&format!("{layout}:2"), &format!("{}/umoci:2", two.to.address)]);
    two.copy(&[&source, &format!("{layout}:3")]);
    run("umoci", &["gc", "--layout", "layout"]);
    assert_eq!(run("umoci", &["list", "--layout", "layout"]).lines().collect::<Vec<_>>(), ["1", "2", "3"]);
    two.copy(&[&format!("{layout}:3"), &format!("{}/umoci:3", two.to.address)]);
    assert_has(&two.to, "umoci", "3", &image);

    // What they write.
    run("skopeo", &["copy", "-q", "--insecure-policy", &format!("{layout}:1"), &format!("{layout}:4")]);
    run("skopeo", &["copy", "-q", "--insecure-policy", &format!("{layout}:1"), &at("oci-archive", "s.tar")]);
    run("skopeo", &["copy", "-q", "--insecure-policy", &format!("{layout}:1"), &at("docker-archive", "s.docker")]);
    buildah(&["push", "-q", id.trim(), "oci:layout:5"]);
    for (place, tag) in [(format!("{layout}:4"), "4"), (at("oci-archive", "s.tar"), "a")] {
        two.copy(&[&place, &format!("{}/back:{tag}", two.to.address)]);
        assert_has(&two.to, "back", tag, &image);
    }
    two.copy(&[&at("docker-archive", "s.docker"), &format!("{}/back:d", two.to.address)]);
    two.copy(&[&format!("{layout}:5"), "store:built:5"]);
}
