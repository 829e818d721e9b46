//! Images as files: saved, and loaded from what others wrote.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use super::common::Rhub;
use super::common::needs::installed;
use super::image::{Image, gzip, tar};
use super::tools::User;

/// Somebody who has pulled an image, and its name.
fn user_with_image() -> (User, Image, String, [tempfile::TempDir; 2]) {
    let (data, layout, user) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), User::new());
    let rhub = Rhub::start(data.path());
    let image = Image::new(&[tar(&[("bin/a", b"one")]), tar(&[("bin/b", &b"two".repeat(100_000)), (".wh.gone", b"")])]);
    image.write_layout(layout.path(), "v1");
    let name = format!("{}/team/app:1.2", rhub.address);
    user.succeed("rpush", &[&format!("oci:{}:v1", layout.path().display()), &name]);
    user.succeed("rpull", &[&name]);
    (user, image, name, [data, layout])
}

fn load(user: &User, archive: &Path) -> String {
    user.succeed("rbox", &["load", "-q", "-i", archive.to_str().unwrap()])
}

/// The blobs somebody has.
fn blobs(user: &User) -> Vec<String> {
    user.check_store().0
}

#[test]
fn what_is_saved_is_loaded_byte_for_byte_under_its_names() {
    let (user, image, name, _kept) = user_with_image();
    let archive = user.home().join("app.tar");
    user.succeed("rbox", &["tag", &name, "app:other"]);
    user.succeed("rbox", &["save", "-o", archive.to_str().unwrap(), &name, "app:other"]);
    let streamed = user.output("rbox", &["save", &name, "app:other"]).stdout;
    assert_eq!(streamed, std::fs::read(&archive).unwrap(), "the same, whenever it is written");

    let loaded = format!("Loaded image: {name}\nLoaded image: app:other\n");
    let other = User::new();
    assert_eq!(load(&other, &archive), loaded);
    assert_eq!(blobs(&other), blobs(&user));
    assert_eq!(load(&other, &archive), loaded, "once more");
    let id = image.config.digest().to_string();
    assert_eq!(other.succeed("rbox", &["images", "-q", "--no-trunc"]), format!("{id}\n"));

    // By standard input, redirected, piped, compressed.
    for compressed in [false, true] {
        let bytes = if compressed { gzip(&streamed) } else { streamed.clone() };
        let piped = User::new();
        let mut command = piped.command("rbox", &["load", "-q"]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(&bytes).unwrap();
        assert_eq!(String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap(), loaded);
        assert_eq!(blobs(&piped), blobs(&user));
    }
    let redirected = User::new();
    let mut command = redirected.command("rbox", &["load", "-q"]);
    let output = command.stdin(std::fs::File::open(&archive).unwrap()).output().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), loaded);
}

#[test]
fn an_image_given_by_its_id_has_no_name_in_the_archive() {
    let (user, image, name, _kept) = user_with_image();
    let archive = user.home().join("app.tar");
    let id = image.config.digest().to_string();
    user.succeed("rbox", &["save", "-o", archive.to_str().unwrap(), &id]);
    let other = User::new();
    assert_eq!(load(&other, &archive), format!("Loaded image ID: {id}\n"));
    assert!(other.succeed("rbox", &["images"]).contains("<none>"));
    // Where it has a name it keeps it.
    load(&user, &archive);
    assert_eq!(user.succeed("rbox", &["images", "--format", "json"]).lines().count(), 1);
    assert!(user.succeed("rbox", &["images", "--format", "json"]).contains(name.rsplit_once(':').unwrap().0));
}

#[test]
fn what_is_no_regular_file_is_written_to_and_stays_what_it_is() {
    let (user, _, name, _kept) = user_with_image();
    let path = |name: &str| user.home().join(name).to_str().unwrap().to_owned();
    let save = |to: &str| user.output("rbox", &["save", "-o", to, &name]);
    let whole = user.output("rbox", &["save", &name]).stdout;

    // A pipe; a link to it.
    let pipe = path("pipe");
    rustix::fs::mkfifoat(rustix::fs::CWD, pipe.as_str(), rustix::fs::Mode::RWXU).unwrap();
    std::os::unix::fs::symlink("pipe", path("to-pipe")).unwrap();
    for to in ["pipe", "to-pipe"] {
        let read = std::thread::spawn({
            let pipe = pipe.clone();
            move || std::fs::read(pipe).unwrap()
        });
        assert!(save(&path(to)).status.success());
        assert_eq!(read.join().unwrap(), whole);
    }
    let is_pipe = |name| std::os::unix::fs::FileTypeExt::is_fifo(&Path::new(name).symlink_metadata().unwrap().file_type());
    assert!(is_pipe(&pipe));

    // A device; here it can be replaced, as a real one can be by root.
    std::os::unix::fs::symlink("/dev/null", path("null")).unwrap();
    assert!(save(&path("null")).status.success());
    assert!(Path::new(&path("null")).symlink_metadata().unwrap().is_symlink());

    // Standard output by its other name: a pipe, a file that is appended to.
    assert_eq!(save("/dev/stdout").stdout, whole);
    std::fs::write(path("appended"), "before").unwrap();
    let appended = std::fs::File::options().append(true).open(path("appended")).unwrap();
    let mut command = user.command("rbox", &["save", "-o", "/dev/stdout", &name]);
    assert!(command.stdout(appended).status().unwrap().success());
    assert_eq!(std::fs::read(path("appended")).unwrap(), [b"before", &whole[..]].concat());

    // A link to a file; a directory.
    std::fs::write(path("real"), "before").unwrap();
    std::os::unix::fs::symlink("real", path("to-real")).unwrap();
    assert!(save(&path("to-real")).status.success());
    assert!(Path::new(&path("to-real")).symlink_metadata().unwrap().is_symlink());
    assert_eq!(std::fs::read(path("real")).unwrap(), whole);
    assert!(user.fail("rbox", &["save", "-o", &path(""), &name]).contains("it is a directory"));
}

#[test]
fn podman_and_skopeo_read_what_is_saved_and_write_what_is_loaded() {
    let (user, image, name, _kept) = user_with_image();
    if !installed("podman") || !installed("skopeo") {
        return;
    }
    let directory = user.home();
    let path = |name: &str| directory.join(name).to_str().unwrap().to_owned();
    let run = |program: &str, arguments: &[&str]| {
        let mut command = Command::new(program);
        if program == "podman" {
            command.args(["--root", &path("root"), "--runroot", &path("run"), "--storage-driver", "vfs"]);
        }
        let output = command.args(arguments).output().unwrap();
        assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let archive = path("app.tar");
    user.succeed("rbox", &["save", "-o", &archive, &name]);
    let raw = |source: &str| run("skopeo", &["inspect", "--raw", source]);
    assert_eq!(raw(&format!("oci-archive:{archive}")).as_bytes(), image.manifest.bytes);
    assert!(raw(&format!("docker-archive:{archive}")).contains(&image.config.digest().to_string()));
    assert!(run("podman", &["load", "-q", "-i", &archive]).contains(&name));
    let ids = run("podman", &["images", "-q", "--no-trunc"]);
    assert_eq!(ids.trim(), image.config.digest().to_string());

    // Back again, in both of podman's forms and docker's as skopeo writes it.
    for form in ["docker-archive", "oci-archive"] {
        let file = path(form);
        run("podman", &["save", "-q", "--format", form, "-o", &file, &name]);
        let other = User::new();
        assert_eq!(load(&other, Path::new(&file)), format!("Loaded image: {name}\n"), "{form}");
        assert_eq!(other.succeed("rbox", &["images", "-q", "--no-trunc"]).trim(), image.config.digest().to_string());
        other.check_store();
    }
    let file = path("by-skopeo.tar");
    run("skopeo", &["copy", "-q", "--insecure-policy", &format!("oci-archive:{archive}"), &format!("docker-archive:{file}:a:1")]);
    assert_eq!(load(&User::new(), Path::new(&file)), "Loaded image: a:1\n");
}

#[test]
fn what_is_no_archive_is_refused_and_nothing_is_left() {
    let (user, _, name, _kept) = user_with_image();
    let before = blobs(&user);
    let archive = user.home().join("app.tar");
    let missing = user.fail("rbox", &["save", "-o", archive.to_str().unwrap(), &name, "nothing:here"]);
    assert!(missing.contains("nothing:here") && !archive.exists(), "{missing}");
    user.succeed("rbox", &["save", "-o", archive.to_str().unwrap(), &name]);
    let whole = std::fs::read(&archive).unwrap();
    let other = User::new();
    // The last of a layer, and all that says what is in it, is missing; then a byte of a layer is another.
    for damaged in [whole[..whole.len() / 2].to_vec(), b"no archive at all".repeat(100), Vec::new(), {
        let mut bytes = whole.clone();
        let layer = bytes.windows(2).position(|two| two == [0x1f, 0x8b]).unwrap();
        bytes[layer + 20] ^= 1;
        bytes
    }] {
        std::fs::write(&archive, &damaged).unwrap();
        let said = other.fail("rbox", &["load", "-i", archive.to_str().unwrap()]);
        assert!(said.contains("rbox:"), "{said}");
        assert_eq!(other.succeed("rbox", &["images", "-q"]), "");
    }
    assert_eq!(other.check_store().1, Vec::<String>::new());
    assert_eq!(blobs(&user), before);
    assert!(user.fail("rbox", &["load", "-i", "/nowhere.tar"]).contains("/nowhere.tar"));
}
