//! How far a container is kept apart: its first process, its devices, whose namespaces it has.

use super::common::needs::useful;
use super::common::wait_until;
use super::detached::{POLITE, no_containers};
use super::fixture::{Mounts, Ready};
use super::tools::stderr;

#[test]
fn what_is_only_said_of_a_container_is_told_to_who_asks() {
    let Some(ready) = Ready::new() else { return };
    let options = ["--domainname", "yard", "--annotation", "com.example/x=1", "--expose", "81", "--expose", "7000-7001/udp"];
    let id = ready.detach(&options, POLITE);
    assert_eq!(ready.rbox(&["exec", &id, "cat", "/proc/sys/kernel/domainname"]), "yard\n");
    let spec = std::fs::read(ready.user.store().join("containers").join(&id).join("config.json")).unwrap();
    let spec: serde_json::Value = serde_json::from_slice(&spec).unwrap();
    assert_eq!(spec["annotations"], serde_json::json!({ "com.example/x": "1" }));
    let ports = &ready.inspect(&id)["Config"]["ExposedPorts"];
    assert_eq!(*ports, serde_json::json!({ "81/tcp": {}, "7000/udp": {}, "7001/udp": {} }));
    ready.rbox(&["rm", "-f", &id]);
    for bad in ["0", "x", "5-3", "80/what"] {
        assert_eq!(ready.run(&["--rm", "--expose", bad], &["true"]).status.code(), Some(125), "{bad}");
    }
}

#[test]
fn a_first_process_of_ours_passes_signals_on_and_reaps_orphans() {
    let Some(ready) = Ready::new() else { return };
    let before = Mounts::now(&ready.user);
    let init = |script: &str| ready.run(&["--rm", "--init"], &["sh", "-c", script]);
    assert_eq!(
        ready.sh(&["--init"], "cat /proc/1/cmdline | tr '\\0' ' '; echo; [ $$ != 1 ] && echo other").lines().last(),
        Some("other")
    );
    assert_eq!(init("exit 9").status.code(), Some(9));
    assert_eq!(init("kill -KILL $$").status.code(), Some(137));
    let output = ready.run(&["--rm", "--init"], &["no-such-command"]);
    assert_eq!(output.status.code(), Some(127), "{}", stderr(&output));
    assert!(stderr(&output).contains("no-such-command"), "{}", stderr(&output));
    assert_eq!(ready.run(&["--rm", "--init"], &["/etc"]).status.code(), Some(126));
    // Signals are the command's, each once; blocked is none of them.
    let script = "trap 'echo bye; exit 33' TERM; trap 'echo usr' USR1; grep SigBlk /proc/self/status; echo up; while :; do sleep 1000 & wait; done";
    let id = ready.detach(&["--init", "--name", "first"], script);
    ready.logged("first", "up");
    assert!(ready.rbox(&["logs", "first"]).starts_with("SigBlk:\t0000000000000000\n"));
    ready.rbox(&["kill", "-s", "USR1", "first"]);
    ready.logged("first", "usr");
    // An orphan that ends is nobody's zombie.
    ready.rbox(&["exec", "first", "sh", "-c", "(sleep 0.1 &)"]);
    wait_until("it is reaped", || {
        !ready.rbox(&["exec", "first", "ps", "-o", "stat,comm"]).lines().any(|line| line.starts_with('Z'))
    });
    ready.rbox(&["stop", "first"]);
    assert_eq!(ready.rbox(&["wait", "first"]), "33\n");
    assert_eq!(ready.inspect("first")["HostConfig"]["Init"], true);
    // This program cannot be changed from in there.
    let written = ready.run(&["--rm", "--init", "--privileged"], &["sh", "-c", "echo x >> /dev/init || echo x > /proc/1/exe"]);
    assert!(!written.status.success(), "{}", stderr(&written));
    assert_eq!(ready.sh(&["--init", "--user", "app"], "id -u"), "1000\n");
    ready.rbox(&["rm", "first"]);
    no_containers(&ready, &before, &[&id]);
}

#[test]
fn a_privileged_container_has_all_there_is() {
    let Some(ready) = Ready::new() else { return };
    let script = "grep -E 'CapEff|Seccomp:' /proc/self/status; ls /dev | wc -l; grep -c ' /sys sysfs rw' /proc/mounts; \
                  echo 1 > /proc/sys/kernel/domainname; mkdir -p /mnt && mount -t tmpfs tmpfs /mnt && echo mounted";
    let said = ready.sh(&["--privileged"], script);
    let lines: Vec<&str> = said.lines().collect();
    // All this machine gives to anybody.
    let host = std::fs::read_to_string("/proc/self/status").unwrap();
    let bound = host.lines().find_map(|line| line.strip_prefix("CapBnd:\t")).unwrap();
    assert!(lines[0].ends_with(bound) && lines[1].ends_with("\t0"), "{said}");
    assert!(lines[2].parse::<usize>().unwrap() > 15 && said.ends_with("mounted\n") && lines[3] == "1", "{said}");
    let plain = ready.sh(&[], "grep -E 'CapEff|Seccomp:' /proc/self/status");
    assert!(plain.contains("a80425fb") && plain.ends_with("2\n"), "{plain}");
}

#[test]
fn devices_are_given_one_by_one() {
    let Some(ready) = Ready::new() else { return };
    let read = "stat -c %t:%T /dev/mine; head -c 3 /dev/mine | wc -c";
    assert_eq!(ready.sh(&["--device", "/dev/zero:/dev/mine"], read), "1:5\n3\n");
    if useful(std::path::Path::new("/dev/kmsg").exists(), "/dev/kmsg") {
        let open = |access: &str| {
            ready.run(&["--rm", "--device", &format!("/dev/kmsg:/dev/mine:{access}")], &["sh", "-c", "exec 3> /dev/mine"])
        };
        assert!(open("w").status.success());
        let refused = open("r");
        assert!(!refused.status.success() && stderr(&refused).contains("not permitted"), "{}", stderr(&refused));
    }
    for (device, word) in
        [("/dev/no-such", "no-such"), ("/etc", "no device"), ("zero", "absolute"), ("/dev/zero:/x:q", "r, w and m")]
    {
        let output = ready.run(&["--rm", "--device", device], &["true"]);
        assert!(output.status.code() == Some(125) && stderr(&output).contains(word), "{device}: {}", stderr(&output));
    }
}

#[test]
fn system_calls_are_those_of_the_profile_that_is_asked_for() {
    let Some(ready) = Ready::new() else { return };
    let profile = ready.user.home().join("profile.json");
    // As docker's own are: for whom may do something, a rule more.
    let rules = r#"{"defaultAction":"SCMP_ACT_ALLOW","archMap":[{"architecture":"SCMP_ARCH_OF_TOMORROW"}],"syscalls":[
        {"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO","errnoRet":95,"excludes":{"caps":["CAP_SYS_ADMIN"]}}]}"#;
    std::fs::write(&profile, rules).unwrap();
    let own = format!("seccomp={}", profile.display());
    let unshare = "unshare -u true 2>/dev/null; echo $?";
    let mkdir = "mkdir /x 2>/dev/null; echo $?";
    let admin = ["--cap-add", "SYS_ADMIN"];
    for (options, script, expected) in [
        (&["--security-opt", "seccomp=unconfined"][..], "grep ^Seccomp: /proc/self/status", "Seccomp:\t0\n"),
        (&["--security-opt", "seccomp=builtin"], "grep ^Seccomp: /proc/self/status", "Seccomp:\t2\n"),
        (&[], unshare, "1\n"),
        (&[&["--security-opt", "seccomp=unconfined"], &admin[..]].concat(), unshare, "0\n"),
        (&["--security-opt", &own], mkdir, "1\n"),
        (&[&["--security-opt", &*own], &admin[..]].concat(), mkdir, "0\n"),
        (&["--privileged", "--security-opt", &own], "grep ^Seccomp: /proc/self/status", "Seccomp:\t2\n"),
        (&["--security-opt", "apparmor=unconfined", "--security-opt", "label=disable"], "echo up", "up\n"),
    ] {
        assert_eq!(ready.sh(options, script), expected, "{options:?}");
    }
    // A start anew has them again, whatever has become of the file.
    ready.rbox(&["create", "--name", "kept", "--security-opt", &own, &ready.image, "mkdir", "/x"]);
    std::fs::remove_file(&profile).unwrap();
    assert!(!ready.user.output("rbox", &["start", "-a", "kept"]).status.success());
    assert_eq!(ready.inspect("kept")["HostConfig"]["SecurityOpt"][0], format!("seccomp={rules}"));
    ready.rbox(&["rm", "kept"]);
    for (option, word) in [(&*own, "profile.json"), ("apparmor=mine", "AppArmor"), ("systempaths=unconfined", "seccomp=FILE")] {
        let output = ready.run(&["--rm", "--security-opt", option], &["true"]);
        assert!(output.status.code() == Some(125) && stderr(&output).contains(word), "{option}: {}", stderr(&output));
    }
}

#[test]
fn namespaces_are_the_host_s_or_another_container_s() {
    let Some(ready) = Ready::new() else { return };
    let before = Mounts::now(&ready.user);
    let host = |kind: &str| std::fs::read_link(format!("/proc/self/ns/{kind}")).unwrap().display().to_string();
    let own = |options: &[&str], kind: &str| ready.sh(options, &format!("readlink /proc/self/ns/{kind}")).trim_end().to_owned();
    let id = ready.detach(&["--name", "other", "-h", "its-name"], "echo up; sleep 1000");
    ready.logged("other", "up");
    for kind in ["pid", "ipc", "uts"] {
        let flag = format!("--{kind}");
        assert_eq!(own(&[&flag, "host"], kind), host(kind));
        assert_ne!(own(&[], kind), host(kind));
        let theirs = own(&[&flag, "container:other"], kind);
        assert_eq!(theirs, ready.rbox(&["exec", "other", "readlink", &format!("/proc/self/ns/{kind}")]).trim_end());
    }
    assert!(ready.sh(&["--pid", "container:other"], "ps").contains("sleep 1000"));
    assert_eq!(ready.sh(&["--uts", "container:other"], "hostname"), "its-name\n");
    for (options, word) in [
        (&["--pid", "container:nobody"][..], "nobody"),
        (&["--pid", "mine"], "container:NAME"),
        (&["--uts", "host", "-h", "x"], "--uts"),
        (&["--userns", "other"], "--userns"),
    ] {
        let output = ready.run(&[&["--rm"], options].concat(), &["true"]);
        assert!(output.status.code() == Some(125) && stderr(&output).contains(word), "{options:?}: {}", stderr(&output));
    }
    // A detached one in the host's ends, too, with all of its processes.
    let among = ready.detach(&["--pid", "host"], "(sleep 1000 &); echo up; sleep 1000");
    ready.logged(&among, "up");
    ready.rbox(&["stop", "-t", "0", &among]);
    ready.rbox(&["stop", "-t", "0", "other"]);
    let output = ready.run(&["--rm", "--ipc", "container:other"], &["true"]);
    assert!(output.status.code() == Some(125) && stderr(&output).contains("not running"), "{}", stderr(&output));
    ready.rbox(&["rm", &among, "other"]);
    no_containers(&ready, &before, &[&id, &among]);
}
