//! The clients people use, against the real program, both directions.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

mod common;

use std::path::Path;
use std::process::Command;

use common::needs::installed;
use common::{Rhub, descriptor};
use longshore_runtime::name::Digest;

fn run(program: &str, arguments: &[&str]) -> String {
    run_in(Path::new("/"), program, arguments)
}

fn run_in(directory: &Path, program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).current_dir(directory).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

fn rhub() -> (tempfile::TempDir, Rhub) {
    let dir = tempfile::tempdir().unwrap();
    let rhub = Rhub::start(&dir.path().join("data"));
    (dir, rhub)
}

/// An OCI layout with one image, `latest`, of two plain tar layers of one file each; the second is
/// larger than what is read or written at once.
fn layout(dir: &Path) {
    let layers = [tar("hello", b"hello\n"), tar("large", &b"0123456789abcdef".repeat(200_000))];
    let diff_ids: Vec<_> = layers.iter().map(|layer| format!("\"{}\"", Digest::of(layer))).collect();
    let config = format!(
        r#"{{"architecture":"amd64","os":"linux","config":{{"Cmd":["/hello"]}},"rootfs":{{"type":"layers","diff_ids":[{}]}}}}"#,
        diff_ids.join(",")
    );
    let descriptors: Vec<_> = layers.iter().map(|layer| descriptor("application/vnd.oci.image.layer.v1.tar", layer)).collect();
    let manifest = format!(
        r#"{{"schemaVersion":2,"mediaType":"{}","config":{},"layers":[{}]}}"#,
        common::OCI_MANIFEST,
        descriptor("application/vnd.oci.image.config.v1+json", config.as_bytes()),
        descriptors.join(",")
    );
    let named = descriptor(common::OCI_MANIFEST, manifest.as_bytes()).replacen(
        '{',
        r#"{"annotations":{"org.opencontainers.image.ref.name":"latest"},"#,
        1,
    );
    let blobs = dir.join("blobs/sha256");
    std::fs::create_dir_all(&blobs).unwrap();
    for content in [&layers[0], &layers[1], config.as_bytes(), manifest.as_bytes()] {
        std::fs::write(blobs.join(Digest::of(content).hex()), content).unwrap();
    }
    std::fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    std::fs::write(dir.join("index.json"), format!(r#"{{"schemaVersion":2,"manifests":[{named}]}}"#)).unwrap();
}

/// A ustar archive of one file.
fn tar(name: &str, content: &[u8]) -> Vec<u8> {
    let mut header = [0_u8; 512];
    let mut field = |at: usize, text: &str| header[at..at + text.len()].copy_from_slice(text.as_bytes());
    field(0, name);
    field(100, "0000644\0");
    field(108, "0000000\0");
    field(116, "0000000\0");
    field(124, &format!("{:011o}\0", content.len()));
    field(136, "00000000000\0");
    field(148, "        ");
    field(156, "0");
    field(257, "ustar\x0000");
    let sum: u32 = header.iter().map(|b| u32::from(*b)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let mut archive = [&header, content].concat();
    archive.resize(archive.len().next_multiple_of(512) + 1024, 0);
    archive
}

#[test]
fn skopeo_copies_in_and_out_and_the_bytes_are_the_same() {
    if !installed("skopeo") {
        return;
    }
    let (dir, rhub) = rhub();
    let (source, back) = (dir.path().join("source"), dir.path().join("back"));
    layout(&source);
    let image = format!("docker://{}/team/blobs:v1", rhub.address);
    run(
        "skopeo",
        &["copy", "--preserve-digests", "--dest-tls-verify=false", &format!("oci:{}:latest", source.display()), &image],
    );
    run("skopeo", &["copy", "--preserve-digests", "--src-tls-verify=false", &image, &format!("oci:{}:latest", back.display())]);
    let names = |dir: &Path| {
        let mut names: Vec<_> =
            std::fs::read_dir(dir.join("blobs/sha256")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    assert_eq!(names(&back), names(&source));
    // From one repository to another: what can be mounted is.
    let copy = format!("docker://{}/team/copy:v1", rhub.address);
    run("skopeo", &["copy", "--src-tls-verify=false", "--dest-tls-verify=false", &image, &copy]);
    let tags = run("skopeo", &["list-tags", "--tls-verify=false", &format!("docker://{}/team/copy", rhub.address)]);
    assert!(tags.contains("\"v1\""), "{tags}");
    run("skopeo", &["delete", "--tls-verify=false", &copy]);
    assert_eq!(rhub.get("/v2/team/copy/manifests/v1").status, 404);
}

#[test]
fn skopeo_copies_docker_schema_two_and_lists() {
    if !installed("skopeo") {
        return;
    }
    let (dir, rhub) = rhub();
    let source = dir.path().join("source");
    layout(&source);
    let source = format!("oci:{}:latest", source.display());
    let image = format!("docker://{}/app:v2s2", rhub.address);
    run("skopeo", &["copy", "--dest-tls-verify=false", "--format", "v2s2", &source, &image]);
    let manifest = rhub.get("/v2/app/manifests/v2s2");
    assert_eq!(manifest.header("content-type"), "application/vnd.docker.distribution.manifest.v2+json");
    let back = dir.path().join("back");
    run("skopeo", &["copy", "--src-tls-verify=false", &image, &format!("docker-archive:{}:app:v2s2", back.display())]);
    let list = format!(
        r#"{{"schemaVersion":2,"mediaType":"application/vnd.docker.distribution.manifest.list.v2+json","manifests":[{}]}}"#,
        descriptor("application/vnd.docker.distribution.manifest.v2+json", &manifest.body).replacen(
            '{',
            r#"{"platform":{"os":"linux","architecture":"amd64"},"#,
            1
        )
    );
    let media_type = "application/vnd.docker.distribution.manifest.list.v2+json";
    assert_eq!(rhub.put_manifest("app", "list", media_type, list.as_bytes()).status, 201);
    let (list, all) = (format!("docker://{}/app:list", rhub.address), format!("docker://{}/app2:list", rhub.address));
    run("skopeo", &["copy", "--all", "--src-tls-verify=false", "--dest-tls-verify=false", &list, &all]);
    assert_eq!(rhub.get("/v2/app2/manifests/list").header("content-type"), media_type);
}

#[test]
fn podman_and_buildah_push_and_pull() {
    for (peer, format) in [("podman", "oci"), ("podman", "v2s2"), ("buildah", "oci"), ("buildah", "docker")] {
        if !installed(peer) {
            continue;
        }
        let (dir, rhub) = rhub();
        layout(&dir.path().join("source"));
        let image = format!("{}/team/app:{format}", rhub.address);
        let store = |name: &str| {
            let path = |part: &str| dir.path().join(format!("{name}-{part}")).display().to_string();
            ["--root".into(), path("root"), "--runroot".into(), path("run"), "--storage-driver".into(), "vfs".into()]
        };
        let call = |store: &[String], arguments: &[&str]| {
            let arguments: Vec<&str> = store.iter().map(String::as_str).chain(arguments.iter().copied()).collect();
            // podman makes a name of the layout's path, which must be lowercase: a relative one.
            run_in(dir.path(), peer, &arguments)
        };
        let pusher = store("pusher");
        let pulled = call(&pusher, &["pull", "-q", "oci:source:latest"]);
        let id = pulled.trim();
        call(&pusher, &["push", "--tls-verify=false", "--format", format, id, &format!("docker://{image}")]);
        let puller = store("puller");
        call(&puller, &["pull", "-q", "--tls-verify=false", &image]);
        let images = call(&puller, &["images", "--format", "{{.ID}}"]);
        assert!(!images.trim().is_empty(), "{peer} {format}");
        let manifest = rhub.get(&format!("/v2/team/app/manifests/{format}"));
        let expected = if format == "oci" { "vnd.oci" } else { "vnd.docker" };
        assert!(manifest.header("content-type").contains(expected), "{peer} {format}: {manifest:?}");
    }
}
