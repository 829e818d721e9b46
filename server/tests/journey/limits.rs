//! What `rrun` lets a container use and do.

use std::path::Path;

use super::common::needs::useful;
use super::common::wait_until;
use super::detached::{POLITE, no_containers};
use super::fixture::{Mounts, Ready};
use super::tools::stderr;

/// Whether limits can be set here: on cgroup v1, or as root.
pub(super) fn limited(ready: &Ready) -> bool {
    let run = ready.run(&["--rm", "--memory", "64m", "--pids-limit", "50"], &["true"]);
    useful(run.status.success(), &format!("cgroups that can be limited ({})", stderr(&run).trim()))
}

#[test]
fn limits_are_felt_and_seen() {
    let Some(ready) = Ready::new() else { return };
    if !limited(&ready) {
        return;
    }
    let before = Mounts::now(&ready.user);
    let dd = ["dd", "if=/dev/zero", "of=/dev/null", "bs=200M", "count=1"];
    let eater = ready.run(&["--rm", "--memory", "24m"], &dd);
    assert_eq!(eater.status.code(), Some(137), "{}", stderr(&eater));
    assert!(stderr(&eater).contains("out of memory"), "{}", stderr(&eater));
    let kept = ready.run(&["--name", "eater", "--memory", "24m"], &dd);
    assert!(kept.status.code() == Some(137) && stderr(&kept).contains("out of memory"), "{}", stderr(&kept));
    assert_eq!(ready.inspect("eater")["State"]["OOMKilled"], true);
    ready.rbox(&["rm", "eater"]);
    let forks = ready.run(&["--rm", "--pids-limit", "3"], &["sh", "-c", "for i in 1 2 3 4 5; do sleep 0.3 & done; wait"]);
    assert!(stderr(&forks).contains("fork"), "{}", stderr(&forks));
    let quota = "cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us 2>/dev/null || cut -d' ' -f1 /sys/fs/cgroup/cpu.max";
    for (cpus, expected) in [("0.25", "25000\n"), ("0.29", "29000\n")] {
        assert_eq!(ready.sh(&["--cpus", cpus], quota), expected);
    }

    let willingly = ["--rm", "--memory", "64m", "--memory-swappiness", "7", "--oom-kill-disable"];
    let files = "cat /sys/fs/cgroup/memory/memory.swappiness; head -n 1 /sys/fs/cgroup/memory/memory.oom_control";
    let output = ready.run(&willingly, &["sh", "-c", files]);
    if Path::new("/sys/fs/cgroup/memory").exists() {
        assert_eq!(output.stdout, b"7\noom_kill_disable 1\n", "{}", stderr(&output));
    } else {
        assert!(stderr(&output).contains("swappiness"), "what version 2 has not is refused: {}", stderr(&output));
    }

    let id = ready.detach(&["--name", "small", "--memory", "48m", "--cpus", "0.1"], "echo up; while :; do :; done");
    wait_until("it is busy", || ready.rbox(&["logs", "small"]).contains("up"));
    let row = ready.rbox(&["stats", "--no-stream", "--format", "json", "small"]);
    let row: serde_json::Value = serde_json::from_str(row.trim_end()).unwrap();
    assert!(row["MemUsage"].as_str().unwrap().ends_with(" / 48MiB"), "{row}");
    let percent: f64 = row["CPUPerc"].as_str().unwrap().trim_end_matches('%').parse().unwrap();
    assert!(percent > 2.0 && percent < 60.0, "of a tenth of a processor: {row}");
    let host = &ready.inspect("small")["HostConfig"];
    assert_eq!(
        (host["Memory"].as_u64(), host["MemorySwap"].as_u64(), host["NanoCpus"].as_u64(), host["CpuQuota"].as_u64()),
        (Some(48 << 20), Some(96 << 20), Some(100_000_000), Some(0))
    );
    // Swap by itself, as far as there is any left for it.
    ready.rbox(&["update", "--memory-swap", "64m", "small"]);
    assert_eq!(ready.inspect("small")["HostConfig"]["MemorySwap"], 64 << 20);
    assert!(ready.user.fail("rbox", &["update", "--memory-swap", "32m", "small"]).contains("below"));
    ready.rbox(&["update", "--cpu-quota", "20000", "small"]);
    let host = &ready.inspect("small")["HostConfig"];
    assert_eq!((host["NanoCpus"].as_u64(), host["CpuQuota"].as_u64()), (Some(0), Some(20_000)), "what was said last");
    ready.rbox(&["rm", "-f", "small"]);
    no_containers(&ready, &before, &[&id]);
}

#[test]
fn privileges_and_settings_are_what_the_flags_say() {
    let Some(ready) = Ready::new() else { return };
    std::fs::write(ready.user.home().join("env"), "# two\nFROM_FILE=1\nBOTH=file\n").unwrap();
    let env_file = ready.user.home().join("env").display().to_string();
    let effective = "grep CapEff /proc/self/status | cut -f2";
    let cases: [(&[&str], &str, &str); 15] = [
        (&["--memory", "0", "--memory-swap", "0", "--cpus", "0", "--pids-limit", "0"], "echo up", "up\n"),
        (&["--ulimit", "nofile=77:88"], "ulimit -n; ulimit -Hn", "77\n88\n"),
        (&["--ulimit", "core=0"], "ulimit -c", "0\n"),
        (&["--oom-score-adj", "500"], "cat /proc/self/oom_score_adj", "500\n"),
        (&["--shm-size", "1m"], "df -k /dev/shm | tail -n 1 | tr -s ' ' | cut -d' ' -f2", "1024\n"),
        (
            &["--tmpfs", "/scratch:size=64k,mode=700"],
            "stat -c %a /scratch; grep -c ' /scratch tmpfs .*noexec' /proc/mounts",
            "700\n1\n",
        ),
        (&["--tmpfs", "/t:exec"], "grep ' /t ' /proc/mounts | grep -c noexec", "0\n"),
        (&["--memory", "64m", "--memory-swap", "-1", "--pids-limit", "-1"], "echo up", "up\n"),
        (&["--cap-drop", "ALL"], effective, "0000000000000000\n"),
        (&["--cap-drop", "all", "--cap-add", "net_admin"], effective, "0000000000001000\n"),
        (&["--cap-add", "CAP_SYS_NICE"], effective, "00000000a88425fb\n"),
        (&["--sysctl", "net.ipv4.ip_forward=1"], "cat /proc/sys/net/ipv4/ip_forward", "1\n"),
        (&["--group-add", "1234", "--user", "5:6"], "id -G", "6 1234\n"),
        (&["--env-file", &env_file, "-e", "BOTH=flag"], "echo $FROM_FILE $BOTH", "1 flag\n"),
        (&["-c", "512", "--memory-reservation", "16m"], "echo up", "up\n"),
    ];
    for (options, script, expected) in cases {
        let output = ready.run(options, &["sh", "-c", script]);
        assert_eq!(String::from_utf8_lossy(&output.stdout), expected, "{options:?}: {}", stderr(&output));
    }
    // A container that is started again has them again.
    let id = ready.detach(&["--cap-drop", "ALL", "--ulimit", "nofile=77"], POLITE);
    ready.rbox(&["stop", &id]);
    ready.rbox(&["start", &id]);
    assert_eq!(ready.rbox(&["exec", &id, "sh", "-c", &format!("ulimit -n; {effective}")]), "77\n0000000000000000\n");
    ready.rbox(&["rm", "-f", &id]);
}

#[test]
fn flags_that_mean_nothing_are_refused_by_name() {
    let Some(ready) = Ready::new() else { return };
    for (options, part) in [
        (&["--memory", "1x"] as &[&str], "--memory"),
        (&["--memory", "-5"], "--memory"),
        (&["--memory-swap", "1g"], "--memory"),
        (&["--cpus", "0.001"], "--cpus"),
        (&["--cpus", "1", "--cpu-quota", "5"], "--cpu-quota"),
        (&["--ulimit", "nofile"], "--ulimit"),
        (&["--ulimit", "nofile=2:1"], "soft limit"),
        (&["--cap-add", "nonsense"], "capability"),
        (&["--tmpfs", "relative"], "--tmpfs"),
        (&["--tmpfs", "/t:no-such-option"], "no-such-option"),
        (&["--sysctl", "kernel.panic=1"], "sysctl"),
        (&["--sysctl", "nonsense"], "KEY=VALUE"),
        (&["--group-add", "nobody-here"], "nobody-here"),
        (&["--oom-score-adj", "2000"], "oomScoreAdj"),
        (&["--cpuset-cpus", "x"], "cpus"),
        (&["--env-file", "/no/such/file"], "/no/such/file"),
    ] {
        let output = ready.run(options, &["echo", "never"]);
        let said = stderr(&output);
        assert_eq!((output.status.code(), &output.stdout[..]), (Some(125), &b""[..]), "{options:?}: {said}");
        assert!(said.contains(part), "{options:?}: {said}");
    }
    ready.user.check_store();
}
