//! Images and volumes that mean harm: each named after what happened to others.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use longshore_runtime::launch::Rootfs;
use longshore_runtime::volume::Volume;
use serde_json::json;

use crate::bundle::{Bundle, ROCI, Run};
use crate::needs::root;

#[test]
fn cve_2019_5736_the_host_s_binary_is_not_reachable_from_inside() {
    let own = fs::metadata(ROCI).unwrap();
    let own = format!("{} {}", own.ino(), own.len());
    // As the command itself, through a link, and as the interpreter of a script.
    for way in ["/proc/self/exe", "/link", "/script"] {
        let Some(bundle) = Bundle::new(&[way, "--help"]) else { return };
        symlink("/proc/self/exe", bundle.root().join("link")).unwrap();
        fs::write(bundle.root().join("script"), "#!/proc/self/exe\n").unwrap();
        fs::set_permissions(bundle.root().join("script"), PermissionsExt::from_mode(0o755)).unwrap();
        let run = bundle.run();
        assert!(!run.out.contains("container runtime"), "{way}: our own program ran inside: {}", run.out);
        assert_ne!(run.code, Some(0), "{way}");
    }
    let bundle = Bundle::sh("stat -L -c '%i %s' /proc/1/exe; for f in /proc/1/fd/* /proc/1/map_files/*; do stat -L -c '%i %s' $f 2>/dev/null; done; true").unwrap();
    let out = bundle.run().ok();
    assert!(out.lines().all(|line| line != own), "{own} in {out}");
}

#[test]
fn cve_2024_21626_no_descriptor_leaks_and_the_working_directory_is_inside() {
    let Some(bundle) = Bundle::sh("ls /proc/self/fd; ls -l /proc/1/cwd") else { return };
    bundle.write(|_| {});
    let leaked = fs::File::open("/").unwrap();
    let leaked = rustix::io::fcntl_dupfd_cloexec(&leaked, 50).unwrap();
    rustix::io::fcntl_setfd(&leaked, rustix::io::FdFlags::empty()).unwrap();
    let out = Run::of(bundle.command().output().unwrap()).ok();
    // 3 is the directory `ls` itself reads.
    assert!(out.starts_with("0\n1\n2\n3\nl"), "{out}");
    drop(leaked);
    for directory in ["/proc/self/fd/3", "/proc/self/fd/10", "/proc/1/root", "/proc/self/cwd"] {
        let mut bundle = Bundle::sh("pwd").unwrap();
        bundle.options.workdir = Some(directory.into());
        let run = bundle.run();
        assert_eq!(run.code, Some(125), "{directory}: {}", run.out);
        assert!(run.err.contains("working directory"), "{}", run.err);
    }
}

#[test]
fn cve_2026_55686_a_workdir_through_a_link_stays_inside() {
    let Some(mut bundle) = Bundle::sh("pwd; ls") else { return };
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("secret"), "").unwrap();
    symlink("../../../../../..", bundle.root().join("up")).unwrap();
    bundle.options.workdir = Some("/up/tmp".into());
    assert_eq!(bundle.run().ok(), "/tmp");
    symlink(outside.path(), bundle.root().join("out")).unwrap();
    bundle.options.workdir = Some("/out".into());
    assert!(!bundle.run().out.contains("secret"));
}

#[test]
fn cve_2019_19921_symlinked_proc_and_sys_are_refused() {
    for name in ["proc", "sys"] {
        let Some(bundle) = Bundle::sh("true") else { return };
        fs::create_dir(bundle.root().join("evil")).unwrap();
        symlink("/evil", bundle.root().join(name)).unwrap();
        let run = bundle.run();
        assert_eq!(run.code, Some(125), "{name}");
        assert!(run.err.contains("symbolic link") && run.err.contains(name), "{}", run.err);
    }
    let bundle = Bundle::sh("true").unwrap();
    fs::write(bundle.root().join("proc"), "a file").unwrap();
    assert_eq!(bundle.run().code, Some(125));
}

#[test]
fn cve_2023_27561_no_mount_covers_procfs() {
    let host = tempfile::tempdir().unwrap();
    let volume = |destination: &str| {
        vec![Volume { source: host.path().into(), destination: destination.into(), read_only: false, ..Volume::default() }]
    };
    for destination in ["/proc", "/proc/sys", "/x/../proc/self", "/link", "/link/sys"] {
        let Some(mut bundle) = Bundle::sh("true") else { return };
        symlink("/proc", bundle.root().join("link")).unwrap();
        bundle.options.volumes = volume(destination);
        let run = bundle.run();
        assert_eq!(run.code, Some(125), "{destination}: {}", run.out);
    }
}

#[test]
fn cve_2021_30465_a_target_that_is_a_link_is_followed_inside_the_root_only() {
    let Some(mut bundle) = Bundle::sh("cat /inside/file") else { return };
    let (host, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::write(host.path().join("file"), "volume").unwrap();
    // Absolute and climbing links both end in the image's own /inside.
    fs::create_dir(bundle.root().join("inside")).unwrap();
    symlink("../../../../../inside", bundle.root().join("link")).unwrap();
    bundle.options.volumes =
        vec![Volume { source: host.path().into(), destination: "/link".into(), read_only: true, ..Volume::default() }];
    assert_eq!(bundle.run().ok(), "volume");
    fs::remove_file(bundle.root().join("link")).unwrap();
    symlink(outside.path(), bundle.root().join("link")).unwrap();
    assert_eq!(bundle.run().code, Some(125), "a host path that the image does not have");
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
}

#[test]
fn cve_2025_47290_a_layer_swapped_for_a_link_is_not_followed() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    for name in ["layer", "upper", "work"] {
        fs::create_dir(path(name)).unwrap();
    }
    symlink("/", path("link")).unwrap();
    let mount = |layer: &str| {
        let lower = vec![path(layer)];
        Rootfs::Overlay { lower, upper: path("upper"), work: path("work"), userxattr: false, ephemeral: false }.mount()
    };
    let refused = mount("link").unwrap_err().to_string();
    assert!(refused.contains("neither a directory nor an image"), "{refused}");
    for name in ["upper", "work"] {
        fs::remove_dir(path(name)).unwrap();
        symlink("/", path(name)).unwrap();
        let refused = mount("layer").unwrap_err().to_string();
        assert!(refused.contains(name), "{refused}");
        fs::remove_file(path(name)).unwrap();
        fs::create_dir(path(name)).unwrap();
    }
}

#[test]
fn cve_2021_30465_a_target_swapped_while_containers_start_never_leads_out() {
    let Some(mut bundle) = Bundle::sh("ls /target /inside; test ! -e /target/secret") else { return };
    let (host, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::write(outside.path().join("secret"), "").unwrap();
    fs::create_dir(bundle.root().join("inside")).unwrap();
    fs::create_dir(bundle.root().join("target")).unwrap();
    symlink(outside.path(), bundle.root().join("swap")).unwrap();
    bundle.options.volumes =
        vec![Volume { source: host.path().into(), destination: "/target".into(), read_only: true, ..Volume::default() }];
    bundle.write(|_| {});
    let stop = std::sync::atomic::AtomicBool::new(false);
    let (a, b) = (bundle.root().join("target"), bundle.root().join("swap"));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                rustix::fs::renameat_with(rustix::fs::CWD, &a, rustix::fs::CWD, &b, rustix::fs::RenameFlags::EXCHANGE).unwrap();
            }
        });
        for _ in 0..40 {
            let run = Run::of(bundle.command().output().unwrap());
            assert!(!run.out.contains("secret"), "{run:?}");
            assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1, "nothing is made outside");
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}

#[test]
fn cve_2025_31133_dev_null_is_verified_before_it_masks() {
    let Some(bundle) = Bundle::sh("cat /proc/kcore | head -c 1") else { return };
    if !root() {
        return;
    }
    // A /dev that is not a fresh tmpfs but the image's own directory, with a link as its null.
    let without_dev = |spec: &mut serde_json::Value| {
        let mounts = spec["mounts"].as_array_mut().unwrap();
        mounts.retain(|mount| !mount["destination"].as_str().unwrap().starts_with("/dev"));
    };
    fs::create_dir(bundle.root().join("dev")).unwrap();
    symlink("/proc/sys/kernel/core_pattern", bundle.root().join("dev/null")).unwrap();
    let run = bundle.run_edited(without_dev);
    assert_eq!(run.code, Some(125), "{}", run.out);
    assert!(run.err.contains("dev/null"), "{}", run.err);
    fs::remove_file(bundle.root().join("dev/null")).unwrap();
    assert_eq!(bundle.run_edited(without_dev).code, Some(0), "a true one is made");
}

#[test]
fn cve_2025_52881_dev_and_pts_may_be_links_inside_the_image() {
    let Some(bundle) = Bundle::sh("echo x >/dev/null; stat -c %t:%T /real/null; mount | grep -c ' on /real/pts '") else {
        return;
    };
    let outside = tempfile::tempdir().unwrap();
    fs::create_dir(bundle.root().join("real")).unwrap();
    symlink("/real", bundle.root().join("dev")).unwrap();
    let out = bundle.run().ok();
    assert!(out.starts_with("1:3"), "{out}");
    // Out of the image it does not lead: the target is missing inside, and nothing is made outside.
    fs::remove_file(bundle.root().join("dev")).unwrap();
    symlink(outside.path(), bundle.root().join("dev")).unwrap();
    assert_eq!(bundle.run().code, Some(125));
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
}

#[test]
fn sysctls_are_written_through_our_own_procfs_and_names_cannot_climb() {
    let Some(bundle) = Bundle::sh("true") else { return };
    for name in ["../kernel/hostname", "kernel..hostname", "/etc/passwd"] {
        let run = bundle.run_edited(|spec| spec["linux"]["sysctl"] = json!({ name: "x" }));
        assert_eq!(run.code, Some(125), "{name}");
    }
}

#[test]
fn ids_that_would_be_paths_are_refused() {
    let Some(mut bundle) = Bundle::sh("true") else { return };
    for id in ["../x", "a/b", "", ".", "-x", &"a".repeat(200)] {
        bundle.write(|_| {});
        bundle.id = id.to_owned();
        let run = Run::of(bundle.command().arg("--").output().unwrap());
        assert_ne!(run.code, Some(0), "{id}");
    }
    assert!(!Path::new("/sys/fs/cgroup/x").exists());
}

#[test]
fn cve_2024_45310_nothing_is_made_outside_where_a_mount_s_target_is_missing() {
    let (host, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::write(host.path().join("file"), "").unwrap();
    // The target is missing behind a link that would lead out: as a file and as a directory.
    for (source, target) in [("file", "/link/made"), ("", "/link/made"), ("file", "/deep/link/a/b"), ("", "/dangling")] {
        let Some(mut bundle) = Bundle::sh("true") else { return };
        fs::create_dir(bundle.root().join("deep")).unwrap();
        symlink(outside.path(), bundle.root().join("link")).unwrap();
        symlink(format!("../../../../../../..{}", outside.path().display()), bundle.root().join("deep/link")).unwrap();
        symlink(outside.path().join("made"), bundle.root().join("dangling")).unwrap();
        let volume =
            Volume { source: host.path().join(source).into(), destination: target.into(), read_only: true, ..Volume::default() };
        bundle.options.volumes = vec![volume];
        let _ = bundle.run();
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0, "{source} {target}");
    }
}

#[test]
fn cve_2025_52565_a_console_that_is_a_link_or_another_terminal_is_refused() {
    let Some(mut bundle) = Bundle::sh("true") else { return };
    if !root() {
        return;
    }
    bundle.options.tty = true;
    // The image's own /dev, in which the console is a link to what must not be covered.
    let own_dev = |spec: &mut serde_json::Value| {
        let mounts = spec["mounts"].as_array_mut().unwrap();
        mounts.retain(|mount| matches!(mount["destination"].as_str().unwrap(), "/proc" | "/dev/pts"));
    };
    fs::create_dir(bundle.root().join("dev")).unwrap();
    symlink("/proc/sys/kernel/core_pattern", bundle.root().join("dev/console")).unwrap();
    let run = bundle.run_edited(own_dev);
    assert_eq!(run.code, Some(125), "{}", run.out);
    assert!(run.err.contains("/dev/console"), "{}", run.err);
    fs::remove_file(bundle.root().join("dev/console")).unwrap();
    assert_eq!(bundle.run_edited(own_dev).code, Some(0), "a plain one is made");
    // /dev/pts as a link: the terminal of another directory is not taken for the container's.
    fs::remove_dir_all(bundle.root().join("dev")).unwrap();
    fs::create_dir_all(bundle.root().join("dev")).unwrap();
    fs::create_dir_all(bundle.root().join("evil")).unwrap();
    fs::write(bundle.root().join("evil/0"), "").unwrap();
    let run = bundle.run_edited(|spec| {
        own_dev(spec);
        let covered = json!({ "destination": "/dev/pts", "source": bundle.root().join("evil"), "options": ["bind"] });
        spec["mounts"].as_array_mut().unwrap().push(covered);
    });
    assert_eq!(run.code, Some(125), "{}", run.out);
    assert!(run.err.contains("/dev/console"), "{}", run.err);
}

#[test]
fn cve_2025_52881_what_is_written_for_a_container_is_never_written_through_the_image() {
    // A setting's path that another mount of the configuration covers: it is not followed there.
    let Some(bundle) = Bundle::sh("cat /proc/sys/kernel/msgmax") else { return };
    let host = tempfile::tempdir().unwrap();
    fs::write(host.path().join("shmmax"), "untouched").unwrap();
    let run = bundle.run_edited(|spec| {
        spec["linux"]["sysctl"] = json!({ "kernel.msgmax": "5000" });
        let covered = json!({ "destination": "/proc/sys/kernel", "source": host.path(), "options": ["bind"] });
        spec["mounts"].as_array_mut().unwrap().push(covered);
    });
    assert_eq!(run.code, Some(125), "a mount over /proc/sys is refused outright: {}", run.out);
    // A symbolic link on the way to procfs is refused as well, so that the label and sysctl files are the
    // kernel's: see cve_2019_19921. Written they are through the descriptor of the mount itself.
    fs::create_dir_all(bundle.root().join("proc/sys/kernel")).unwrap();
    fs::write(bundle.root().join("proc/sys/kernel/msgmax"), "the image's").unwrap();
    let run = bundle.run_edited(|spec| spec["linux"]["sysctl"] = json!({ "kernel.msgmax": "5000" }));
    assert_eq!(run.ok(), "5000");
    assert_eq!(fs::read_to_string(bundle.root().join("proc/sys/kernel/msgmax")).unwrap(), "the image's");
}

#[test]
fn without_pivot_root_a_user_namespace_gets_no_bare_procfs_or_sysfs() {
    // The kernel gives one to who sees one whole: the host's, below a root that is entered by chroot.
    let script = "for kind in proc sysfs; do unshare -mrpnf mount -t $kind none /tmp && echo $kind; done; ls /proc/1/root/bin/sh";
    let Some(bundle) = Bundle::sh(script) else { return };
    if !root() {
        return;
    }
    bundle.write(|spec| {
        spec["linux"]["seccomp"].take();
        for set in ["bounding", "permitted", "effective"] {
            spec["process"]["capabilities"][set].as_array_mut().unwrap().push(json!("CAP_SETFCAP"));
        }
    });
    let mut command = bundle.command();
    let run = Run::of(command.arg("--no-pivot").output().unwrap());
    assert_eq!(run.out, "/proc/1/root/bin/sh", "{run:?}");
    assert_eq!(run.err.matches("ermission denied").count() + run.err.matches("not permitted").count(), 2, "{run:?}");
}

#[test]
fn the_list_of_what_is_tested_names_tests_there_are() {
    let runtime = Path::new(env!("CARGO_MANIFEST_DIR"));
    let list = fs::read_to_string(runtime.join("../docs/security-runtime.md")).unwrap();
    let named: Vec<_> = list.split('`').filter_map(|word| word.split_once("::")).collect();
    assert!(named.len() > 30, "{named:?}");
    for (file, name) in named {
        let text = fs::read_to_string(runtime.join(format!("{file}.rs"))).unwrap();
        assert!(text.contains(&format!("fn {name}(")), "{file} has no {name}");
    }
}
