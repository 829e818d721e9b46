//! What other tools push runs here, in every format they push; what `rpush` pushes runs there.

use std::process::{Command, Output};

use super::common::Rhub;
use super::common::needs::installed;
use super::fixture::{Kind, layout};
use super::tools::{User, stderr};

/// The storage of podman and buildah, one for each test.
struct Storage(tempfile::TempDir);

impl Storage {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn output(&self, peer: &str, args: &[&str]) -> Output {
        let path = |name: &str| self.0.path().join(name);
        let mut command = Command::new(peer);
        command.arg("--root").arg(path("root")).arg("--runroot").arg(path("run")).args(["--storage-driver", "vfs"]);
        // podman makes a name of a layout's path, which must be lowercase: a relative one.
        command.args(args).current_dir(path("")).output().unwrap()
    }

    fn succeed(&self, peer: &str, args: &[&str]) -> String {
        let output = self.output(peer, args);
        assert!(output.status.success(), "{peer} {args:?}: {}", stderr(&output));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// Makes the image of a layout known and gives its ID.
    fn load(&self, peer: &str, layout: &str) -> String {
        let (dir, tag) = layout.rsplit_once(':').unwrap();
        let link = self.0.path().join("layout");
        if !link.exists() {
            std::os::unix::fs::symlink(dir, &link).unwrap();
        }
        self.succeed(peer, &["pull", "-q", &format!("oci:layout:{tag}")])
    }
}

/// What every run of the small image must print.
const SCRIPT: &str = "cat /usr/share/kept/file; ls /usr/share /var/lib/app; stat -c '%a %u:%g %h' /bin/su /srv/links/owned; \
     stat -c %h /srv/links/a/first";
const PRINTED: &str = "kept\n/usr/share:\nkept\n\n/var/lib/app:\nnew\nsub\n4755 0:0 1\n6711 1234:4321 1\n3\n";

fn assert_runs_here(user: &User, name: &str) {
    assert_eq!(user.succeed("rrun", &["--rm", "-q", name, "sh", "-c", SCRIPT]), PRINTED, "{name}");
    user.succeed("rbox", &["rmi", name]);
    assert_eq!(user.check_store(), (vec![], vec![]));
}

/// The media types of a hosted image: its manifest's and its layers'.
fn media_types(rhub: &Rhub, repo: &str, tag: &str) -> (String, Vec<String>) {
    let manifest = rhub.get(&format!("/v2/{repo}/manifests/{tag}"));
    let document: serde_json::Value = serde_json::from_slice(&manifest.body).unwrap();
    let layers = document["layers"].as_array().unwrap().iter();
    let types = layers.map(|layer| layer["mediaType"].as_str().unwrap().to_owned());
    (manifest.header("content-type").to_owned(), types.collect())
}

#[test]
fn what_others_push_in_any_format_runs_here() {
    let Some(layout) = layout(Kind::Small) else { return };
    if !["podman", "buildah", "skopeo"].iter().all(|peer| installed(peer)) {
        return;
    }
    let user = User::new();
    let cases: [(&str, &[&str], &str, &str); 5] = [
        ("podman", &["--format", "oci"], "oci.image.manifest", "tar+gzip"),
        ("podman", &["--format", "oci", "--compression-format", "zstd"], "oci.image.manifest", "tar+zstd"),
        ("podman", &["--format", "v2s2"], "docker.distribution.manifest.v2", "diff.tar.gzip"),
        ("buildah", &["--format", "oci"], "oci.image.manifest", "tar+gzip"),
        ("buildah", &["--format", "docker"], "docker.distribution.manifest.v2", "diff.tar.gzip"),
    ];
    for (peer, options, manifest, layer) in cases {
        // Of its own: peers remember which compressed form of a layer a registry has.
        let (data, storage) = (tempfile::tempdir().unwrap(), Storage::new());
        let rhub = Rhub::start(data.path());
        let id = storage.load(peer, &layout);
        let name = format!("{}/peers/app:1", rhub.address);
        storage.succeed(peer, &[&["push", "--tls-verify=false"], options, &[&id, &format!("docker://{name}")]].concat());
        let (manifest_type, layer_types) = media_types(&rhub, "peers/app", "1");
        assert!(manifest_type.contains(manifest), "{peer} {options:?}: {manifest_type}");
        assert!(layer_types.iter().all(|media_type| media_type.ends_with(layer)), "{peer} {options:?}: {layer_types:?}");
        assert_runs_here(&user, &name);
    }
    let data = tempfile::tempdir().unwrap();
    let rhub = Rhub::start(data.path());
    let name = format!("{}/peers/skopeo:1", rhub.address);
    let to = format!("docker://{name}");
    let args = ["copy", "-q", "--insecure-policy", "--dest-tls-verify=false", "--format", "v2s2", &format!("oci:{layout}"), &to];
    let output = Command::new("skopeo").args(args).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    assert_runs_here(&user, &name);
}

#[test]
fn an_image_built_by_buildah_runs_here_with_its_configuration() {
    let Some(layout) = layout(Kind::Small) else { return };
    if !installed("buildah") {
        return;
    }
    let (data, user, storage) = (tempfile::tempdir().unwrap(), User::new(), Storage::new());
    let rhub = Rhub::start(data.path());
    let id = storage.load("buildah", &layout);
    let container = storage.succeed("buildah", &["from", "--pull-never", &id]);
    std::fs::write(data.path().join("added"), "added by buildah\n").unwrap();
    let added = data.path().join("added").display().to_string();
    storage.succeed("buildah", &["add", "--chown", "1000:1000", &container, &added, "/var/lib/app/added"]);
    let config = ["--user", "app", "--env", "WHO=built", "--workingdir", "/var/lib/app"];
    let command = ["--entrypoint", r#"["/bin/sh", "-c"]"#, "--cmd", "'id -un; pwd; echo $WHO; cat added'"];
    storage.succeed("buildah", &[&["config"], &config[..], &command, &[&container]].concat());
    for format in ["oci", "docker"] {
        let name = format!("{}/built:{format}", rhub.address);
        storage.succeed(
            "buildah",
            &["commit", "-q", "--format", format, "--tls-verify=false", &container, &format!("docker://{name}")],
        );
        assert_eq!(user.succeed("rrun", &["--rm", "-q", &name]), "app\n/var/lib/app\nbuilt\nadded by buildah\n", "{format}");
    }
}

#[test]
fn what_rpush_pushed_podman_runs() {
    let Some(layout) = layout(Kind::Small) else { return };
    if !["podman", "runc"].iter().all(|peer| installed(peer)) {
        return;
    }
    let (data, user, storage) = (tempfile::tempdir().unwrap(), User::new(), Storage::new());
    let rhub = Rhub::start(data.path());
    let name = format!("{}/for/podman:1", rhub.address);
    user.succeed("rpush", &[&format!("oci:{layout}"), &name]);
    storage.succeed("podman", &["pull", "-q", "--tls-verify=false", &name]);
    // What podman asks of the machine beyond Debian's defaults is not under test.
    let options = ["--runtime", "runc", "--cgroup-manager", "cgroupfs", "run", "--rm", "--network", "none"];
    let limits = ["--ulimit", "nofile=1024:4096", "--ulimit", "nproc=4096:4096"];
    let printed = storage.succeed("podman", &[&options[..], &limits, &[&name, "sh", "-c", SCRIPT]].concat());
    assert_eq!(printed, PRINTED.trim());
}
