//! What an operator does beside the serving: collecting garbage, asking why, checking, moving the
//! metadata; with a server running and without.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

mod common;

use std::path::Path;
use std::process::{Command, Output};

use common::{OCI_INDEX, OCI_MANIFEST, Rhub, descriptor, image_manifest, index_manifest};
use longshore_runtime::name::Digest;

/// Runs a verb of `rhub` on a data directory.
fn rhub(data: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_rhub")).args(arguments).arg("--data").arg(data).output().unwrap()
}

/// What a verb that succeeds says.
fn said(data: &Path, arguments: &[&str]) -> String {
    let output = rhub(data, arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn blob_path(data: &Path, digest: &Digest) -> std::path::PathBuf {
    data.join("blobs").join(digest.algorithm().as_str()).join(&digest.hex()[..2]).join(digest.hex())
}

/// Asserts that each verb says the same while the registry is served and while it is not.
fn both(data: &Path, server: Rhub, look: impl Fn()) -> Rhub {
    look();
    server.terminate();
    assert!(server.wait_politely().success());
    look();
    Rhub::start(data)
}

#[test]
fn garbage_is_named_explained_and_collected() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path();
    let server = Rhub::start(data);
    let kept = server.push_image("team/app", "v1", "kept layer");
    let manifest = Digest::of(kept.as_bytes());
    let layer = Digest::of(b"kept layer");
    let alone = server.push_blob("team/app", b"never used");
    let server = both(data, server, || {
        let why = said(data, &["why", layer.as_str()]);
        assert!(why.contains(&format!("team/app (blob): manifest {manifest} refers to it")), "{why}");
        let why = said(data, &["why", manifest.as_str()]);
        assert!(why.contains("team/app (manifest): tag v1"), "{why}");
        let why = said(data, &["why", alone.as_str()]);
        assert!(why.contains("nothing has referred to it"), "{why}");
        assert!(said(data, &["why", Digest::of(b"nothing").as_str()]).contains("is not stored"));
        assert!(said(data, &["gc", "--dry-run"]).starts_with("0 manifests and 0 blobs would be"), "the grace period");
        let would = said(data, &["gc", "--dry-run", "--grace", "0"]);
        assert!(would.contains("0 manifests and 1 blobs would be taken out") && would.contains("1 blobs of 10 bytes"), "{would}");
    });
    assert!(blob_path(data, &alone).exists());
    let did = said(data, &["gc", "--grace", "0"]);
    assert!(did.contains("1 blobs were taken out of repositories; 1 blobs of 10 bytes were removed"), "{did}");
    assert!(!blob_path(data, &alone).exists() && blob_path(data, &layer).exists());
    assert_eq!(server.send("HEAD", &format!("/v2/team/app/blobs/{alone}"), &[], b"").status, 404);
    assert_eq!(server.get("/v2/team/app/manifests/v1").body, kept.as_bytes());

    // Deleted, the image's content goes; what another repository has stays.
    let mount = format!("/v2/other/blobs/uploads/?mount={layer}&from=team/app");
    assert_eq!(server.send("POST", &mount, &[], b"").status, 201);
    assert_eq!(server.send("DELETE", &format!("/v2/team/app/manifests/{manifest}"), &[], b"").status, 202);
    let did = said(data, &["gc", "--grace", "0"]);
    assert!(did.contains("3 blobs were taken out of repositories"), "config, layer and the other's: {did}");
    for gone in [&layer, &manifest, &Digest::of(b"{}")] {
        assert!(!blob_path(data, gone).exists());
    }
    assert_eq!(server.get("/v2/_catalog").body, br#"{"repositories":[]}"#);
}

#[test]
fn the_collector_runs_by_itself_and_takes_untagged_manifests_if_wished() {
    let dir = tempfile::tempdir().unwrap();
    let settings = ["--set", "gc.interval_s=1", "--set", "gc.grace_s=1", "--set", "gc.untagged_after_s=1"];
    let server = Rhub::start_with(dir.path(), &settings);
    let old = Digest::of(server.push_image("app", "latest", "old layer").as_bytes());
    server.push_image("app", "latest", "new layer");
    let layer = blob_path(dir.path(), &Digest::of(b"old layer"));
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while layer.exists() {
        assert!(std::time::Instant::now() < deadline, "never collected");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    assert_eq!(server.get(&format!("/v2/app/manifests/{old}")).status, 404);
    assert_eq!(server.get("/v2/app/manifests/latest").status, 200);
    assert!(blob_path(dir.path(), &Digest::of(b"new layer")).exists());
}

#[test]
fn an_index_keeps_its_children_and_a_subject_its_referrers() {
    let dir = tempfile::tempdir().unwrap();
    let settings = ["--set", "gc.untagged_after_s=1"];
    let server = Rhub::start_with(dir.path(), &settings);
    let child = server.push_image("app", "child", "layer");
    let digest = Digest::of(child.as_bytes());
    let descriptor = descriptor(OCI_MANIFEST, child.as_bytes());
    let index = index_manifest(&[&child]);
    assert_eq!(server.put_manifest("app", "all", OCI_INDEX, index.as_bytes()).status, 201);
    assert_eq!(server.send("DELETE", "/v2/app/manifests/child", &[], b"").status, 202);
    let signature = image_manifest(b"{}", b"layer").replacen('{', &format!(r#"{{"subject":{descriptor},"#), 1);
    let reference = Digest::of(signature.as_bytes());
    assert_eq!(server.put_manifest("app", reference.as_str(), OCI_MANIFEST, signature.as_bytes()).status, 201);
    std::thread::sleep(std::time::Duration::from_millis(1100));
    said(dir.path(), &["gc", "--grace", "0", "--set", "gc.untagged_after_s=1"]);
    for name in ["all", digest.as_str(), reference.as_str()] {
        assert_eq!(server.get(&format!("/v2/app/manifests/{name}")).status, 200, "{name}");
    }
    let why = said(dir.path(), &["why", reference.as_str()]);
    assert!(why.contains(&format!("it is a referrer of {digest}")), "{why}");
}

#[test]
fn a_check_finds_and_repairs_damage() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path();
    let server = Rhub::start(data);
    server.push_image("app", "sound", "a sound layer");
    server.push_image("app", "flipped", "a flipped layer");
    server.push_image("app", "lost", "a lost layer");
    let lost = server.get("/v2/app/manifests/lost").body;
    let torn = Digest::of(server.push_image("app", "torn", "a layer of a torn manifest").as_bytes());
    assert!(said(data, &["check"]).contains("everything is well"));
    let (flipped, gone) = (Digest::of(b"a flipped layer"), Digest::of(b"a lost layer"));
    std::fs::write(blob_path(data, &flipped), b"a flopped layer").unwrap();
    let bytes = std::fs::read_to_string(blob_path(data, &torn)).unwrap();
    std::fs::write(blob_path(data, &torn), bytes.replace("schemaVersion", "schemaVersio_")).unwrap();
    std::fs::remove_file(blob_path(data, &gone)).unwrap();
    std::fs::remove_file(blob_path(data, &Digest::of(&lost))).unwrap();
    let server = both(data, server, || {
        let output = rhub(data, &["check"]);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(!output.status.success());
        assert!(text.contains(&format!("{flipped} is damaged")) && text.contains("4 problems found"), "{text}");
    });
    assert!(!rhub(data, &["check", "--repair"]).status.success());
    assert!(data.join("quarantine").join(format!("sha256-{}", flipped.hex())).exists());
    // Told that they are missing, a client pushes them again.
    for digest in [&flipped, &gone] {
        assert_eq!(server.send("HEAD", &format!("/v2/app/blobs/{digest}"), &[], b"").status, 404);
    }
    assert_eq!(server.get("/v2/app/manifests/lost").status, 500);
    server.push_image("app", "flipped", "a flipped layer");
    server.push_image("app", "lost", "a lost layer");
    server.push_image("app", "torn", "a layer of a torn manifest");
    assert!(said(data, &["check"]).contains("everything is well"));
    assert_eq!(server.get("/v2/app/manifests/lost").body, lost);
}

#[test]
fn an_export_makes_the_metadata_again_beside_the_same_blobs() {
    let dir = tempfile::tempdir().unwrap();
    let (data, copy) = (dir.path().join("data"), dir.path().join("copy"));
    let server = Rhub::start(&data);
    let pushed = server.push_image("team/app", "v1", "layer");
    let digest = Digest::of(pushed.as_bytes());
    let subject = descriptor(OCI_MANIFEST, pushed.as_bytes());
    let referrer = pushed.replacen('{', &format!(r#"{{"subject":{subject},"#), 1);
    let by_digest = Digest::of(referrer.as_bytes());
    assert_eq!(server.put_manifest("team/app", by_digest.as_str(), OCI_MANIFEST, referrer.as_bytes()).status, 201);
    let listed = server.get(&format!("/v2/team/app/referrers/{digest}")).body;
    let export = said(&data, &["export"]);
    server.terminate();
    assert!(server.wait_politely().success());
    assert_eq!(said(&data, &["export"]), export);
    let file = dir.path().join("export");
    std::fs::write(&file, &export).unwrap();
    std::fs::create_dir(&copy).unwrap();
    let copied = Command::new("cp").arg("-r").args([data.join("blobs"), data.join("uploads")]).arg(&copy).status();
    assert!(copied.unwrap().success());

    let refused = rhub(&data, &["import", file.to_str().unwrap()]);
    assert!(!refused.status.success() && String::from_utf8_lossy(&refused.stderr).contains("--replace"));
    let imported = said(&copy, &["import", file.to_str().unwrap()]);
    assert!(imported.contains("imported: 2 blobs, 2 manifests, 1 tags"), "{imported}");
    assert_eq!(said(&copy, &["export"]), export);
    let server = Rhub::start(&copy);
    assert_eq!(server.get("/v2/team/app/manifests/v1").body, pushed.as_bytes());
    assert_eq!(server.get(&format!("/v2/team/app/referrers/{digest}")).body, listed);
    drop(server);

    std::fs::write(&file, export.replace("link-blob", "link-blub")).unwrap();
    let damaged = rhub(&copy, &["import", "--replace", file.to_str().unwrap()]);
    assert!(!damaged.status.success() && String::from_utf8_lossy(&damaged.stderr).contains("checksums"));
    assert_eq!(said(&copy, &["export"]), export, "nothing was changed");
}
