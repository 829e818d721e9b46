//! Volumes: filled, shared, kept and removed, and files copied in and out of containers.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use super::common::needs::installed;
use super::common::wait_until;
use super::detached::{POLITE, no_containers};
use super::fixture::{Kind, Mounts, Ready, layout, nothing_left};
use super::rootless::{Ordinary, RANGE};
use super::tools::stderr;

impl Ready {
    /// Where a volume's data is.
    fn data(&self, volume: &str) -> PathBuf {
        self.user.store().join("volumes").join(volume).join("_data")
    }

    fn volumes(&self) -> Vec<String> {
        self.rbox(&["volume", "ls", "-q"]).lines().map(str::to_owned).collect()
    }

    /// The small image, declaring `/var/lib/app` a volume.
    fn with_volume(&self) -> String {
        let layout = layout(Kind::Small).unwrap();
        let (path, tag) = layout.rsplit_once(':').unwrap();
        let copy = self.user.home().join("layout");
        assert!(Command::new("cp").arg("-r").arg(path).arg(&copy).status().unwrap().success());
        let image = format!("{}:{tag}", copy.display());
        let options = ["config", "--image", &image, "--tag", "declares", "--config.volume", "/var/lib/app"];
        assert!(Command::new("umoci").args(options).status().unwrap().success());
        let name = format!("{}/team/small:declares", self.rhub.address);
        self.user.succeed("rpush", &[&format!("oci:{}:declares", copy.display()), &name]);
        self.user.succeed("rpull", &[&name]);
        name
    }
}

/// All there is to say of a tree.
const SURVEY: &str = "cd /srv/links && find . -exec stat -c '%n %F %f %u:%g %Y %h' {} + | sort; cat a/first b/deep/third";

#[test]
fn data_is_there_after_the_container_was_removed_and_made_anew() {
    let Some(ready) = Ready::new() else { return };
    let before = Mounts::now(&ready.user);
    let id = ready.detach(&["--name", "db", "-v", "data:/var/lib/app"], POLITE);
    assert_eq!(ready.rbox(&["exec", "db", "stat", "-c", "%u:%g %a", "/var/lib/app"]), "1000:1000 755\n");
    assert_eq!(ready.rbox(&["exec", "db", "ls", "/var/lib/app"]), "new\nsub\n", "it was filled from the image");
    ready.rbox(&["exec", "db", "sh", "-c", "echo kept > /var/lib/app/mine; rm /var/lib/app/new"]);
    let mounts = &ready.inspect("db")["Mounts"];
    assert_eq!(mounts[0]["Type"], "volume");
    assert_eq!(mounts[0]["Name"], "data");
    assert_eq!(mounts[0]["Source"].as_str(), ready.data("data").to_str());
    assert_eq!(ready.inspect("db")["HostConfig"]["Binds"][0], "data:/var/lib/app");
    ready.rbox(&["restart", "-t", "0", "db"]);
    assert_eq!(ready.rbox(&["exec", "db", "ls", "/var/lib/app"]), "mine\nsub\n");
    ready.rbox(&["rm", "-f", "-v", "db"]);
    no_containers(&ready, &before, &[&id]);
    let again = ready.detach(&["--name", "db", "-v", "data:/var/lib/app"], POLITE);
    assert_eq!(ready.rbox(&["exec", "db", "cat", "/var/lib/app/mine"]), "kept\n");
    ready.rbox(&["rm", "-f", "db"]);
    assert_eq!(ready.sh(&["-v", "data:/elsewhere"], "cat /elsewhere/mine"), "kept\n");
    assert_eq!(ready.volumes(), ["data"]);
    no_containers(&ready, &before, &[&again]);
}

#[test]
fn a_volume_gets_all_there_is_in_the_image_and_only_if_it_is_empty() {
    let Some(ready) = Ready::new() else { return };
    let plain = ready.sh(&[], SURVEY);
    assert_eq!(ready.sh(&["-v", "tree:/srv/links"], SURVEY), plain, "owners, modes, times, links");
    let mut note = [0; 64];
    let length = rustix::fs::getxattr(ready.data("tree").join("a/first"), "user.note", &mut note).unwrap();
    assert_eq!(&note[..length], b"an extended attribute");
    for options in [&["-v", "none:/srv/links:nocopy"][..], &["--mount", "src=none,dst=/srv/links,volume-nocopy=true"]] {
        assert_eq!(ready.sh(options, "ls /srv/links"), "");
    }
    ready.sh(&["-v", "none:/empty"], "touch /empty/mine");
    assert_eq!(ready.sh(&["-v", "none:/srv/links"], "ls /srv/links"), "mine\n");
    // What is no directory in the image fills nothing.
    assert!(!ready.run(&["--rm", "-v", "other:/etc/passwd"], &["true"]).status.success());
    assert_eq!(fs::read_dir(ready.data("other")).unwrap().count(), 0);
    ready.user.check_store();
}

#[test]
fn containers_share_a_volume_and_read_only_means_it() {
    let Some(ready) = Ready::new() else { return };
    ready.detach(&["--name", "one", "-v", "shared:/s"], POLITE);
    let options = ["--name", "two", "--mount", "type=volume,source=shared,target=/s,readonly"];
    ready.detach(&options, POLITE);
    ready.rbox(&["exec", "one", "sh", "-c", "echo hello > /s/file"]);
    assert_eq!(ready.rbox(&["exec", "two", "cat", "/s/file"]), "hello\n");
    assert!(ready.user.fail("rbox", &["exec", "two", "touch", "/s/file"]).contains("Read-only"));
    assert_eq!(ready.inspect("two")["Mounts"][0]["RW"], false);
    // Another container's volumes, and what is said of a place oneself goes first.
    assert_eq!(ready.sh(&["--volumes-from", "one"], "cat /s/file; echo more >> /s/file"), "hello\n");
    assert!(!ready.run(&["--rm", "--volumes-from", "one:ro"], &["touch", "/s/x"]).status.success());
    assert!(!ready.run(&["--rm", "--volumes-from", "two"], &["touch", "/s/x"]).status.success());
    assert_eq!(ready.sh(&["--volumes-from", "one", "-v", "own:/s"], "ls /s"), "");
    let memory =
        ready.sh(&["--mount", "type=tmpfs,dst=/t,tmpfs-size=1m,tmpfs-mode=1770"], "stat -c %a /t; grep ' /t ' /proc/mounts");
    assert!(memory.starts_with("1770\ntmpfs ") && memory.contains("size=1024k"), "{memory}");
    ready.rbox(&["rm", "-f", "one", "two"]);
}

#[test]
fn volumes_without_a_name_go_with_their_container_and_no_others() {
    let Some(ready) = Ready::new() else { return };
    let (before, image) = (Mounts::now(&ready.user), ready.with_volume());
    let run = |options: &[&str], script: &str| ready.user.succeed("rrun", &[options, &[&image, "sh", "-c", script]].concat());
    assert_eq!(
        run(&["--rm", "-v", "/own"], "touch /own/x; ls /var/lib/app; grep -c -e ' /own ' -e /var/lib/app /proc/mounts"),
        "new\nsub\n2\n"
    );
    assert_eq!(ready.volumes(), Vec::<String>::new());
    let detach = |options: &[&str]| {
        let mark = format!("MARK={}", ready.user.store().display());
        let options = [&["-d", "--name", "web", "-e", &mark, "-v", "/own", "-v", "named:/n"], options].concat();
        let id = run(&options, POLITE).trim().to_owned();
        assert_eq!(ready.volumes().len(), 3);
        id
    };
    let first = detach(&["--rm"]);
    ready.rbox(&["stop", "web"]);
    wait_until("it has gone", || ready.volumes() == ["named"]);
    let second = detach(&[]);
    assert_eq!(ready.inspect("web")["Config"]["Volumes"], serde_json::json!({ "/var/lib/app": {} }));
    ready.rbox(&["rm", "-f", "-v", "web"]);
    assert_eq!(ready.volumes(), ["named"]);
    let third = detach(&[]);
    // Who borrows one keeps it from going.
    ready.detach(&["--name", "guest", "--volumes-from", "web"], POLITE);
    ready.rbox(&["rm", "-f", "-v", "web"]);
    assert_eq!(ready.volumes().len(), 3);
    ready.rbox(&["rm", "-f", "-v", "guest"]);
    assert_eq!(ready.volumes().len(), 3);
    assert!(ready.rbox(&["volume", "prune", "-f"]).starts_with("Deleted Volumes:\n"));
    assert_eq!(ready.volumes(), ["named"]);
    // Whoever kills the monitor: the next command that looks clears all of it away.
    let fourth = detach(&["--rm"]);
    super::fixture::send(ready.monitor(&fourth), rustix::process::Signal::KILL);
    wait_until("it has gone", || ready.rbox(&["ps", "-aq"]).is_empty());
    assert_eq!(ready.volumes(), ["named"]);
    no_containers(&ready, &before, &[&first, &second, &third, &fourth]);
}

#[test]
fn volumes_are_made_listed_and_removed_unless_a_container_has_them() {
    let Some(ready) = Ready::new() else { return };
    assert_eq!(ready.rbox(&["volume", "create", "--label", "tier=db", "data"]), "data\n");
    assert_eq!(ready.rbox(&["volume", "create", "data"]), "data\n");
    let unnamed = ready.rbox(&["volume", "create"]);
    assert_eq!(unnamed.trim().len(), 64);
    assert_eq!(ready.rbox(&["volume", "ls", "--filter", "name=dat"]), "DRIVER    VOLUME NAME\nlocal     data\n");
    let inspected: Value = serde_json::from_str(&ready.rbox(&["volume", "inspect", "data"])).unwrap();
    assert_eq!(inspected[0]["Labels"], serde_json::json!({ "tier": "db" }));
    assert_eq!(inspected[0]["Mountpoint"].as_str(), ready.data("data").to_str());
    let row: Value = serde_json::from_str(&ready.rbox(&["volume", "ls", "--format", "json", "-f", "label=tier"])).unwrap();
    assert_eq!(
        (row["Name"].as_str(), row["Driver"].as_str(), row["Labels"].as_str()),
        (Some("data"), Some("local"), Some("tier=db"))
    );

    let id = ready.detach(&["--name", "web", "-v", "data:/d"], POLITE);
    for state in ["runs", "was stopped"] {
        let said = ready.user.fail("rbox", &["volume", "rm", "data"]);
        assert!(said.contains("in use") && said.contains("web") && said.contains(&id[..12]), "{state}: {said}");
        assert_eq!(ready.rbox(&["volume", "ls", "-q", "-f", "dangling=true"]), unnamed);
        ready.rbox(&["stop", "web"]);
    }
    // One that goes with its command has it, too.
    let running = ready.command(
        &["--rm", "--name", "own", "-v", "other:/d", "-e", &format!("MARK={}", ready.user.store().display())],
        &["sh", "-c", POLITE],
    );
    let mut running = { running }.stdout(Stdio::null()).spawn().unwrap();
    wait_until("it is there", || ready.volumes().contains(&"other".to_owned()));
    assert!(ready.user.fail("rbox", &["volume", "rm", "other"]).contains("container own"));
    super::fixture::send(running.id(), rustix::process::Signal::TERM);
    running.wait().unwrap();
    ready.rbox(&["volume", "rm", "other"]);

    assert!(ready.user.fail("rbox", &["volume", "rm", "gone"]).contains("not found"));
    assert_eq!(ready.rbox(&["volume", "rm", "-f", "gone"]), "gone\n");
    let mut asked =
        ready.user.command("rbox", &["volume", "prune", "-a"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    asked.stdin.take().unwrap().write_all(b"n\n").unwrap();
    assert!(asked.wait_with_output().unwrap().stdout.ends_with(b"[y/N] \n"));
    assert!(ready.rbox(&["volume", "prune", "-f", "--filter", "label=x"]).starts_with("Total reclaimed"));
    // What one can have back is what `df` says, and that is what `du` says.
    let row = || ready.rbox(&["system", "df", "--format", "{{.Type}} {{.TotalCount}} {{.Active}} {{.Reclaimable}}"]);
    let reclaimable = || {
        let row = row().lines().find_map(|row| row.strip_prefix("Local Volumes ").map(str::to_owned)).unwrap();
        row.split(' ').nth(2).unwrap().to_owned()
    };
    let size = reclaimable();
    let said = ready.rbox(&["volume", "prune", "-f"]);
    assert_eq!(said, format!("Deleted Volumes:\n{unnamed}\nTotal reclaimed space: {size}\n"));
    ready.rbox(&["rm", "web"]);
    fs::write(ready.data("data").join("file"), vec![1; 100_000]).unwrap();
    assert!(row().contains("Local Volumes 1 0 1"), "{}", row());
    let size = reclaimable();
    let said = ready.rbox(&["volume", "prune", "-f", "--all"]);
    assert_eq!(said, format!("Deleted Volumes:\ndata\n\nTotal reclaimed space: {size}\n"));
    assert_eq!(ready.volumes(), Vec::<String>::new());
    ready.user.check_store();
}

#[test]
fn a_volume_may_be_a_directory_of_this_machine() {
    let Some(ready) = Ready::new() else { return };
    let elsewhere = ready.user.home().join("elsewhere");
    let device = format!("device={}", elsewhere.display());
    let create = ["volume", "create", "--opt", "type=none", "-o", "o=bind", "--opt", &device, "bound"];
    ready.rbox(&create);
    let missing = ready.run(&["--rm", "-v", "bound:/bin"], &["true"]);
    assert!(missing.status.code() == Some(125) && stderr(&missing).contains("no directory"), "{}", stderr(&missing));
    fs::create_dir(&elsewhere).unwrap();
    ready.sh(&["-v", "bound:/data"], "echo mine > /data/file");
    assert_eq!(fs::read_to_string(elsewhere.join("file")).unwrap(), "mine\n");
    ready.sh(&["-v", "bound:/etc:ro"], "test $(ls /etc | wc -l) -ge 1 && ! touch /etc/x 2>/dev/null");
    assert!(!elsewhere.join("passwd").exists(), "nothing of the image's is put there");
    let shown: Value = serde_json::from_str(&ready.rbox(&["volume", "inspect", "bound"])).unwrap();
    assert_eq!(shown[0]["Options"]["o"], "bind");
    assert!(ready.user.fail("rbox", &["volume", "create", "--opt", "type=nfs", "other"]).contains("type=nfs"));
    ready.rbox(&["volume", "rm", "bound"]);
    assert!(elsewhere.join("file").exists(), "it is somebody else's");
}

#[test]
fn who_is_killed_while_filling_leaves_nothing_half() {
    let Some(ready) = Ready::new() else { return };
    let list = "ls -l /bin | sed 1d | md5sum; md5sum /bin/busybox /bin/su";
    let whole = ready.sh(&[], list);
    for (number, entries) in [0, 1, 40, 150].into_iter().enumerate() {
        let mount = format!("killed{number}:/bin");
        let filling = ready.data(&format!("killed{number}")).with_file_name("_filling");
        let copied = || fs::read_dir(&filling).map_or(0, Iterator::count);
        let mut child = ready.command(&["--rm", "-v", &mount], &["true"]).stderr(Stdio::null()).spawn().unwrap();
        while child.try_wait().unwrap().is_none() && !(filling.exists() && copied() >= entries) {}
        let _ = child.kill();
        child.wait().unwrap();
        assert_eq!(ready.sh(&["-v", &mount], list), whole, "killed with {entries} copied");
        assert!(!filling.exists() && !filling.with_file_name("_filled").exists());
    }
    ready.user.check_store();
}

#[test]
fn containers_that_begin_at_once_fill_a_volume_once() {
    let Some(ready) = Ready::new() else { return };
    let plain = ready.sh(&[], SURVEY);
    let start =
        || ready.command(&["--rm", "-v", "race:/srv/links"], &["sh", "-c", SURVEY]).stdout(Stdio::piped()).spawn().unwrap();
    let children: Vec<_> = (0..8).map(|_| start()).collect();
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), plain);
    }
    ready.rbox(&["volume", "rm", "race"]);
    ready.user.check_store();
}

#[test]
fn flags_that_make_no_sense_are_refused_and_leave_nothing() {
    let Some(ready) = Ready::new() else { return };
    for (options, part) in [
        (&["-v", "a/b:/x"][..], "a/b"),
        (&["-v", "x:/x"], "must match"),
        (&["-v", "data:/x:rslave"], "host paths"),
        (&["-v", "data:/x:U"], "\"U\""),
        (&["-v", "data:/"], "root"),
        (&["-v", "data:/x", "-v", "/y:/x/"], "twice"),
        (&["-v", "data:/x", "--tmpfs", "/x"], "twice"),
        (&["--mount", "type=bind,src=/no/such,dst=/x"], "/no/such"),
        (&["--mount", "type=volume,src=data"], "target"),
        (&["--mount", "type=volume,src=data,dst=/x,volume-opt=type=nfs"], "volume-opt"),
        (&["--volumes-from", "nobody"], "nobody"),
        (&["--volumes-from", "nobody:x"], "options"),
    ] {
        for background in [&[][..], &["-d"]] {
            let output = ready.run(&[options, background].concat(), &["true"]);
            let said = stderr(&output);
            assert!(output.status.code() == Some(125) && said.contains(part), "{options:?}: {said}");
        }
    }
    assert_eq!(ready.volumes(), Vec::<String>::new());
    ready.rbox(&["ps", "-aq"]).lines().for_each(|id| drop(ready.rbox(&["rm", id])));
    ready.user.check_store();
}

#[test]
fn mounts_travel_as_far_as_was_asked_for() {
    let Some(ready) = Ready::new() else { return };
    let base = ready.user.home().join("base");
    fs::create_dir(&base).unwrap();
    // In a mount namespace of its own, so that nothing is left whatever happens.
    let script = r#"set -e
        mount -t tmpfs tmpfs "$BASE"; mount --make-shared "$BASE"; mkdir "$BASE/in" "$BASE/out"
        for mode in rprivate rslave; do
            rrun -d --name $mode -v "$BASE:/m:$mode" "$IMAGE" sleep 1000 >/dev/null
        done
        mount -t tmpfs tmpfs "$BASE/in"; touch "$BASE/in/host"
        for mode in rprivate rslave; do echo $mode $(rbox exec $mode ls /m/in); done
        rrun --rm --cap-add SYS_ADMIN -v "$BASE:/m:rshared" "$IMAGE" sh -c 'mount -t tmpfs tmpfs /m/out && touch /m/out/own'
        ls "$BASE/out"
        rbox rm -f rprivate rslave >/dev/null
        mount --make-private "$BASE"
        rrun --rm -v "$BASE:/m:shared" "$IMAGE" true || true"#;
    let programs = super::tools::program_path("rrun");
    let path = format!("{}:{}", programs.parent().unwrap().display(), std::env::var("PATH").unwrap());
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", script]).env("BASE", &base).env("IMAGE", &ready.image).env("PATH", path);
    let like = ready.user.command("rrun", &[]);
    command.envs(like.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let output = command.output().unwrap();
    let said = stderr(&output);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "rprivate\nrslave host\nown\n", "{said}");
    assert!(said.contains("is not shared") && said.contains("make-shared"), "{said}");
}

#[test]
fn files_are_copied_in_and_out_whether_the_container_runs_or_not() {
    let Some(ready) = Ready::new() else { return };
    let before = Mounts::now(&ready.user);
    let home = ready.user.home().join("files");
    fs::create_dir_all(home.join("tree/sub")).unwrap();
    fs::write(home.join("tree/sub/file"), "from the host").unwrap();
    fs::set_permissions(home.join("tree/sub/file"), PermissionsExt::from_mode(0o751)).unwrap();
    symlink("sub/file", home.join("tree/link")).unwrap();
    std::os::unix::fs::chown(home.join("tree/sub/file"), Some(1234), Some(5678)).unwrap();
    let here = |name: &str| home.join(name).to_str().unwrap().to_owned();
    let cp = |from: &str, to: &str| ready.rbox(&["cp", "-q", from, to]);
    let id = ready.detach(&["--name", "web", "-v", "data:/data", "--tmpfs", "/memory"], POLITE);
    for state in ["runs", "was stopped"] {
        let at = |path: &str| format!("web:{path}");
        let to = if state == "runs" { "/memory" } else { "/tmp" };
        for place in ["/data", "/root", to] {
            cp(&here("tree"), &at(place));
            let back = format!("back-{}", place.trim_start_matches('/'));
            // There it is made, and then it is there.
            cp(&at(&format!("{place}/tree")), &here(&back));
            cp(&at(&format!("{place}/tree/sub/file")), &here(&back));
            let file = home.join(&back).join("sub/file");
            assert_eq!(fs::read_to_string(&file).unwrap(), "from the host", "{state} {place}");
            assert_eq!(fs::read_to_string(home.join(&back).join("file")).unwrap(), "from the host", "{state} {place}");
            assert_eq!(fs::read_link(home.join(&back).join("link")).unwrap(), Path::new("sub/file"));
            let status = file.metadata().unwrap();
            assert_eq!((status.mode() & 0o7777, status.uid(), status.gid()), (0o751, 0, 0), "{state} {place}");
            // What gives rights is not brought along unasked.
            for (options, mode) in [(&["-q"][..], 0o755), (&["-q", "-a"], 0o4755)] {
                ready.rbox(&[&["cp"], options, &[&at("/bin/su"), &here("su")]].concat());
                assert_eq!(home.join("su").metadata().unwrap().mode() & 0o7777, mode, "{state}");
            }
            fs::remove_dir_all(home.join(back)).unwrap();
        }
        ready.rbox(&["cp", "-q", "-a", &here("tree/."), &at("data")]);
        ready.rbox(&["cp", "-q", "-a", &at("/data/sub/file"), &here("kept")]);
        assert_eq!(home.join("kept").metadata().unwrap().uid(), 1234, "{state}");
        ready.rbox(&["cp", "-q", "-L", &at("/data/link"), &here("followed")]);
        assert_eq!(fs::read_to_string(home.join("followed")).unwrap(), "from the host");
        cp(&at("/data/link"), &here("as-it-is"));
        assert!(home.join("as-it-is").is_symlink());
        for name in ["kept", "followed", "as-it-is"] {
            fs::remove_file(home.join(name)).unwrap();
        }
        // Streams, by the tar everybody has.
        let out = ready.user.output("rbox", &["cp", &at("/data/tree"), "-"]).stdout;
        let mut list = Command::new("tar").arg("t").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        list.stdin.take().unwrap().write_all(&out).unwrap();
        let list = String::from_utf8(list.wait_with_output().unwrap().stdout).unwrap();
        assert_eq!(
            list.lines().collect::<std::collections::BTreeSet<_>>(),
            ["tree/", "tree/link", "tree/sub/", "tree/sub/file"].into()
        );
        for compression in ["--no-auto-compress", "--gzip"] {
            let made = Command::new("tar").args([compression, "-C", &here("tree"), "-c", "sub"]).output().unwrap().stdout;
            let mut into = ready.user.command("rbox", &["cp", "-", &at("/srv")]).stdin(Stdio::piped()).spawn().unwrap();
            into.stdin.take().unwrap().write_all(&made).unwrap();
            assert!(into.wait().unwrap().success());
            ready.rbox(&["cp", "-q", "-a", &at("/srv/sub/file"), &here("streamed")]);
            assert_eq!(home.join("streamed").metadata().unwrap().gid(), 5678, "the archive says whose it is");
            fs::remove_file(home.join("streamed")).unwrap();
        }
        for (from, target, part) in [
            (here("tree"), at("/etc/passwd"), "over what is no directory"),
            (here("tree/sub/file"), at("/no/"), "no such directory"),
            (here("tree/sub/file"), at("/no/file"), "No such file"),
            (here("gone"), at("/tmp"), "No such file"),
            (at("/gone"), here("x"), "/gone"),
            (at("/etc/passwd"), at("/x"), "between containers"),
            (here("a"), here("b"), "CONTAINER:PATH"),
            ("-".into(), at("/etc/passwd"), "directory only"),
            ("nobody:/x".into(), here("x"), "not found"),
            // What is on standard input is nothing.
            ("-".into(), at("/gone"), "No such file"),
        ] {
            let said = ready.user.fail("rbox", &["cp", &from, &target]);
            assert!(said.contains(part), "{state}: {from} {target}: {said}");
        }
        if state == "runs" {
            assert!(ready.user.fail("rbox", &["cp", "web:/proc/1/status", &here("x")]).contains("kernel's state"));
            ready.rbox(&["stop", "web"]);
        }
    }
    ready.rbox(&["start", "web"]);
    assert_eq!(ready.rbox(&["exec", "web", "cat", "/tmp/tree/sub/file"]), "from the host");
    let said = ready.user.output("rbox", &["cp", "web:/etc/passwd", &here("passwd")]);
    assert!(stderr(&said).starts_with("Successfully copied ") && stderr(&said).ends_with("passwd\n"), "{}", stderr(&said));
    ready.rbox(&["rm", "-f", "web"]);
    ready.rbox(&["volume", "rm", "data"]);
    no_containers(&ready, &before, &[&id]);
}

#[test]
fn nothing_is_copied_while_a_container_waits_to_be_started_again() {
    let Some(ready) = Ready::new() else { return };
    ready.detach(&["--name", "loop", "--restart", "always"], "exit 1");
    wait_until("it waits", || {
        let output = ready.user.output("rbox", &["cp", "loop:/etc/passwd", "-"]);
        !output.status.success() && stderr(&output).contains("started again")
    });
    ready.rbox(&["stop", "loop"]);
    assert!(ready.rbox(&["cp", "loop:/etc/hostname", "-"]).contains("ustar"));
    ready.rbox(&["rm", "loop"]);
}

#[test]
fn cve_2018_15664_a_container_that_swaps_links_leads_no_copy_out() {
    let Some(ready) = Ready::new() else { return };
    let outside = ready.user.home().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("secret"), "secret").unwrap();
    let path = outside.display();
    // A path that is now a directory of the container's, now a link to one that is only on this machine.
    let script = format!(
        "mkdir -p /w/d /w/real {path}; echo inside > /w/real/secret; echo inside > {path}/secret; ln -s {path} /w/link; echo up
         while :; do mv -T /w/d /w/x; mv -T /w/link /w/d; mv -T /w/d /w/link; mv -T /w/x /w/d; done"
    );
    ready.detach(&["--name", "hostile"], &script);
    ready.logged("hostile", "up");
    let (source, copy) = (ready.user.home().join("secret"), ready.user.home().join("copy"));
    fs::write(&source, "planted").unwrap();
    for _ in 0..40 {
        // Any of them may fail, because the path is not there this moment.
        ready.user.output("rbox", &["cp", source.to_str().unwrap(), "hostile:/w/d"]);
        ready.user.output("rbox", &["cp", source.to_str().unwrap(), "hostile:/w/d/secret"]);
        for options in [&["-q"][..], &["-q", "-L"]] {
            let words = [&["cp"], options, &["hostile:/w/d/secret", copy.to_str().unwrap()]].concat();
            if ready.user.output("rbox", &words).status.success() {
                assert_ne!(fs::read_to_string(&copy).unwrap(), "secret");
                fs::remove_file(&copy).unwrap();
            }
        }
    }
    assert_eq!(fs::read_to_string(outside.join("secret")).unwrap(), "secret");
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 1, "nothing was made on this machine");
    ready.rbox(&["rm", "-f", "hostile"]);
}

#[test]
fn an_ordinary_user_s_volumes_and_copies_are_as_root_s() {
    let Some(ready) = Ready::new() else { return };
    for (ranges, owner) in [(RANGE, "1000:1000"), ("", "0:0")] {
        let Some(ordinary) = Ordinary::new(ranges) else { return };
        if !installed("newuidmap") {
            return;
        }
        let before = Mounts::now(&ordinary.user);
        ordinary.succeed("rpull", &[&ready.image]);
        let rbox = |args: &[&str]| ordinary.succeed("rbox", args);
        let mark = format!("MARK={}", ordinary.user.store().display());
        let mount = ["-v", "data:/var/lib/app"];
        let look = [
            &["--rm"],
            &mount[..],
            &[&ready.image, "sh", "-c", "stat -c %u:%g /var/lib/app/new; cat /var/lib/app/new; ls /var/lib/app"],
        ]
        .concat();
        assert_eq!(ordinary.succeed("rrun", &look), format!("{owner}\nnew\nnew\nsub\n"));
        let words =
            [&["-d", "--name", "web", "-e", &mark][..], &mount, &["-v", "/own", &ready.image, "sh", "-c", POLITE]].concat();
        let id = ordinary.succeed("rrun", &words).trim().to_owned();
        let file = ordinary.user.home().join("store/file");
        fs::write(&file, "copied").unwrap();
        for state in ["runs", "was stopped"] {
            rbox(&["cp", "-q", file.to_str().unwrap(), "web:/var/lib/app/copy"]);
            let back = ordinary.user.home().join("store/back");
            rbox(&["cp", "-q", "web:/var/lib/app/copy", back.to_str().unwrap()]);
            assert_eq!(fs::read_to_string(&back).unwrap(), "copied", "{state}");
            assert_eq!(back.metadata().unwrap().uid(), ordinary.user.store().metadata().unwrap().uid(), "{state}");
            fs::remove_file(&back).unwrap();
            let said = stderr(&ordinary.output("rbox", &["volume", "rm", "data"]));
            assert!(said.contains("web"), "{state}: {said}");
            rbox(&["stop", "web"]);
        }
        rbox(&["rm", "-v", "web"]);
        assert_eq!(rbox(&["volume", "ls", "-q"]), "data\n");
        rbox(&["volume", "rm", "data"]);
        assert_eq!(rbox(&["volume", "ls", "-q"]), "");
        nothing_left(&ordinary.user, &before, &[&id]);
    }
}
