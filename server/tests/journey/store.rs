//! What is on the disk: counted as `du` counts, given back by `prune`, checked and repaired.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::process::Command;

use super::detached::POLITE;
use super::fixture::Ready;
use super::tools::{User, stderr};

/// The rows of `rbox system df`: bytes, and bytes that could be had back.
fn df(user: &User) -> Vec<(String, u64, u64)> {
    let rows = user.succeed("rbox", &["system", "df", "--format", "{{.Type}}\t{{.Bytes}}\t{{.ReclaimableBytes}}"]);
    let row = |line: &str| {
        let [kind, bytes, reclaimable] = line.split('\t').collect::<Vec<_>>()[..] else { panic!("{line}") };
        (kind.to_owned(), bytes.parse().unwrap(), reclaimable.parse().unwrap())
    };
    rows.lines().map(row).collect()
}

fn du(user: &User) -> u64 {
    let output = Command::new("du").args(["-s", "-B1"]).arg(user.store()).output().unwrap();
    String::from_utf8(output.stdout).unwrap().split_whitespace().next().unwrap().parse().unwrap()
}

/// A blob and a layer that nothing needs, and the private directory of nobody.
fn litter(user: &User) -> [PathBuf; 3] {
    let hex = "ab".repeat(32);
    let [blob, layer, scratch] = ["blobs/sha256", "layers/sha256", "scratch"].map(|place| user.store().join(place).join(&hex));
    std::fs::write(&blob, [1; 100_000]).unwrap();
    std::fs::create_dir_all(layer.join("fs")).unwrap();
    std::fs::create_dir(&scratch).unwrap();
    std::fs::write(scratch.join("x"), [1; 10_000]).unwrap();
    [blob, layer, scratch]
}

#[test]
fn df_is_du_and_prune_gives_back_what_it_says() {
    let Some(ready) = Ready::new() else { return };
    let user = &ready.user;
    let running = ready.detach(&["-v", "kept:/data"], POLITE);
    let stopped = ready.detach(&["-v", "/data"], "dd if=/dev/zero of=/x bs=1M count=3; dd if=/dev/zero of=/data/x bs=1M count=2");
    user.succeed("rbox", &["wait", &stopped]);
    let places = litter(user);
    std::fs::write(user.store().join("partial").join("cd".repeat(32)), [1; 50_000]).unwrap();
    let rows = df(user);
    assert_eq!(rows.iter().map(|row| row.1).sum::<u64>(), du(user), "{rows:?}");
    let [images, containers, volumes, downloads, rest] = &rows[..] else { panic!("{rows:?}") };
    assert_eq!((images.2, containers.2 > 3 << 20, downloads.2 > 50_000 - 1), (0, true, true), "{rows:?}");
    assert!(volumes.1 > 2 << 20 && volumes.2 == 0, "both have a container: {rows:?}");
    assert!(rest.2 >= 110_000 && rest.1 - rest.2 < 1 << 20, "{rows:?}");
    let before = du(user);
    let said = user.succeed("rbox", &["system", "prune", "--force", "--volumes"]);
    for what in places.iter().map(|place| place.display().to_string()).chain([stopped.clone()]) {
        assert!(said.contains(&what), "{what}: {said}");
    }
    // The volume that has no name went with nothing: its container was there when that was looked at, or it went too.
    assert!(places.iter().all(|place| !place.exists()));
    let rows = df(user);
    assert!(rows.iter().all(|row| row.2 == 0), "{rows:?}");
    assert!(before - du(user) > (5 << 20) + 160_000, "{said}");
    assert_eq!(user.succeed("rbox", &["system", "check"]), "Everything is whole.\n");
    user.succeed("rbox", &["rm", "-f", &running]);
    user.succeed("rbox", &["system", "prune", "--force", "--all"]);
    assert_eq!(user.check_store(), (vec![], vec![]));
}

#[test]
fn what_is_damaged_is_found_and_brought_again() {
    let Some(ready) = Ready::new() else { return };
    let user = &ready.user;
    let image = user.succeed("rbox", &["image", "inspect", &ready.image, "--format", "{{.Id}}"]);
    let (blobs, layers) = user.check_store();
    assert_eq!(user.succeed("rbox", &["system", "check"]), "Everything is whole.\n");
    let places = litter(user);
    // A byte of each blob, the manifest among them: none is what it was, and all are as long.
    let blob = |hex: &String| user.store().join("blobs/sha256").join(hex);
    for hex in &blobs {
        let file = File::options().read(true).write(true).open(blob(hex)).unwrap();
        let mut byte = [0];
        file.read_exact_at(&mut byte, 10).unwrap();
        file.write_all_at(&[byte[0] ^ 1], 10).unwrap();
    }
    let output = user.output("rbox", &["system", "check"]);
    let said = String::from_utf8(output.stdout.clone()).unwrap();
    assert!(output.status.code() == Some(1) && said.contains("it is sha256:"), "{said}{}", stderr(&output));
    let said = user.succeed("rbox", &["system", "check", "--repair"]);
    assert!(said.contains("Repaired"), "{said}");
    // Behind a damaged manifest there may be more.
    user.succeed("rbox", &["system", "check", "--repair"]);
    assert_eq!(user.succeed("rbox", &["system", "check"]), "Everything is whole.\n");
    assert_eq!(user.check_store(), (blobs.clone(), layers.clone()));
    assert!(places.iter().all(|place| !place.exists()));
    assert_eq!(user.succeed("rbox", &["image", "inspect", &ready.image, "--format", "{{.Id}}"]), image);
    assert_eq!(ready.sh(&[], "echo works"), "works\n");

    // Gone, too; also without looking at every byte.
    std::fs::remove_file(blob(&blobs[0])).unwrap();
    assert!(user.output("rbox", &["system", "check", "--quick"]).status.code() == Some(1));
    user.succeed("rbox", &["system", "check", "--quick", "--repair"]);
    assert_eq!(user.check_store(), (blobs, layers));
}

#[test]
fn a_layer_that_is_not_what_was_unpacked_is_unpacked_again_without_a_registry() {
    let Some(ready) = Ready::new() else { return };
    let user = &ready.user;
    let store = user.store().join("layers/sha256");
    user.succeed("rbox", &["system", "convert", "--to", "directory"]);
    assert_eq!(user.succeed("rbox", &["system", "check"]), "Everything is whole.\n");
    let changed: Vec<PathBuf> = std::fs::read_dir(&store).unwrap().map(|entry| entry.unwrap().path().join("fs/added")).collect();
    changed.iter().for_each(|path| std::fs::write(path, "x").unwrap());
    // While a container runs it stays as it is.
    let id = ready.detach(&[], POLITE);
    let output = user.output("rbox", &["system", "check", "--repair"]);
    let said = stderr(&output);
    assert!(output.status.code() == Some(1) && said.contains("is using it") && changed[0].exists(), "{said}");
    user.succeed("rbox", &["stop", &id]);
    // One that does not run does not mind. Nobody is at this name any more.
    let absent = ready.image.replace(&ready.rhub.address, "127.0.0.1:1");
    user.succeed("rbox", &["tag", &ready.image, &absent]);
    user.succeed("rbox", &["rmi", &ready.image]);
    let said = user.succeed("rbox", &["system", "check", "--repair"]);
    assert!(said.contains("/added is not what it was unpacked as") && said.contains("Repaired"), "{said}");
    assert!(changed.iter().all(|path| !path.exists()));
    user.succeed("rbox", &["start", &id]);
    user.succeed("rbox", &["rm", "-f", &id]);
    assert_eq!(user.succeed("rbox", &["system", "check"]), "Everything is whole.\n");
}
