//! What images and callers could do through `exec`, `create` and their descriptors: each named after
//! what happened to others.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::process::Stdio;

use serde_json::json;

use crate::bundle::{ROCI, Run};
use crate::container::{Container, SERVICE, wait_until};

/// A descriptor that is not closed on exec, open in this process as long as it is held.
fn leak(number: i32) -> std::os::fd::OwnedFd {
    let file = fs::File::open("/").unwrap();
    let leaked = rustix::io::fcntl_dupfd_cloexec(&file, number).unwrap();
    rustix::io::fcntl_setfd(&leaked, rustix::io::FdFlags::empty()).unwrap();
    leaked
}

#[test]
fn cve_2024_21626_no_descriptor_leaks_into_a_created_container_or_a_further_process() {
    let Some(container) = Container::sh("ls -l /proc/self/fd; echo end; while :; do sleep 0.02; done") else { return };
    container.write(|_| {});
    let leaked = leak(60);
    container.create(&[]).ok();
    let inside = format!("/proc/{}/fd", container.pid());
    let names = |path: &str| {
        let mut names: Vec<_> =
            fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    // 3 and 5: the pipes by which it is started, which lead nowhere.
    assert_eq!(names(&inside), ["0", "1", "2", "3", "5"]);
    for number in [3, 5] {
        let target = fs::metadata(format!("{inside}/{number}")).unwrap();
        assert!(std::os::unix::fs::FileTypeExt::is_fifo(&target.file_type()));
    }
    container.roci(&["start", container.id()]).ok();
    wait_until(|| container.out().ends_with("end"));
    assert_eq!(names(&inside), ["0", "1", "2"]);
    // 3 is the directory `ls` itself reads.
    assert_eq!(container.exec(&["ls", "/proc/self/fd"]).ok(), "0\n1\n2\n3");
    drop(leaked);
}

#[test]
fn cve_2020_15257_nothing_listens_on_an_abstract_socket() {
    let Some(container) = Container::sh(SERVICE) else { return };
    container.write(|spec| {
        // It shares the network with who starts it, where abstract sockets are: one of its own, to be sure of that.
        let namespaces = spec["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.retain(|namespace| namespace["type"] != "network");
        spec["linux"].as_object_mut().unwrap().remove("sysctl");
    });
    let script = "set -e; roci=$1; root=$2; bundle=$3; id=$4
        $roci --root $root create --bundle $bundle $id > $bundle/out 2>&1 < /dev/null; cat /proc/net/unix
        $roci --root $root start $id; until grep -q up $bundle/out; do sleep 0.02; done; cat /proc/net/unix
        $roci --root $root exec $id cat /proc/net/unix; $roci --root $root delete --force $id";
    let mut command = std::process::Command::new("unshare");
    command.args(["-n", "sh", "-c", script, "sh", ROCI]).arg(container.state.path());
    let out = Run::of(command.arg(container.bundle.directory.path()).arg(container.id()).output().unwrap()).ok();
    assert_eq!(out.matches("RefCount").count(), 3, "{out}");
    assert!(!out.contains('@'), "{out}");
}

#[test]
fn cve_2024_21626_the_working_directory_of_a_further_process_is_inside() {
    let Some(container) = Container::service() else { return };
    let _leaked = leak(7);
    for directory in ["/proc/self/fd/7", "/proc/self/fd/3", "/proc/self/fd/10", "/proc/self/cwd", "/proc/1/root", "/nowhere"] {
        let run = container.roci(&["exec", "--cwd", directory, container.id(), "pwd"]);
        assert_eq!(run.code, Some(255), "{directory}: {}", run.out);
        assert!(run.err.contains("working directory"), "{}", run.err);
    }
    assert!(!container.bundle.root().join("nowhere").exists(), "nothing is made by exec");
    // Links are followed inside the root alone.
    symlink("../../../../../../tmp", container.bundle.root().join("up")).unwrap();
    assert_eq!(container.roci(&["exec", "--cwd", "/up", container.id(), "pwd"]).ok(), "/tmp");
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("secret"), "").unwrap();
    symlink(outside.path(), container.bundle.root().join("out")).unwrap();
    assert_eq!(container.roci(&["exec", "--cwd", "/out", container.id(), "ls"]).code, Some(255));
}

#[test]
fn cve_2022_29162_inheritable_capabilities_are_empty_in_a_further_process() {
    let Some(container) = Container::sh(SERVICE) else { return };
    // Even where the container's own process has some.
    container.write(|spec| {
        let all = spec["process"]["capabilities"]["permitted"].clone();
        spec["process"]["capabilities"]["inheritable"] = all;
    });
    container.bring_up("run", &["--detach"]).ok();
    let sets = |run: Run| run.ok().lines().map(|line| line.split_whitespace().nth(1).unwrap().to_owned()).collect::<Vec<_>>();
    let show = "grep -E 'CapInh|CapAmb' /proc/self/status";
    let none = "0000000000000000";
    assert_eq!(sets(container.exec(&["sh", "-c", show])), [none, none]);
    let with = container.roci(&[
        "exec",
        "--cap",
        "CAP_SYS_TIME",
        container.id(),
        "sh",
        "-c",
        "grep -E 'CapInh|CapEff' /proc/self/status",
    ]);
    let with = sets(with);
    assert_eq!(with[0], none);
    assert_ne!(u64::from_str_radix(&with[1], 16).unwrap() & 1 << 25, 0, "CAP_SYS_TIME was added");
    // A document that asks for them does not get them either.
    let path = container.file("process.json");
    let document = json!({
        "args": ["sh", "-c", show], "cwd": "/", "env": ["PATH=/bin"], "user": { "uid": 0, "gid": 0 },
        "capabilities": { "bounding": ["CAP_CHOWN"], "effective": ["CAP_CHOWN"], "permitted": ["CAP_CHOWN"], "inheritable": ["CAP_CHOWN"] },
    });
    fs::write(&path, document.to_string()).unwrap();
    assert_eq!(sets(container.roci(&["exec", "-p", path.to_str().unwrap(), container.id()])), [none, none]);
}

#[test]
fn cve_2019_5736_the_host_s_binary_is_not_reachable_through_a_further_process() {
    let Some(container) = Container::sh(SERVICE) else { return };
    symlink("/proc/self/exe", container.bundle.root().join("link")).unwrap();
    fs::write(container.bundle.root().join("script"), "#!/proc/self/exe\n").unwrap();
    fs::set_permissions(container.bundle.root().join("script"), PermissionsExt::from_mode(0o755)).unwrap();
    // What runs inside looks for the host's binary in every process that comes along, and says so.
    let own = fs::metadata(ROCI).unwrap();
    let hunt = format!(
        "echo up; while :; do for p in /proc/[0-9]*; do \
         case $(stat -L -c '%i %s' $p/exe 2>/dev/null) in '{} {}') echo FOUND;; esac; \
         for f in $p/fd/*; do case $(stat -L -c '%i %s' $f 2>/dev/null) in '{} {}') echo FOUND;; esac; done; done; done",
        own.ino(),
        own.len(),
        own.ino(),
        own.len(),
    );
    container.write(|spec| spec["process"]["args"] = json!(["sh", "-c", hunt]));
    container.bring_up("run", &["--detach"]).ok();
    wait_until(|| container.out() == "up");
    for way in ["/proc/self/exe", "/link", "/script"] {
        let run = container.exec(&[way, "--help"]);
        assert!(!run.out.contains("container runtime") && run.code != Some(0), "{way}: {run:?}");
    }
    for _ in 0..30 {
        container.exec(&["true"]).ok();
    }
    assert_eq!(container.out(), "up");
    assert_eq!(fs::metadata(ROCI).unwrap().ino(), own.ino());
}

#[test]
fn a_process_that_joins_cannot_be_traced_or_looked_into_before_it_is_the_container_s() {
    let Some(container) = Container::service() else { return };
    // What the kernel lets others see of the very process: stopped where it waits to be heard.
    let script = "for i in 1 2 3 4 5 6 7 8; do cat /proc/self/status | grep -c . ; done";
    assert_eq!(container.exec(&["sh", "-c", script]).code, Some(0));
    let mut child = container.command(&["exec", container.id(), "sleep", "1000"]).stdout(Stdio::null()).spawn().unwrap();
    // The command that waits outside has joined nothing, and belongs to root alone.
    let outside = format!("/proc/{}", child.id());
    wait_until(|| {
        fs::read_to_string(format!("{outside}/task/{}/children", child.id())).is_ok_and(|text| !text.trim().is_empty())
    });
    assert_eq!(fs::read_link(format!("{outside}/ns/mnt")).unwrap(), fs::read_link("/proc/self/ns/mnt").unwrap());
    let exe = fs::metadata(format!("{outside}/exe")).unwrap();
    assert_eq!(exe.ino(), fs::metadata(ROCI).unwrap().ino());
    // Of those that are listed one may have ended before it was looked at: `ls` says so by its exit code.
    let listed = container.exec(&["ls", "/proc"]).out;
    assert!(listed.contains("meminfo") && !listed.lines().any(|line| line == child.id().to_string()), "{listed}");
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn cve_2025_52565_a_terminal_is_opened_in_devpts_and_nowhere_else() {
    let Some(container) = Container::sh(SERVICE) else { return };
    container.write(|spec| {
        spec["mounts"].as_array_mut().unwrap().retain(|mount| mount["destination"] != "/dev/pts");
        let capabilities = spec["process"]["capabilities"].clone();
        spec["process"]["capabilities"] = capabilities;
    });
    container.bring_up("run", &["--detach"]).ok();
    for make in ["mkdir -p /dev/pts; ln -sf /dev/null /dev/pts/ptmx", "rm -rf /dev/pts; ln -s /proc/self/fd /dev/pts"] {
        container.exec(&["sh", "-c", make]).ok();
        let run = container.roci(&["exec", "--tty", container.id(), "true"]);
        assert_eq!(run.code, Some(255), "{run:?}");
        assert!(run.err.contains("/dev/pts"), "{run:?}");
    }
}
