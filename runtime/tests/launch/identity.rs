//! Who the container's process is and what it may do.

use std::fs;

use serde_json::json;

use crate::bundle::Bundle;
use crate::needs::{root, useful};

const STATUS: &str = "cat /proc/self/status; cat /proc/self/attr/current 2>/dev/null; true";

fn field(status: &str, name: &str) -> String {
    let line = status.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("no {name} in {status}"));
    line.split_once(':').unwrap().1.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn capabilities_are_docker_s_fourteen_and_never_inheritable() {
    let Some(bundle) = Bundle::sh(STATUS) else { return };
    let status = bundle.run().ok();
    for set in ["CapPrm", "CapEff", "CapBnd"] {
        assert_eq!(field(&status, set), "00000000a80425fb", "{set}");
    }
    assert_eq!(field(&status, "CapInh"), "0000000000000000", "CVE-2022-29162");
    assert_eq!(field(&status, "CapAmb"), "0000000000000000");
    assert_eq!(field(&status, "Seccomp"), "2");
    assert_eq!(field(&status, "NoNewPrivs"), "0");
}

#[test]
fn an_ordinary_user_has_no_effective_capability_and_its_groups() {
    let Some(mut bundle) = Bundle::sh(STATUS) else { return };
    if !root() {
        return;
    }
    fs::write(bundle.root().join("etc/passwd"), "web:x:33:44::/srv:\n").unwrap();
    fs::write(bundle.root().join("etc/group"), "log:x:50:web\n").unwrap();
    bundle.options.user = Some("web".into());
    let status = bundle.run().ok();
    assert_eq!(field(&status, "Uid"), "33 33 33 33");
    assert_eq!(field(&status, "Gid"), "44 44 44 44");
    assert_eq!(field(&status, "Groups"), "44 50");
    assert_eq!(field(&status, "CapEff"), "0000000000000000");
    assert_eq!(field(&status, "CapPrm"), "0000000000000000");
    assert_eq!(field(&status, "CapBnd"), "00000000a80425fb");
}

#[test]
fn cve_2023_25173_a_container_has_none_of_its_caller_s_groups() {
    let Some(mut bundle) = Bundle::sh(STATUS) else { return };
    if !root() {
        return;
    }
    for (user, groups) in [("0:0", "0"), ("33:44", "44")] {
        bundle.options.user = Some(user.into());
        bundle.write(|_| {});
        let roci = bundle.command();
        let mut command = std::process::Command::new("setpriv");
        command.args(["--groups", "4,27"]).arg(roci.get_program()).args(roci.get_args());
        let status = crate::bundle::Run::of(command.output().unwrap()).ok();
        assert_eq!(field(&status, "Groups"), groups, "{user}");
    }
}

#[test]
fn no_new_privileges_is_set_with_the_filter_when_asked_for() {
    let Some(mut bundle) = Bundle::sh(STATUS) else { return };
    bundle.options.no_new_privileges = true;
    let status = bundle.run().ok();
    assert_eq!(field(&status, "NoNewPrivs"), "1");
    assert_eq!(field(&status, "Seccomp"), "2");
}

#[test]
fn ambient_capabilities_of_a_configuration_reach_an_ordinary_user() {
    let Some(bundle) = Bundle::sh(STATUS) else { return };
    if !root() {
        return;
    }
    let status = bundle.run_edited(|spec| {
        spec["process"]["user"]["uid"] = json!(1000);
        for set in ["inheritable", "ambient"] {
            spec["process"]["capabilities"][set] = json!(["CAP_NET_BIND_SERVICE"]);
        }
    });
    assert_eq!(field(&status.ok(), "CapEff"), "0000000000000400");
}

#[test]
fn seccomp_denies_what_docker_s_profile_denies() {
    // Without the filter the first would work: an unprivileged user namespace.
    let Some(bundle) = Bundle::sh("unshare -U true; unshare -m true; mount -t tmpfs x /tmp; true") else { return };
    let run = bundle.run();
    assert_eq!(run.err.matches("Operation not permitted").count(), 2, "{}", run.err);
    assert!(run.err.contains("permission denied") || run.err.contains("not permitted"), "{}", run.err);
    let run = Bundle::sh("unshare -U true").unwrap().run_edited(|spec| {
        spec["linux"].as_object_mut().unwrap().remove("seccomp");
    });
    assert_eq!(run.code, Some(0), "the guard of this test: {}", run.err);
}

#[test]
fn host_devices_can_be_named_but_not_opened() {
    let Some(bundle) = Bundle::sh(
        "mknod /tmp/mem c 1 1 && dd if=/tmp/mem count=1 bs=1 of=/dev/null; mknod /tmp/disk b 7 0 && dd if=/tmp/disk count=1 of=/dev/null; echo done",
    ) else {
        return;
    };
    if !root() {
        return;
    }
    let run = bundle.run();
    assert_eq!(run.out, "done");
    assert_eq!(run.err.matches("Operation not permitted").count(), 2, "{}", run.err);
    // A device the configuration allows opens: the rules decide, nothing else.
    let run = Bundle::sh("mknod /tmp/disk b 7 0 && dd if=/tmp/disk count=0 of=/dev/null").unwrap().run_edited(|spec| {
        spec["linux"]["resources"]["devices"] =
            json!([{ "allow": false, "access": "rwm" }, { "allow": true, "type": "b", "major": 7, "minor": 0, "access": "r" }]);
    });
    assert_eq!(run.code, Some(0), "{}", run.err);
}

#[test]
fn cve_2023_25809_masked_and_read_only_paths() {
    let Some(bundle) = Bundle::sh(
        "for f in /proc/kcore /proc/keys /proc/timer_list /proc/interrupts; do [ -e $f ] && head -c 1 $f | wc -c; done; \
         for d in /proc/acpi /proc/scsi /sys/firmware /sys/devices/virtual/powercap; do [ -d $d ] && ls -A $d | wc -l; done; \
         for w in /proc/sys/kernel/hostname /proc/sysrq-trigger /proc/irq/default_smp_affinity; do (echo 0 >$w) 2>/dev/null && echo WROTE $w; done; \
         touch /sys/kernel/x 2>/dev/null && echo WROTE /sys; mkdir /sys/fs/cgroup/x 2>/dev/null && echo WROTE cgroup; true",
    ) else {
        return;
    };
    let out = bundle.run().ok();
    assert!(!out.is_empty() && out.lines().all(|line| line == "0"), "{out}");
}

#[test]
fn on_cgroup_v1_alone_the_devices_controller_restricts_and_is_cleaned_up() {
    let Some(bundle) = Bundle::sh(
        "mknod /tmp/mem c 1 1 && dd if=/tmp/mem count=1 bs=1 of=/dev/null; grep :devices: /proc/self/cgroup; ls /sys/fs/cgroup; \
         ls -d /sys/fs/cgroup/devices/tasks; touch /sys/fs/cgroup/x || mkdir /sys/fs/cgroup/devices/x || echo read-only; echo x >/dev/null",
    ) else {
        return;
    };
    if !root() || !useful(std::path::Path::new("/sys/fs/cgroup/unified").exists(), "a host with both cgroup versions") {
        return;
    }
    bundle.write(|_| {});
    let script = "umount /sys/fs/cgroup/unified && exec \"$@\"";
    let roci = bundle.command();
    let mut command = std::process::Command::new("unshare");
    command.args(["-m", "sh", "-c", script, "sh"]).arg(roci.get_program()).args(roci.get_args());
    let run = crate::bundle::Run::of(command.output().unwrap());
    assert_eq!(run.code, Some(0), "{}", run.err);
    let lines: Vec<&str> = run.out.lines().collect();
    assert!(lines[0].ends_with(":devices:/"), "the namespace's root is the container's own: {}", run.out);
    assert_eq!(lines[1..], ["devices", "freezer", "/sys/fs/cgroup/devices/tasks", "read-only"]);
    assert!(run.err.contains("can't open '/tmp/mem': Operation not permitted"), "{}", run.err);
    assert!(bundle.cgroups().iter().all(|path| !path.exists()));
}
