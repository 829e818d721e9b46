//! Unpacking in a user namespace of one id, where owners, devices and trusted attributes are refused.

use std::process::Command;

use longshore_runtime::unpack::{Options, Owners};

use crate::needs::required;
use crate::support::*;

/// Runs one of the ignored tests below in a new user namespace.
fn in_user_namespace(test: &str) {
    let probe = Command::new("unshare").args(["--user", "--map-root-user", "true"]).status();
    if !required(probe.is_ok_and(|status| status.success()), "unshare and user namespaces") {
        return;
    }
    let tests = std::env::current_exe().unwrap();
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user"]).arg(tests).args(["--ignored", "--exact", test]);
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

// Dropped: two devices, one trusted attribute, two access lists that name users.
#[test]
fn a_layer_unpacks_without_privileges() {
    in_user_namespace("rootless::squashed_in_a_user_namespace");
}

#[test]
#[ignore = "run by a_layer_unpacks_without_privileges in a user namespace"]
fn squashed_in_a_user_namespace() {
    let ground = Ground::new();
    let options = Options { userxattr: true, owners: Owners::Squash, ..Options::default() };
    let layer = crate::entries::everything().file("dir/.wh.gone", "").file("dir/closed/.wh..wh..opq", "");
    let unpacked = ground.unpack(&layer.tar(), &options).unwrap();
    assert_eq!((unpacked.dropped_devices, unpacked.dropped_xattrs), (2, 3));
    let node = |path: &str| node(&ground.at(path));
    assert_eq!((node("dir/owned").mode, node("dir/owned").owner, node("dir/owned").links), (0o6755, (0, 0), 3));
    assert_eq!((node("dir/closed").mode, node("dir").mode), (0, 0o1777));
    assert_eq!((node("dir/gone").kind, node("dir/gone").device), ("char device", 0));
    assert_eq!(node("dir/closed").xattrs[&b"user.overlay.opaque"[..]], b"y");
    assert_eq!(node("ping").xattrs[&b"user.note"[..]], b"a\0b\n");
    assert!(!ground.at("null").exists() && !ground.at("loop").exists());
    assert_eq!(node("fifo").kind, "fifo");
}

#[test]
fn owners_that_cannot_be_kept_are_an_error_not_a_guess() {
    in_user_namespace("rootless::kept_in_a_user_namespace_of_one_id");
}

#[test]
#[ignore = "run by owners_that_cannot_be_kept_are_an_error_not_a_guess in a user namespace"]
fn kept_in_a_user_namespace_of_one_id() {
    let mut owned = header(b'0', "owned", "", 0o644, 0);
    owned.set_uid(1234);
    let mut layer = Layer::new();
    layer.push(&mut owned, b"");
    let error = Ground::new().unpack(&layer.tar(), &Options { userxattr: true, ..Options::default() }).unwrap_err();
    assert!(error.to_string().contains("owner of archive entry \"owned\""), "{error}");
}
