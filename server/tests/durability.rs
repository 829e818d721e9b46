//! Acknowledged means durable: the real program, stopped, restarted, and out of space. `crash.rs` kills
//! it at random moments, `faults.rs` makes its system calls fail.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

mod common;

use std::io::{Read, Write};
use std::path::Path;
use std::process::Command;

use common::needs::required;
use common::{Reply, Rhub, command, wait_until};
use longshore_runtime::name::Digest;

fn layer(n: usize) -> Vec<u8> {
    let seed = Digest::of(&n.to_le_bytes());
    seed.as_str().as_bytes().repeat(1 + n * 40)
}

#[test]
fn a_partial_upload_is_resumed_after_kill_nine_and_after_a_clean_stop() {
    let dir = tempfile::tempdir().unwrap();
    let content = layer(500);
    let digest = Digest::of(&content);
    let third = content.len() / 3;
    let rhub = Rhub::start(dir.path());
    let location = rhub.start_upload("a/b");
    assert_eq!(rhub.send("PATCH", &location, &[], &content[..third]).status, 202);
    rhub.kill_nine();

    let rhub = Rhub::start(dir.path());
    assert_eq!(rhub.get(&format!("/v2/a/b/blobs/{digest}")).status, 404);
    let status = rhub.get(&location);
    assert_eq!((status.status, status.header("range")), (204, format!("0-{}", third - 1).as_str()));
    let range = format!("{third}-{}", 2 * third - 1);
    assert_eq!(rhub.send("PATCH", &location, &[("content-range", &range)], &content[third..2 * third]).status, 202);
    rhub.terminate();
    assert!(rhub.wait_politely().success());

    let rhub = Rhub::start(dir.path());
    let reply = rhub.send("PUT", &format!("{location}?digest={digest}"), &[], &content[2 * third..]);
    assert_eq!(reply.status, 201, "{reply:?}");
    assert!(rhub.get(&format!("/v2/a/b/blobs/{digest}")).body == content);
}

#[test]
fn what_arrived_of_a_broken_upload_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let rhub = Rhub::start(dir.path());
    let location = rhub.start_upload("a");
    let mut connection = rhub.begin("PATCH", &location, &[], 1000);
    connection.write_all(&[b'x'; 600]).unwrap();
    connection.shutdown(std::net::Shutdown::Both).unwrap();
    drop(connection);
    wait_until("the bytes have arrived", || rhub.get(&location).header("range") == "0-599");
    let digest = Digest::of(&[b'x'; 1000]);
    let put = rhub.send("PUT", &format!("{location}?digest={digest}"), &[("content-range", "600-999")], &[b'x'; 400]);
    assert_eq!(put.status, 201, "{put:?}");
}

#[test]
fn a_request_in_flight_is_finished_before_a_clean_stop() {
    let dir = tempfile::tempdir().unwrap();
    let rhub = Rhub::start(dir.path());
    let content = layer(300);
    let digest = Digest::of(&content);
    let location = rhub.start_upload("a");
    let mut upload = rhub.begin("PUT", &format!("{location}?digest={digest}"), &[], content.len());
    upload.write_all(&content[..1000]).unwrap();
    // The upload is held by the request: its handler runs.
    let idle = std::net::TcpStream::connect(&rhub.address).unwrap();
    wait_until("the first bytes are on disk or on their way", || in_handler(&rhub, &location));
    rhub.terminate();
    wait_until("no new connection is accepted", || std::net::TcpStream::connect(&rhub.address).is_err());
    upload.write_all(&content[1000..]).unwrap();
    let reply = Reply::read(upload).unwrap();
    assert_eq!(reply.status, 201, "{reply:?}");
    drop(idle);
    assert!(rhub.wait_politely().success());
    let rhub = Rhub::start(dir.path());
    assert!(rhub.get(&format!("/v2/a/blobs/{digest}")).body == content);
}

/// Whether a request holds the upload: another one does not get an answer at once.
fn in_handler(rhub: &Rhub, location: &str) -> bool {
    let mut probe = rhub.begin("GET", location, &[], 0);
    probe.set_read_timeout(Some(std::time::Duration::from_millis(200))).unwrap();
    probe.read(&mut [0; 64]).is_err()
}

#[test]
fn an_empty_database_over_stored_blobs_refuses_to_serve_and_rebuild_brings_all_back() {
    let dir = tempfile::tempdir().unwrap();
    let rhub = Rhub::start(dir.path());
    let manifests: Vec<_> = (0..3).map(|n| rhub.push_image("team/blobs", &format!("t{n}"), &format!("layer {n}"))).collect();
    rhub.send("DELETE", "/v2/team/blobs/manifests/t0", &[], b"");
    rhub.terminate();
    assert!(rhub.wait_politely().success());
    for damage in [remove_metadata, empty_metadata_files] {
        damage(&dir.path().join("metadata"));
        let output = command(dir.path()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains("rhub rebuild"), "{said}");
        let rebuild = Command::new(env!("CARGO_BIN_EXE_rhub")).args(["rebuild", "--data"]).arg(dir.path()).output().unwrap();
        assert!(rebuild.status.success(), "{rebuild:?}");
        let rhub = Rhub::start(dir.path());
        assert_eq!(rhub.get("/v2/team/blobs/tags/list").json()["tags"], serde_json::json!(["t1", "t2"]));
        assert_eq!(rhub.get("/v2/team/blobs/manifests/t2").body, manifests[2].as_bytes());
        let untagged = Digest::of(manifests[0].as_bytes());
        assert_eq!(rhub.get(&format!("/v2/team/blobs/manifests/{untagged}")).status, 200);
        rhub.terminate();
        assert!(rhub.wait_politely().success());
    }
}

fn remove_metadata(path: &Path) {
    std::fs::remove_dir_all(path).unwrap();
}

fn empty_metadata_files(path: &Path) {
    for name in ["db", "conf"] {
        std::fs::write(path.join(name), "").unwrap();
    }
}

#[test]
fn a_second_registry_on_the_same_data_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let rhub = Rhub::start(dir.path());
    let output = command(dir.path()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("in use"), "{said}");
    assert_eq!(rhub.get("/v2/").status, 200);
}

/// A file system of its own, small enough to be filled.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    /// `None` where mounting is not permitted.
    fn mount() -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=6m", "tmpfs"]).arg(dir.path()).status();
        required(mounted.is_ok_and(|status| status.success()), "the right to mount a tmpfs").then(|| Self(dir))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.0.path()).status();
    }
}

#[test]
fn a_full_disk_is_a_clear_error_and_leaves_nothing_half_written() {
    let Some(disk) = SmallDisk::mount() else { return };
    let data = disk.0.path().join("data");
    let rhub = Rhub::start(&data);
    let kept = rhub.push_blob("a", b"kept");
    let large = vec![b'x'; 20 << 20];
    let digest = Digest::of(&large);
    let single = rhub.send("POST", &format!("/v2/a/blobs/uploads/?digest={digest}"), &[], &large);
    assert_eq!(single.status, 507, "{single:?}");
    let left = |data: &Path| std::fs::read_dir(data.join("uploads")).unwrap().count();
    assert_eq!(left(&data), 0);
    let location = rhub.start_upload("a");
    assert_eq!(rhub.send("PATCH", &location, &[], &large).status, 507);
    // Not a byte is free now: content does not fit, and neither does a line of the journal.
    assert_eq!(rhub.send("POST", &format!("/v2/a/blobs/uploads/?digest={}", Digest::of(b"y")), &[], b"y").status, 507);
    assert_eq!(rhub.get(&format!("/v2/a/blobs/{kept}")).body, b"kept");
    assert_eq!(rhub.send("DELETE", &location, &[], b"").status, 204);
    rhub.push_image("a", "after", "there is room again");
    rhub.kill_nine();
    let rhub = Rhub::start(&data);
    assert_eq!(rhub.get("/v2/a/manifests/after").status, 200);
    assert_eq!(rhub.get(&format!("/v2/a/blobs/{digest}")).status, 404);
}
