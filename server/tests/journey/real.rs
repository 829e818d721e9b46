//! A real image made by real tools: Debian with a database, pushed, pulled, run, and compared with
//! what umoci makes of it.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use longshore_runtime::launch::Rootfs;
use longshore_runtime::{Store, erofs, unpack};
use rustix::process::Signal;

use super::common::Rhub;
use super::common::needs::{installed, useful};
use super::fixture::{Kind, Mounts, layout, nothing_left, only_container, send};
use super::tools::{User, stderr};
use super::tree::{differences, walk};

/// A mount as `rrun` makes it of the layers, whichever form they have. It is in no mount table.
struct Overlay {
    mount: OwnedFd,
    _changes: tempfile::TempDir,
}

impl Overlay {
    fn mount(user: &User, name: &str) -> Self {
        let store = Store::open(user.store()).unwrap();
        let image = store.get(name).unwrap();
        let lower: Vec<PathBuf> = image.diff_ids().iter().rev().map(|diff_id| store.layer_path(diff_id)).collect();
        let changes = tempfile::tempdir().unwrap();
        let [upper, work] = ["upper", "work"].map(|name| changes.path().join(name));
        std::fs::create_dir(&upper).unwrap();
        std::fs::create_dir(&work).unwrap();
        let top = erofs::open_layer(&lower[0]).unwrap();
        unpack::adopt_directory(&[top.as_fd()], Path::new(""), File::open(&upper).unwrap().as_fd()).unwrap();
        let mount = Rootfs::Overlay { lower, upper, work, userxattr: false, ephemeral: true }.mount().unwrap();
        Self { mount, _changes: changes }
    }

    fn path(&self) -> PathBuf {
        // With the dot it is the directory itself, not the link to it.
        format!("/proc/self/fd/{}/.", self.mount.as_raw_fd()).into()
    }
}

/// Asserts that what the user has as `name` is file for file what umoci unpacks from a layout.
fn assert_unpacked_as_umoci_does(user: &User, name: &str, layout: &str) {
    let bundle = tempfile::tempdir().unwrap();
    let output = Command::new("umoci").args(["unpack", "--image", layout]).arg(bundle.path().join("bundle")).output().unwrap();
    assert!(output.status.success(), "umoci unpack: {}", stderr(&output));
    let overlay = Overlay::mount(user, name);
    let (ours, theirs) = (walk(&overlay.path()), walk(&bundle.path().join("bundle/rootfs")));
    let different = differences(&ours, &theirs);
    assert!(different.is_empty(), "{} of {} entries differ:\n{}", different.len(), theirs.len(), different.join("\n"));
}

#[test]
fn a_small_image_is_unpacked_as_umoci_does() {
    let Some(layout) = layout(Kind::Small) else { return };
    let (data, user) = (tempfile::tempdir().unwrap(), User::new());
    let rhub = Rhub::start(data.path());
    let name = format!("{}/small:1", rhub.address);
    user.succeed("rpush", &[&format!("oci:{layout}"), &name]);
    user.succeed("rpull", &[&name]);
    assert_unpacked_as_umoci_does(&user, &name, &layout);
}

#[test]
fn a_database_is_pushed_pulled_and_answers() {
    let Some(layout) = layout(Kind::Mysql) else { return };
    let (data, user) = (tempfile::tempdir().unwrap(), User::new());
    let rhub = Rhub::start(data.path());
    user.use_for_docker_hub(&rhub.address);
    user.succeed("rpush", &[&format!("oci:{layout}"), "mysql:5.7"]);
    assert_eq!(rhub.get("/v2/library/mysql/manifests/5.7").status, 200);
    user.succeed("rpull", &["mysql:5.7"]);
    // In whichever form it was pulled, and in both.
    assert_unpacked_as_umoci_does(&user, "mysql:5.7", &layout);
    for form in ["directory", "erofs"] {
        let converted = user.output("rbox", &["system", "convert", "--to", form]);
        if form == "directory" || useful(converted.status.success(), "a kernel that mounts EROFS images from files") {
            assert!(converted.status.success(), "{}", stderr(&converted));
            assert_unpacked_as_umoci_does(&user, "mysql:5.7", &layout);
        }
    }

    let before = Mounts::now(&user);
    let question = "create database d; create table d.t (n int); insert into d.t values (19), (23); select sum(n) from d.t";
    assert_eq!(user.succeed("rrun", &["--rm", "mysql:5.7", "query", question]), "42\n");
    assert_eq!(user.succeed("rrun", &["--rm", "--read-only", "--entrypoint", "id", "mysql:5.7", "-un"]), "mysql\n");
    // The image's own command: the server, which ends well when told to.
    let mut server = user.command("rrun", &["--rm", "mysql:5.7"]).stderr(Stdio::piped()).spawn().unwrap();
    let mut log = BufReader::new(server.stderr.take().unwrap()).lines().map(Result::unwrap);
    assert!(log.any(|line| line.contains("ready for connections")), "the server has ended");
    let container = only_container(&user);
    send(server.id(), Signal::TERM);
    let rest: Vec<String> = log.collect();
    assert!(server.wait().unwrap().success(), "{}", rest.join("\n"));
    nothing_left(&user, &before, &[&container]);
    user.succeed("rbox", &["rmi", "mysql:5.7"]);
    assert_eq!(user.check_store(), (vec![], vec![]));
}

#[test]
fn what_skopeo_pushed_is_what_rpush_pushed() {
    let Some(layout) = layout(Kind::Mysql) else { return };
    if !installed("skopeo") {
        return;
    }
    let from = format!("oci:{layout}");
    let pulled = |push: &dyn Fn(&User, &Rhub)| {
        let (data, user) = (tempfile::tempdir().unwrap(), User::new());
        let rhub = Rhub::start(data.path());
        user.use_for_docker_hub(&rhub.address);
        push(&user, &rhub);
        user.succeed("rpull", &["mysql:5.7"]);
        assert_eq!(user.succeed("rrun", &["--rm", "mysql:5.7", "query", "select 6 * 7"]), "42\n");
        (rhub.get("/v2/library/mysql/manifests/5.7").body, user.check_store())
    };
    let by_skopeo = pulled(&|_, rhub| {
        let to = format!("docker://{}/library/mysql:5.7", rhub.address);
        let options = ["copy", "-q", "--insecure-policy", "--preserve-digests", "--dest-tls-verify=false"];
        let output = Command::new("skopeo").args(options).args([&from, &to]).output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
    });
    let by_rpush = pulled(&|user, _| drop(user.succeed("rpush", &[&from, "mysql:5.7"])));
    assert_eq!(by_skopeo, by_rpush);
}
