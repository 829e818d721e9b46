//! What a container is: its namespaces, filesystems, environment and exit code.

use std::fs;
use std::os::unix::fs::symlink;

use longshore_runtime::launch::{self, Launch, Rootfs};
use longshore_runtime::spec::{Network, default_spec};
use longshore_runtime::volume::Volume;
use serde_json::json;

use crate::bundle::Bundle;
use crate::needs::{is_root, root};

#[test]
fn a_container_has_namespaces_of_its_own() {
    let Some(bundle) =
        Bundle::sh("ls /proc/self/ns >/dev/null; for n in pid mnt net ipc uts cgroup; do readlink /proc/1/ns/$n; done; echo $$")
    else {
        return;
    };
    let inside = bundle.run().ok();
    for (name, inside) in ["pid", "mnt", "net", "ipc", "uts", "cgroup"].iter().zip(inside.lines()) {
        let outside = fs::read_link(format!("/proc/self/ns/{name}")).unwrap();
        assert_ne!(outside.to_str(), Some(inside), "{name}");
    }
    assert_eq!(inside.lines().last(), Some("1"));
}

#[test]
fn the_exit_code_is_the_command_s_and_128_plus_the_signal() {
    for (script, code) in [("exit 0", 0), ("exit 42", 42), ("exit 255", 255)] {
        let Some(bundle) = Bundle::sh(script) else { return };
        assert_eq!(bundle.run().code, Some(code));
    }
    // Init ignores a signal it sends itself without a handler: so from outside its namespace.
    let Some(bundle) = Bundle::sh("echo up; while :; do sleep 1; done") else { return };
    bundle.write(|_| {});
    let mut child = bundle.command().stdout(std::process::Stdio::piped()).spawn().unwrap();
    let mut line = [0; 3];
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut line).unwrap();
    let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", child.id())).unwrap();
    let init = children
        .split_whitespace()
        .find(|pid| fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap().contains("echo up"))
        .unwrap();
    rustix::process::kill_process(rustix::process::Pid::from_raw(init.parse().unwrap()).unwrap(), rustix::process::Signal::KILL)
        .unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(128 + 9));
}

#[test]
fn a_missing_command_is_127_and_one_that_cannot_run_is_126() {
    let Some(bundle) = Bundle::new(&["no-such-command"]) else { return };
    let run = bundle.run();
    assert_eq!(run.code, Some(127));
    assert!(run.err.contains("no-such-command") && run.err.contains("executable file not found"), "{}", run.err);

    let bundle = Bundle::new(&["/etc/plain"]).unwrap();
    fs::write(bundle.root().join("etc/plain"), "x").unwrap();
    assert_eq!(bundle.run().code, Some(126));

    let bundle = Bundle::new(&["/etc"]).unwrap();
    assert_eq!(bundle.run().code, Some(126));

    let bundle = Bundle::new(&["/bin/sh/x"]).unwrap();
    assert_eq!(bundle.run().code, Some(127), "not a directory on the way");
}

#[test]
fn the_command_is_looked_up_in_the_container_s_own_path() {
    let Some(mut bundle) = Bundle::new(&["tool", "one", ""]) else { return };
    bundle.options.env = vec!["PATH=/nowhere:/etc:/opt".into()];
    fs::create_dir(bundle.root().join("opt")).unwrap();
    // Found first but not executable: the next one is taken, as execvp does.
    fs::write(bundle.root().join("etc/tool"), "").unwrap();
    fs::write(bundle.root().join("opt/tool"), "#!/bin/sh\necho $0 $# $1\n").unwrap();
    fs::set_permissions(bundle.root().join("opt/tool"), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    assert_eq!(bundle.run().ok(), "/opt/tool 2 one");
}

#[test]
fn environment_host_name_and_loopback_are_set() {
    let Some(mut bundle) = Bundle::sh("env; hostname; ip -o addr show lo; pwd; umask") else { return };
    bundle.options.env = vec!["A=b c".into()];
    bundle.options.hostname = Some("host-name".into());
    bundle.options.workdir = Some("/made/on the way".into());
    let out = bundle.run().ok();
    for line in ["A=b c", "HOSTNAME=host-name", "HOME=/", "host-name", "/made/on the way", "0022"] {
        assert!(out.lines().any(|other| other == line), "{line}: {out}");
    }
    assert!(out.contains("127.0.0.1/8"), "{out}");
}

#[test]
fn the_host_s_network_is_shared_only_when_asked_for() {
    let Some(mut bundle) = Bundle::sh("readlink /proc/1/ns/net") else { return };
    bundle.options.network = Network::Host;
    assert_eq!(bundle.run().ok(), fs::read_link("/proc/self/ns/net").unwrap().to_str().unwrap());
}

#[test]
fn default_filesystems_devices_and_links_are_there() {
    let Some(bundle) = Bundle::sh(
        "cat /proc/mounts; stat -c '%n %F %a %t %T' /dev/null /dev/zero /dev/full /dev/random /dev/urandom /dev/tty; \
         for l in fd stdin stdout stderr core ptmx; do echo $l=$(readlink /dev/$l); done; echo x >/dev/null; head -c 3 /dev/zero | wc -c",
    ) else {
        return;
    };
    let out = bundle.run().ok();
    for mount in [
        "/proc proc",
        "/dev tmpfs",
        "/dev/pts devpts",
        "/dev/shm tmpfs",
        "/dev/mqueue mqueue",
        "/sys sysfs ro",
        "/sys/fs/cgroup cgroup2 ro",
    ] {
        assert!(out.contains(&format!(" {mount}")), "{mount}: {out}");
    }
    if is_root() {
        assert!(
            out.contains("/dev/null character special file 666 1 3") && out.contains("/dev/tty character special file 666 5 0"),
            "{out}"
        );
    }
    for link in ["fd=/proc/self/fd", "stdin=/proc/self/fd/0", "core=/proc/kcore", "ptmx=pts/ptmx"] {
        assert!(out.contains(link), "{link}: {out}");
    }
}

#[test]
fn volumes_are_bound_and_read_only_ones_cannot_be_written_at_any_depth() {
    let Some(mut bundle) = Bundle::sh("cat /data/in; echo out >/data/out; cat /new/file; touch /ro/x; touch /ro/sub/x; true")
    else {
        return;
    };
    let host = tempfile::tempdir().unwrap();
    fs::write(host.path().join("in"), "in\n").unwrap();
    let volume = |destination: &str, read_only| Volume {
        source: host.path().into(),
        destination: destination.into(),
        read_only,
        ..Volume::default()
    };
    bundle.options.volumes = vec![
        volume("/data", false),
        volume("/ro", true),
        Volume { source: host.path().join("in").into(), destination: "/new/file".into(), read_only: true, ..Volume::default() },
    ];
    let run = bundle.run();
    assert_eq!((run.code, run.out.as_str()), (Some(0), "in\nin"));
    assert!(run.err.contains("/ro/x: Read-only"), "{}", run.err);
    assert_eq!(fs::read_to_string(host.path().join("out")).unwrap(), "out\n");
    assert!(!host.path().join("x").exists());
}

#[test]
fn a_read_only_root_cannot_be_written() {
    let Some(mut bundle) = Bundle::sh("touch /x") else { return };
    bundle.options.read_only = true;
    let run = bundle.run();
    assert_eq!(run.code, Some(1));
    assert!(run.err.contains("Read-only file system"));
}

#[test]
fn sysctls_limits_and_oom_score_are_applied() {
    let Some(bundle) = Bundle::sh("cat /proc/sys/kernel/msgmax /proc/self/oom_score_adj; ulimit -n; ulimit -Hn") else { return };
    let out = bundle.run_edited(|spec| {
        spec["linux"]["sysctl"]["kernel.msgmax"] = json!("4321");
        spec["process"]["oomScoreAdj"] = json!(123);
        spec["process"]["rlimits"] = json!([{ "type": "RLIMIT_NOFILE", "soft": 77, "hard": 88 }]);
    });
    assert_eq!(out.ok(), "4321\n123\n77\n88");
}

#[test]
fn what_is_not_supported_is_refused_by_name() {
    let Some(bundle) = Bundle::sh("true") else { return };
    let run = bundle.run_edited(|spec| spec["linux"]["netDevices"] = json!({ "eth0": {} }));
    assert_eq!(run.code, Some(125));
    assert!(run.err.contains("linux.netDevices"), "{}", run.err);
    let run = bundle.run_edited(|spec| spec["linux"]["memoryPolicy"] = json!({ "mode": "MPOL_BIND", "nodes": "0" }));
    assert!(run.code == Some(125) && run.err.contains("linux.memoryPolicy"), "{}", run.err);
}

#[test]
fn an_overlay_shows_all_layers_keeps_changes_in_the_upper_one_and_is_no_mount_of_the_host() {
    let Some(bundle) = Bundle::sh("cat /one /two; rm /one; echo new >/three; test -d /proc/1") else { return };
    if !root() {
        return;
    }
    let layers = tempfile::tempdir().unwrap();
    for (layer, file, text) in [("a", "one", "1"), ("a", "two", "hidden"), ("b", "two", "2")] {
        fs::create_dir_all(layers.path().join(layer)).unwrap();
        fs::write(layers.path().join(layer).join(file), text).unwrap();
    }
    for sub in ["upper", "work"] {
        fs::create_dir(layers.path().join(sub)).unwrap();
    }
    let path = |name: &str| layers.path().join(name);
    let rootfs = Rootfs::Overlay {
        lower: vec![path("b"), path("a"), bundle.root()],
        upper: path("upper"),
        work: path("work"),
        userxattr: false,
        ephemeral: true,
    };
    let mount = rootfs.mount().unwrap();
    let file = rustix::fs::openat(&mount, "two", rustix::fs::OFlags::RDONLY, rustix::fs::Mode::empty()).unwrap();
    let mut text = [0; 8];
    assert_eq!(rustix::io::read(&file, &mut text).unwrap(), 1);
    assert_eq!(text[0], b'2', "the topmost layer wins");
    drop(file);
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(layers.path().to_str().unwrap()), "{mounts}");
    let spec =
        default_spec(&longshore_runtime::image::ContainerConfig::default(), std::os::fd::AsFd::as_fd(&mount), &bundle.options)
            .unwrap();
    let exit = launch::run(Launch {
        id: &bundle.id,
        spec: &spec,
        root: mount,
        stdin: false,
        guard: None,
        bundle: std::path::Path::new(""),
    })
    .unwrap();
    assert_eq!(exit.code(), 0);
    assert_eq!(fs::read_to_string(path("upper").join("three")).unwrap(), "new\n");
    assert!(path("a").join("one").exists(), "a lower layer is never changed");
}

#[test]
fn a_dangling_link_as_mount_target_is_an_error_that_names_it() {
    let Some(mut bundle) = Bundle::sh("true") else { return };
    symlink("/nowhere/at/all", bundle.root().join("data")).unwrap();
    bundle.options.volumes =
        vec![Volume { source: "/tmp".into(), destination: "/data".into(), read_only: true, ..Volume::default() }];
    let run = bundle.run();
    assert_eq!(run.code, Some(125));
    assert!(run.err.contains("/data"), "{}", run.err);
}
