//! Mounts of every kind: options, propagation, id mapping, content copied up.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::bundle::{Bundle, Run};
use crate::needs::root;

fn add(spec: &mut Value, mount: Value) {
    spec["mounts"].as_array_mut().unwrap().push(mount);
}

/// Runs the bundle after `script`, in a mount namespace of its own; `$1` there is `argument`.
fn run_after(bundle: &Bundle, script: &str, argument: &Path) -> Run {
    let roci = bundle.command();
    let script = format!("{script} && shift && exec \"$@\"");
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", &script, "sh"]).arg(argument).arg(roci.get_program()).args(roci.get_args());
    Run::of(command.output().unwrap())
}

/// The line of `/proc/self/mountinfo` for a mount point.
fn line<'a>(mountinfo: &'a str, point: &str) -> &'a str {
    let found = mountinfo.lines().rev().find(|line| line.split(' ').nth(4) == Some(point));
    found.unwrap_or_else(|| panic!("no {point} in {mountinfo}"))
}

#[test]
fn every_attribute_of_a_mount_is_set() {
    let Some(bundle) = Bundle::sh("cat /proc/self/mountinfo") else { return };
    let host = tempfile::tempdir().unwrap();
    let run = bundle.run_edited(|spec| {
        let all = ["bind", "ro", "nosuid", "nodev", "noexec", "noatime", "nodiratime", "nosymfollow"];
        add(spec, json!({ "destination": "/all", "source": host.path(), "options": all }));
        let last = ["bind", "ro", "rw", "nosuid", "suid", "noexec", "exec", "noatime", "strictatime"];
        add(spec, json!({ "destination": "/last", "source": host.path(), "options": last }));
        let whole = ["sync", "dirsync", "lazytime", "silent", "iversion", "acl", "size=1m", "mode=1700"];
        add(spec, json!({ "destination": "/whole", "type": "tmpfs", "source": "tmpfs", "options": whole }));
    });
    let out = run.ok();
    let options = line(&out, "/all").split(' ').nth(5).unwrap();
    for word in ["ro", "nosuid", "nodev", "noexec", "noatime", "nodiratime", "nosymfollow"] {
        assert!(options.split(',').any(|other| other == word), "{word}: {options}");
    }
    let options = line(&out, "/last").split(' ').nth(5).unwrap();
    assert_eq!(options, "rw", "strict access times are what is shown of no option");
    let whole = line(&out, "/whole").rsplit(' ').next().unwrap();
    for word in ["sync", "dirsync", "lazytime", "size=1024k", "mode=1700"] {
        assert!(whole.split(',').any(|other| other == word), "{word}: {whole}");
    }
}

#[test]
fn recursive_attributes_reach_what_is_mounted_below_and_plain_ones_do_not() {
    let Some(bundle) = Bundle::sh("touch /plain/x; touch /plain/sub/x && echo sub written; touch /all/sub/x; ls /one/sub") else {
        return;
    };
    if !root() {
        return;
    }
    let host = tempfile::tempdir().unwrap();
    fs::create_dir(host.path().join("sub")).unwrap();
    bundle.write(|spec| {
        add(spec, json!({ "destination": "/plain", "source": host.path(), "options": ["rbind", "ro"] }));
        add(spec, json!({ "destination": "/all", "source": host.path(), "options": ["rbind", "rro"] }));
        add(spec, json!({ "destination": "/one", "source": host.path(), "options": ["bind"] }));
    });
    let run = run_after(&bundle, "mount -t tmpfs x $1/sub && touch $1/sub/mounted", host.path());
    assert_eq!(run.out, "sub written", "{}", run.err);
    assert!(run.err.contains("/plain/x: Read-only") && run.err.contains("/all/sub/x: Read-only"), "{}", run.err);
}

#[test]
fn propagation_is_as_asked_for() {
    let words = [
        ("private", ""),
        ("rprivate", ""),
        ("slave", "master:"),
        ("rslave", "master:"),
        ("shared", "shared:"),
        ("rshared", "shared:"),
        ("unbindable", "unbindable"),
        ("runbindable", "unbindable"),
    ];
    let Some(bundle) = Bundle::sh("cat /proc/self/mountinfo") else { return };
    if !root() {
        return;
    }
    let host = tempfile::tempdir().unwrap();
    bundle.write(|spec| {
        for (word, _) in words {
            add(spec, json!({ "destination": format!("/{word}"), "source": host.path(), "options": ["bind", word] }));
        }
        add(spec, json!({ "destination": "/nothing", "source": host.path(), "options": ["bind"] }));
    });
    let out = run_after(&bundle, "mount -t tmpfs x $1 && mount --make-shared $1", host.path()).ok();
    for (word, shown) in words.into_iter().chain([("nothing", "")]) {
        let fields: Vec<&str> = line(&out, &format!("/{word}")).split(' ').skip(6).take_while(|field| *field != "-").collect();
        assert_eq!(fields.is_empty(), shown.is_empty(), "{word}: {fields:?}");
        assert!(fields.iter().all(|field| field.starts_with(shown)), "{word}: {fields:?}");
    }
}

#[test]
fn the_root_s_propagation_is_as_asked_for_and_its_read_only_state_stays_inside() {
    for (word, shown) in [("", ""), ("private", ""), ("rslave", "master:"), ("shared", "shared:"), ("unbindable", "unbindable")] {
        let Some(bundle) = Bundle::sh("cat /proc/self/mountinfo") else { return };
        if !root() {
            return;
        }
        bundle.write(|spec| {
            spec["linux"]["rootfsPropagation"] = json!(word);
            spec["root"]["readonly"] = json!(true);
        });
        let directory = bundle.directory.path();
        let out = run_after(&bundle, "mount --bind $1 $1 && mount --make-shared $1", directory).ok();
        let root = line(&out, "/");
        let fields: Vec<&str> = root.split(' ').skip(6).take_while(|field| *field != "-").collect();
        assert_eq!(fields.is_empty(), shown.is_empty(), "{word}: {root}");
        assert!(fields.iter().all(|field| field.starts_with(shown)), "{word}: {root}");
        assert!(root.split(' ').nth(5).unwrap().starts_with("ro"), "{root}");
        fs::write(bundle.root().join("still-writable"), "").unwrap();
    }
}

#[test]
fn the_root_as_a_slave_sees_what_the_host_mounts_later() {
    let Some(bundle) = Bundle::sh("true") else { return };
    if !root() {
        return;
    }
    for (word, seen) in [("rslave", "late"), ("rprivate", "")] {
        bundle.write(|spec| {
            spec["linux"]["rootfsPropagation"] = json!(word);
            spec["process"]["args"][2] = json!(if seen.is_empty() {
                "echo up; read x; ls /tmp"
            } else {
                "echo up; read x; i=0; while [ ! -e /tmp/late ] && [ $i -lt 100 ]; do sleep 0.1; i=$((i+1)); done; ls /tmp"
            });
        });
        // The fifo says when it is mounted, the output when it can be.
        let [fifo, out] = ["fifo", "out"].map(|name| bundle.directory.path().join(name));
        let _ = (fs::remove_file(&fifo), fs::remove_file(&out));
        assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
        let script = "mount --bind $1 $1 && mount --make-shared $1 && d=$1 && shift && \
             { \"$@\" <$d/fifo >$d/out 2>&1 & } && exec 9>$d/fifo && until grep -qs up $d/out; do sleep 0.05; done && \
             mount -t tmpfs x $d/rootfs/tmp && touch $d/rootfs/tmp/late && echo go >&9 && wait && cat $d/out";
        let roci = bundle.command();
        let mut command = Command::new("unshare");
        command.args(["-m", "sh", "-c", script, "sh"]).arg(bundle.directory.path()).arg(roci.get_program()).args(roci.get_args());
        let out = Run::of(command.output().unwrap()).ok();
        assert_eq!(out.lines().nth(1).unwrap_or(""), seen, "{word}: {out}");
    }
}

#[test]
fn tmpcopyup_brings_the_image_s_content_with_owners_modes_and_links() {
    let script = "cd /data && ls -A && cat dir/file && stat -c '%n %a %u %g' . dir dir/file && readlink link && echo new >dir/new && ls out";
    let Some(bundle) = Bundle::sh(script) else { return };
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("secret"), "").unwrap();
    let data = bundle.root().join("data");
    fs::create_dir_all(data.join("dir")).unwrap();
    fs::write(data.join("dir/file"), "content\n").unwrap();
    fs::set_permissions(data.join("dir/file"), PermissionsExt::from_mode(0o4750)).unwrap();
    fs::set_permissions(data.join("dir"), PermissionsExt::from_mode(0o1777)).unwrap();
    fs::set_permissions(&data, PermissionsExt::from_mode(0o711)).unwrap();
    symlink("dir/file", data.join("link")).unwrap();
    symlink(outside.path(), data.join("out")).unwrap();
    let owner = if root() { 7 } else { 0 };
    if root() {
        chown(data.join("dir"), Some(7), Some(7)).unwrap();
    }
    let run = bundle.run_edited(|spec| {
        add(spec, json!({ "destination": "/data", "type": "tmpfs", "source": "tmpfs", "options": ["tmpcopyup", "size=1m"] }));
    });
    let lines: Vec<&str> = run.out.lines().collect();
    let expected =
        ["dir", "link", "out", "content", ". 711 0 0", &format!("dir 1777 {owner} {owner}"), "dir/file 4750 0 0", "dir/file"];
    assert_eq!(lines, expected, "{}", run.err);
    assert!(run.err.contains("No such file"), "a link of the image is copied as what it is: {}", run.err);
    assert!(!data.join("dir/new").exists(), "the image is only read");
    // What does not fit is an error, and no container with half of it.
    let run = bundle.run_edited(|spec| {
        fs::write(data.join("big"), vec![0; 100_000]).unwrap();
        add(spec, json!({ "destination": "/data", "type": "tmpfs", "source": "tmpfs", "options": ["tmpcopyup", "size=8k"] }));
    });
    assert_eq!(run.code, Some(125));
    assert!(run.err.contains("/data") && run.err.contains("No space"), "{}", run.err);
}

#[test]
fn a_tmpfs_without_a_mode_looks_like_the_directory_it_covers() {
    let Some(bundle) = Bundle::sh("stat -c %a /tmp /new; touch /sealed/x") else { return };
    fs::set_permissions(bundle.root().join("tmp"), PermissionsExt::from_mode(0o1750)).unwrap();
    let run = bundle.run_edited(|spec| {
        add(spec, json!({ "destination": "/tmp", "type": "tmpfs", "source": "tmpfs" }));
        add(spec, json!({ "destination": "/new", "type": "tmpfs", "source": "tmpfs" }));
        add(spec, json!({ "destination": "/sealed", "type": "tmpfs", "source": "tmpfs", "options": ["ro"] }));
        add(spec, json!({ "destination": "/sealed/below", "type": "tmpfs", "source": "tmpfs" }));
    });
    assert_eq!(run.out, "1750\n1777");
    assert!(run.err.contains("/sealed/x: Read-only"), "mounts below it come first: {}", run.err);
}

#[test]
fn an_id_mapped_mount_shows_other_owners_and_the_files_keep_theirs() {
    let Some(bundle) = Bundle::sh("stat -c %u:%g /data/file /data/sub/file; touch /data/made; stat -c %u /data/made") else {
        return;
    };
    if !root() {
        return;
    }
    let host = tempfile::tempdir().unwrap();
    fs::write(host.path().join("file"), "").unwrap();
    chown(host.path().join("file"), Some(1000), Some(1001)).unwrap();
    // What belongs to an id that is not mapped cannot be written at all.
    chown(host.path(), Some(1000), Some(1000)).unwrap();
    fs::create_dir(host.path().join("sub")).unwrap();
    for (word, below) in [("idmap", "1000:1000"), ("ridmap", "0:0")] {
        bundle.write(|spec| {
            let map = json!([{ "containerID": 1000, "hostID": 0, "size": 2 }]);
            let options = ["rbind", word];
            add(spec, json!({ "destination": "/data", "source": host.path(), "options": options, "uidMappings": map, "gidMappings": map }));
        });
        let script = "mount -t tmpfs x $1/sub && touch $1/sub/file && chown 1000:1000 $1/sub/file";
        let out = run_after(&bundle, script, host.path()).ok();
        assert_eq!(out, format!("0:1\n{below}\n0"), "{word}");
        assert_eq!(fs::metadata(host.path().join("made")).unwrap().uid(), 1000);
        fs::remove_file(host.path().join("made")).unwrap();
    }
}

#[test]
fn any_filesystem_type_and_relative_sources_and_remounts() {
    let script = "stat -f -c %T /ram; stat -c %a /ram; cat /here/file; touch /here/x; touch /tmp/x; touch /tmp/y && df -k /tmp | grep -c 4096";
    let Some(bundle) = Bundle::sh(script) else { return };
    fs::create_dir(bundle.directory.path().join("beside")).unwrap();
    fs::write(bundle.directory.path().join("beside/file"), "in the bundle\n").unwrap();
    let run = bundle.run_edited(|spec| {
        add(spec, json!({ "destination": "ram", "type": "ramfs", "source": "x", "options": ["mode=0711"] }));
        add(spec, json!({ "destination": "/here", "source": "beside", "options": ["bind"] }));
        add(spec, json!({ "destination": "/here", "options": ["remount", "bind", "ro"] }));
        add(spec, json!({ "destination": "/tmp", "type": "tmpfs", "source": "x", "options": ["size=1m", "mode=777"] }));
        add(spec, json!({ "destination": "/tmp", "type": "tmpfs", "options": ["remount", "size=4m"] }));
    });
    assert_eq!(run.out, "ramfs\n711\nin the bundle\n1", "{}", run.err);
    assert_eq!(run.err.lines().count(), 1, "{}", run.err);
    assert!(run.err.contains("/here/x: Read-only"), "{}", run.err);
}

#[test]
fn a_host_s_procfs_may_take_the_place_of_one_s_own_and_nothing_else_may() {
    let Some(bundle) = Bundle::sh("readlink /proc/self; ls -d /proc/1") else { return };
    let without_proc = |spec: &mut Value, source: &Path| {
        spec["mounts"].as_array_mut().unwrap().retain(|mount| mount["destination"] != "/proc");
        spec["linux"].as_object_mut().unwrap().remove("sysctl");
        let mount = json!({ "destination": "/proc", "source": source, "options": ["rbind", "ro"] });
        spec["mounts"].as_array_mut().unwrap().insert(0, mount);
    };
    assert!(bundle.run_edited(|spec| without_proc(spec, Path::new("/proc"))).out.contains("/proc/1"));
    for source in ["/proc/self", "/proc/sys", "/tmp"] {
        let run = bundle.run_edited(|spec| without_proc(spec, Path::new(source)));
        assert_eq!(run.code, Some(125), "{source}");
        assert!(run.err.contains("/proc"), "{}", run.err);
    }
}

#[test]
fn a_filesystem_s_option_does_nothing_for_a_bind_mount_and_is_said_to() {
    let Some(bundle) = Bundle::sh("grep -c ' /x ' /proc/self/mountinfo") else { return };
    let here = bundle.directory.path().to_owned();
    let mount = json!({ "destination": "/x", "source": here, "options": ["bind", "size=1k"] });
    let run = bundle.run_edited(|spec| add(spec, mount));
    assert!(run.code == Some(0) && run.out == "1" && run.err.contains("\"size\" is ignored"), "{run:?}");
}

#[test]
fn filesystems_are_listed_in_the_order_they_are_mounted_in() {
    let Some(bundle) = Bundle::sh("cat /proc/self/mountinfo") else { return };
    let run = bundle.run_edited(|spec| {
        for name in ["/m/a", "/m/b"] {
            add(spec, json!({ "destination": name, "type": "tmpfs", "source": "x", "options": ["ro"] }));
        }
        add(spec, json!({ "destination": "/m/c", "type": "mqueue", "source": "x" }));
        add(spec, json!({ "destination": "/m/d", "type": "tmpfs", "source": "x" }));
    });
    let listed = run.ok();
    let points: Vec<_> = listed.lines().filter_map(|line| line.split(' ').nth(4)).collect();
    let mounted = ["/", "/proc", "/dev", "/dev/pts", "/m/a", "/m/b", "/m/c", "/m/d"];
    let places: Vec<_> = mounted.iter().map(|name| points.iter().position(|point| point == name)).collect();
    assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{listed}");
    assert!(line(&listed, "/m/a").contains(" ro,"), "{listed}");
}

#[test]
fn wrong_mounts_are_refused_by_name() {
    let Some(bundle) = Bundle::sh("true") else { return };
    let here = bundle.directory.path().to_owned();
    let map = json!([{ "containerID": 0, "hostID": 1000, "size": 1 }]);
    for (mount, names) in [
        (json!({ "destination": "/x", "type": "tmpfs", "source": "x", "options": ["size=lots"] }), "\"size=lots\""),
        (json!({ "destination": "/x", "type": "tmpfs", "source": "x", "options": ["no-such-option"] }), "no-such-option"),
        (json!({ "destination": "/x", "type": "mqueue", "source": "x", "options": ["no-such-option"] }), "no-such-option"),
        (json!({ "destination": "/x", "type": "no-such-type", "source": "x" }), "no-such-type"),
        (json!({ "destination": "/x", "source": here }), "mounts[].type"),
        (json!({ "destination": "/x", "options": ["bind"] }), "mounts[].source"),
        (json!({ "destination": "/x", "source": "/no/such/source", "options": ["bind"] }), "/no/such/source"),
        (json!({ "destination": "/", "type": "tmpfs", "source": "x" }), "mounts[].destination"),
        (json!({ "destination": "/bin", "options": ["remount", "ro"] }), "nothing is mounted there"),
        (json!({ "destination": "/x", "source": here, "options": ["bind", "idmap"] }), "idmap"),
        (json!({ "destination": "/x", "source": here, "options": ["bind"], "uidMappings": map }), "gidMappings"),
        (json!({ "destination": "/x", "type": "mqueue", "source": "x", "options": ["tmpcopyup"] }), "tmpcopyup"),
    ] {
        let run = bundle.run_edited(|spec| add(spec, mount.clone()));
        assert_eq!(run.code, Some(125), "{mount}: {}", run.out);
        assert!(run.err.contains(names), "{mount}: {}", run.err);
    }
    let run = bundle.run_edited(|spec| spec["linux"]["rootfsPropagation"] = json!("sideways"));
    assert!(run.code == Some(125) && run.err.contains("linux.rootfsPropagation"), "{}", run.err);
}
