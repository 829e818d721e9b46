//! `kill -9` of whatever is Longshore's, at random moments, under many containers that have all there is: networks,
//! ports, volumes, restart policies.

use std::collections::BTreeSet;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::common::wait_until;
use super::detached::{POLITE, nothing_kept};
use super::fixture::{Mounts, processes};
use super::networks::{Net, as_both};

const CONTAINERS: usize = 20;

/// SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % limit as u64).unwrap()
    }
}

/// What a process was executed as.
fn program(pid: u32) -> Vec<u8> {
    let words = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    words.split(|byte| *byte == 0).next().unwrap_or_default().to_vec()
}

/// The commands that run, with their guards and what else they forked.
fn commands(net: &Net) -> Vec<u32> {
    let is_command = |pid: &u32| [&b"/rrun"[..], b"/rbox"].iter().any(|name| program(*pid).ends_with(name));
    processes(net.user()).into_iter().filter(is_command).collect()
}

/// The same and the monitors: not what is in containers.
fn ours(net: &Net) -> Vec<u32> {
    let monitors = processes(net.user()).into_iter().filter(|pid| program(*pid) == b"longshore-monitor");
    monitors.chain(commands(net)).collect()
}

/// Starts the container of this number anew, or whatever else may be done to it.
fn command(net: &Net, number: usize, what: usize) -> Child {
    let name = format!("c{number}");
    let mark = format!("MARK={}", net.user().store().display());
    let (port, volume) = (format!("{}:80", 8000 + number), format!("v{number}:/data"));
    let policy = ["no", "always", "on-failure"][number % 3];
    let run = ["-d", "-e", &mark, "--name", &name, "--network", "many", "-p", &port, "-v", &volume, "--restart", policy];
    let mut command = match what {
        0 => net.command("rbox", &["stop", &name]),
        1 => net.command("rbox", &["restart", &name]),
        2 => net.command("rbox", &["rm", "-f", &name]),
        3 => net.command("rbox", &["kill", &name]),
        4 => net.command("rrun", &["--rm", "-e", &mark, "--network", "many", net.image(), "sh", "-c", "sleep 0.05"]),
        _ => net.command("rrun", &[&run[..], &[net.image(), "sh", "-c", POLITE]].concat()),
    };
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// Each container runs again: started, or made anew where it has gone.
fn bring_back(net: &Net) {
    for number in 0..CONTAINERS {
        let name = format!("c{number}");
        wait_until(&format!("{name} runs"), || {
            let rows = net.rbox(&["ps", "--all", "--format", "json", "--filter", &format!("name=^{name}$")]);
            match rows.lines().next() {
                Some(row) if row.contains("\"State\":\"running\"") => return true,
                Some(row) if row.contains("\"State\":\"restarting\"") => return false,
                Some(_) => drop(net.output("rbox", &["start", &name])),
                None => drop(command(net, number, usize::MAX).wait().unwrap()),
            }
            false
        });
    }
}

/// `ps` and `inspect` say what is.
fn told_truly(net: &Net) -> BTreeSet<String> {
    let mut pids = BTreeSet::new();
    for number in 0..CONTAINERS {
        let state = &net.inspect(&format!("c{number}"))["State"];
        let pid = state["Pid"].as_u64().unwrap();
        assert!(state["Running"] == true && std::path::Path::new(&format!("/proc/{pid}")).exists(), "{state}");
        assert!(pids.insert(pid.to_string()), "{state}");
    }
    let networks: serde_json::Value = serde_json::from_str(&net.rbox(&["network", "inspect", "many"])).unwrap();
    assert_eq!(networks[0]["Containers"].as_object().unwrap().len(), CONTAINERS, "{networks}");
    pids
}

as_both! { kill_nine_of_whatever_is_ours_under_twenty_containers_loses_and_leaves_nothing }

fn kill_nine_of_whatever_is_ours_under_twenty_containers_loses_and_leaves_nothing(net: &Net) {
    let rounds = if std::env::var_os("LONGSHORE_LONG").is_some() { 200 } else { 15 };
    let seed = std::env::var("LONGSHORE_SEED").map_or(u64::from(std::process::id()), |text| text.parse().unwrap());
    eprintln!("LONGSHORE_SEED={seed}");
    let mut random = Random(seed);
    let before = Mounts::now(net.user());
    net.rbox(&["network", "create", "many"]);
    bring_back(net);
    for _ in 0..rounds {
        let mut children: Vec<Child> = (0..3).map(|_| command(net, random.below(CONTAINERS), random.below(6))).collect();
        let end = Instant::now() + Duration::from_micros(random.below(60_000) as u64);
        while Instant::now() < end {
            std::hint::spin_loop();
        }
        for _ in 0..3 {
            let all = ours(net);
            if let Some(pid) = all.get(random.below(all.len().max(1))) {
                // Gone meanwhile is fine.
                let _ = kill_process(Pid::from_raw(i32::try_from(*pid).unwrap()).unwrap(), Signal::KILL);
            }
        }
        for child in &mut children {
            child.wait().unwrap();
        }
        // What a killed command had begun may still be done by what it had forked.
        wait_until("the killed commands' helpers are done", || commands(net).is_empty());
        bring_back(net);
        told_truly(net);
    }
    let ids = net.rbox(&["ps", "-aq", "--no-trunc"]);
    let ids: Vec<&str> = ids.lines().collect();
    assert_eq!(ids.len(), CONTAINERS);
    net.rbox(&[&["rm", "-f"][..], &ids].concat());
    net.rbox(&["volume", "prune", "-af"]);
    net.output("rrun", &["--rm", "--network", "none", net.image(), "true"]);
    net.nothing_connected();
    net.rbox(&["network", "rm", "many"]);
    nothing_kept(net.user(), &before, &ids);
}
