//! Containers in the background: what is printed, logged, kept and told of them, whatever is killed.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open, pidfd_send_signal};

use super::common::needs::useful;
use super::common::wait_until;
use super::fixture::{Mounts, Ready, is_init, nothing_left, processes, send};
use super::tools::{User, stderr};

/// Ends at once when it is asked to.
pub(super) const POLITE: &str = "trap 'echo bye; exit 33' TERM; echo up; while :; do sleep 1000 & wait; done";

impl Ready {
    /// `rrun -d OPTIONS IMAGE sh -c SCRIPT`: the ID it prints.
    pub(super) fn detach(&self, options: &[&str], script: &str) -> String {
        let mark = format!("MARK={}", self.user.store().display());
        // With its output in a pipe that must end: nothing that stays behind may hold it.
        let output = self.run(&[&["-d", "-e", &mark], options].concat(), &["sh", "-c", script]);
        assert!(output.status.success(), "{options:?} {script:?}: {}", stderr(&output));
        let id = String::from_utf8(output.stdout).unwrap();
        let id = id.strip_suffix('\n').unwrap();
        assert!(id.len() == 64 && id.bytes().all(|c| c.is_ascii_hexdigit()), "{id:?}");
        id.to_owned()
    }

    pub(super) fn rbox(&self, args: &[&str]) -> String {
        self.user.succeed("rbox", args)
    }

    /// Waits until the container's log holds `text`.
    pub(super) fn logged(&self, container: &str, text: &str) {
        wait_until(&format!("{text:?} is logged"), || self.rbox(&["logs", container]).contains(text));
    }

    pub(super) fn inspect(&self, container: &str) -> serde_json::Value {
        let text = self.rbox(&["inspect", "--type", "container", container]);
        serde_json::from_str::<serde_json::Value>(&text).unwrap()[0].clone()
    }

    /// The status column of `ps --all`; `None` if it is not listed.
    pub(super) fn status(&self, container: &str) -> Option<String> {
        let rows = self.rbox(&["ps", "--all", "--no-trunc", "--format", "json", "--filter", &format!("id={container}")]);
        let row = rows.lines().next()?;
        Some(serde_json::from_str::<serde_json::Value>(row).unwrap()["Status"].as_str().unwrap().to_owned())
    }

    /// The container's monitor.
    pub(super) fn monitor(&self, id: &str) -> u32 {
        monitor(&self.user, id)
    }

    /// Its first process, as `inspect` says.
    pub(super) fn monitored(&self, id: &str) -> u64 {
        self.inspect(id)["State"]["Pid"].as_u64().unwrap()
    }

    fn init(&self) -> u32 {
        processes(&self.user).into_iter().find(is_init).expect("the container's first process")
    }
}

/// The monitor of a user's container.
pub(super) fn monitor(user: &User, id: &str) -> u32 {
    let is_its = |pid: &u32| {
        let words = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        words == format!("longshore-monitor\0{id}\0").into_bytes()
    };
    let monitor = || processes(user).into_iter().find(is_its);
    // It has just executed itself: its name may be a moment late.
    wait_until("the monitor is there", || monitor().is_some());
    monitor().unwrap()
}

pub(super) fn no_containers(ready: &Ready, before: &Mounts, ids: &[&str]) {
    nothing_kept(&ready.user, before, ids);
}

/// Asserts that nothing of these containers is left, and that a user has no others.
pub(super) fn nothing_kept(user: &User, before: &Mounts, ids: &[&str]) {
    nothing_left(user, before, ids);
    for directory in ["containers", "names"] {
        let left: Vec<_> = std::fs::read_dir(user.store().join(directory)).unwrap().collect();
        assert!(left.is_empty(), "{directory}: {left:?}");
    }
    user.check_store();
}

#[test]
fn a_detached_container_prints_its_id_logs_and_is_kept_until_it_is_removed() {
    let Some(ready) = Ready::new() else { return };
    let before = Mounts::now(&ready.user);
    let shared = ready.user.home().join("shared");
    std::fs::create_dir(&shared).unwrap();
    let volume = format!("{}:/v", shared.display());
    let script = "echo out; echo err >&2; printf 'no end'; until [ -e /v/go ]; do sleep 0.05; done; exit 7";
    let id = ready.detach(&["--name", "web", "-v", &volume], script);
    assert_eq!(ready.rbox(&["ps", "-q", "--no-trunc"]), format!("{id}\n"));
    let status = ready.status(&id).unwrap();
    assert!(status.starts_with("Up "), "{status}");
    ready.logged("web", "out");
    std::fs::write(shared.join("go"), "").unwrap();
    assert_eq!(ready.rbox(&["wait", "web"]), "7\n");
    let output = ready.user.output("rbox", &["logs", &id[..12]]);
    assert_eq!((&output.stdout[..], &output.stderr[..]), (&b"out\nno end"[..], &b"err\n"[..]));
    assert_eq!(ready.rbox(&["ps", "-q"]), "");
    assert!(ready.status(&id).unwrap().starts_with("Exited (7) "));
    let table = ready.rbox(&["ps", "-a"]);
    let headings: Vec<&str> = table.lines().next().unwrap().split("   ").map(str::trim).filter(|h| !h.is_empty()).collect();
    assert_eq!(headings, ["CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES"]);
    assert!(table.contains("\"sh -c 'echo out; ec…\"") && table.trim_end().ends_with("web"), "{table}");
    let state = &ready.inspect("web")["State"];
    assert_eq!((state["Status"].as_str(), state["ExitCode"].as_u64(), state["Pid"].as_i64()), (Some("exited"), Some(7), Some(0)));
    assert_eq!(ready.rbox(&["rm", "web"]), "web\n");
    assert!(ready.user.fail("rbox", &["logs", "web"]).contains("not found"));
    no_containers(&ready, &before, &[&id]);
}

#[test]
fn logs_are_read_while_they_are_written_from_the_end_and_by_time() {
    let Some(ready) = Ready::new() else { return };
    let id = ready.detach(&["--rm"], "for n in 1 2 3; do echo line $n; done; trap 'echo last; exit' TERM; sleep 1000 & wait");
    ready.logged(&id, "line 3");
    assert_eq!(ready.rbox(&["logs", "--tail", "2", &id]), "line 2\nline 3\n");
    assert_eq!(ready.rbox(&["logs", "-n", "0", &id]), "");
    assert_eq!(ready.rbox(&["logs", "--since", "1h", &id]).lines().count(), 3);
    assert_eq!(ready.rbox(&["logs", "--until", "1h", &id]), "");
    let stamped = ready.rbox(&["logs", "-t", &id]);
    let (time, text) = stamped.lines().next().unwrap().split_once(' ').unwrap();
    assert!(time.len() == "2026-01-31T12:00:00.123456789Z".len() && time.ends_with('Z') && text == "line 1", "{stamped}");
    assert_eq!(ready.rbox(&["logs", "--since", time, &id]).lines().count(), 3);
    // Who follows gets what comes, and ends with the container, although that goes when it ends.
    let mut follow = ready.user.command("rbox", &["logs", "-f", "--tail", "1", &id]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(follow.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "line 3");
    let mut waiting = ready.user.command("rbox", &["wait", &id]).stdout(Stdio::piped()).spawn().unwrap();
    ready.rbox(&["exec", &id, "sh", "-c", "echo not in the log"]);
    ready.rbox(&["kill", "-s", "TERM", &id]);
    assert_eq!(lines.map(Result::unwrap).collect::<Vec<_>>(), ["last"]);
    assert!(follow.wait().unwrap().success());
    assert!(waiting.wait().unwrap().success());
}

#[test]
fn long_lines_and_rotated_files_are_read_back_as_one() {
    let Some(ready) = Ready::new() else { return };
    let long = "x".repeat(100_000);
    let id = ready.detach(&[], "head -c 100000 /dev/zero | tr '\\0' x; echo; printf end");
    assert_eq!(ready.rbox(&["wait", &id]), "0\n");
    assert_eq!(ready.rbox(&["logs", &id]), format!("{long}\nend"));
    let options = ["--log-opt", "max-size=20k", "--log-opt", "max-file=3"];
    let id = ready.detach(&options, "for n in $(seq 1000); do echo line $n; done");
    ready.rbox(&["wait", &id]);
    let read = ready.rbox(&["logs", &id]);
    let numbers: Vec<usize> = read.lines().map(|line| line.strip_prefix("line ").unwrap().parse().unwrap()).collect();
    assert!(numbers.len() > 200 && numbers.len() < 1000, "three files of 20 kB: {}", numbers.len());
    assert_eq!(numbers, (1001 - numbers.len()..=1000).collect::<Vec<_>>());
    let path = ready.inspect(&id)["LogPath"].as_str().unwrap().to_owned();
    assert!(std::fs::metadata(&path).unwrap().len() <= 20 << 10 && !Path::new(&format!("{path}.3")).exists());
    let none = ready.detach(&["--log-driver", "none"], "echo unheard");
    assert_eq!(ready.rbox(&["wait", &none]), "0\n");
    assert!(ready.user.fail("rbox", &["logs", &none]).contains("none"));
}

#[test]
fn stop_asks_by_the_container_s_signal_and_kills_who_does_not_hear() {
    let Some(ready) = Ready::new() else { return };
    let before = Mounts::now(&ready.user);
    let polite = ready.detach(&[], POLITE);
    let own_signal = ready.detach(&["--stop-signal", "USR1"], "trap 'exit 44' USR1; trap '' TERM; echo up; sleep 1000 & wait");
    let deaf = ready.detach(&["--stop-timeout", "1"], "trap '' TERM; echo up; while :; do sleep 1000; done");
    let ids = [&*polite, &own_signal, &deaf];
    ids.iter().for_each(|id| ready.logged(id, "up"));
    assert_eq!(ready.rbox(&[&["stop"][..], &ids].concat()), format!("{polite}\n{own_signal}\n{deaf}\n"));
    assert_eq!(ready.rbox(&[&["wait"][..], &ids].concat()), "33\n44\n137\n");
    assert!(ready.rbox(&["logs", &polite]).ends_with("bye\n"));
    assert_eq!(ready.rbox(&["stop", &polite]), format!("{polite}\n"), "it has stopped: nothing to do");
    assert!(ready.user.fail("rbox", &["kill", &polite]).contains("not running"));
    let refused = ready.user.fail("rbox", &["stop", &deaf, "nobody"]);
    assert!(refused.contains("nobody"), "{refused}");
    ready.rbox(&[&["rm"][..], &ids].concat());
    no_containers(&ready, &before, &ids);
}

#[test]
fn a_stopped_container_starts_again_with_what_it_wrote() {
    let Some(ready) = Ready::new() else { return };
    let before = Mounts::now(&ready.user);
    let script = "echo x >> /count; wc -l < /count; trap 'exit 0' TERM; sleep 1000 & wait";
    let id = ready.detach(&["--name", "again"], script);
    ready.logged("again", "1\n");
    assert_eq!(ready.rbox(&["start", "again"]), "again\n", "it runs: nothing to do");
    assert_eq!(ready.rbox(&["restart", "-t", "30", "again"]), "again\n");
    ready.logged("again", "2\n");
    ready.rbox(&["stop", "again"]);
    let refused = ready.user.fail("rbox", &["rmi", &ready.image]);
    assert!(refused.contains("in use"), "what stands still needs its image: {refused}");
    // By force only its names go; the rest goes with the container.
    ready.rbox(&["rmi", "--force", &ready.image]);
    ready.rbox(&["start", "again"]);
    ready.logged("again", "3\n");
    let refused = ready.user.fail("rbox", &["rm", "again"]);
    assert!(refused.contains("--force"), "{refused}");
    assert_eq!(ready.rbox(&["rm", "-fv", "again", "never-was"]), "again\nnever-was\n");
    no_containers(&ready, &before, &[&id]);
    assert_eq!(ready.user.check_store(), (vec![], vec![]));
}

#[test]
fn what_cannot_be_started_says_so_as_docker_does() {
    let Some(ready) = Ready::new() else { return };
    let before = Mounts::now(&ready.user);
    for (name, options, command, code) in [
        ("nofile", &[][..], "no-such-command", 127),
        ("nodir", &[], "/etc", 126),
        ("nouser", &["-u", "nobody-here"], "true", 125),
    ] {
        let output = ready.run(&[&["-d", "--name", name], options].concat(), &[command]);
        assert_eq!(output.status.code(), Some(code), "{name}: {}", stderr(&output));
        assert!(!stderr(&output).contains("monitor"), "{}", stderr(&output));
        let id = String::from_utf8(output.stdout).unwrap();
        assert_eq!(ready.status(id.trim()).as_deref(), Some("Created"));
        assert_eq!(ready.inspect(name)["State"]["ExitCode"], code);
        ready.rbox(&["rm", name]);
    }
    let output = ready.run(&["-d", "--rm"], &["no-such-command"]);
    assert_eq!(output.status.code(), Some(127), "{}", stderr(&output));
    for (options, word) in [(&["--name", "a/b"][..], "a/b"), (&["-h", "a b"], "a b"), (&["--log-opt", "x=y"], "x=y")] {
        let output = ready.run(&[&["-d"], options].concat(), &["true"]);
        assert!(output.status.code() == Some(125) && stderr(&output).contains(word), "{}", stderr(&output));
    }
    no_containers(&ready, &before, &[]);
}

#[test]
fn exec_joins_a_container_as_its_user_or_another() {
    let Some(ready) = Ready::new() else { return };
    let id = ready.detach(&["-e", "A=1", "-w", "/usr"], POLITE);
    let exec = |options: &[&str], script: &str| ready.rbox(&[&["exec"], options, &[&id, "sh", "-c", script]].concat());
    assert_eq!(exec(&[], "id -u; pwd; echo $A"), "0\n/usr\n1\n");
    assert_eq!(
        exec(&["-u", "app", "-w", "/", "-e", "A=2"], "id; pwd; echo $A"),
        "uid=1000(app) gid=1000(app) groups=1000(app)\n/\n2\n"
    );
    assert_eq!(exec(&["-u", "app", "-e", "HOME=/own"], "echo $HOME"), "/own\n");
    let file = ready.user.home().join("env");
    std::fs::write(&file, "# two\nFROM_FILE=1\nBOTH=file\n").unwrap();
    let from_file = ["--env-file", file.to_str().unwrap(), "-e", "BOTH=flag"];
    assert_eq!(exec(&from_file, "echo $FROM_FILE $BOTH"), "1 flag\n");
    let effective = "grep CapEff /proc/self/status | cut -f2";
    assert_eq!(exec(&["--privileged"], effective), ready.sh(&["--privileged"], effective));
    assert_ne!(exec(&["--privileged"], effective), exec(&[], effective));
    assert_eq!(ready.user.output("rbox", &["exec", &id, "sh", "-c", "exit 9"]).status.code(), Some(9));
    assert_eq!(ready.user.output("rbox", &["exec", &id, "no-such-command"]).status.code(), Some(127));
    // Without -i it reads nothing.
    let cat = |options: &[&str]| {
        let args = [&["exec"], options, &[&*id, "cat"]].concat();
        let mut child = ready.user.command("rbox", &args).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        // Who does not read may have ended.
        let _ = child.stdin.take().unwrap().write_all(b"typed");
        String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap()
    };
    assert_eq!((cat(&["-i"]), cat(&[])), ("typed".into(), String::new()));
    exec(&["-d"], "sleep 1000");
    ready.rbox(&["stop", &id]);
    let refused = ready.user.fail("rbox", &["exec", &id, "true"]);
    assert!(refused.contains("not running"), "{refused}");
}

#[test]
fn input_stays_open_or_is_none_and_a_terminal_is_one() {
    let Some(ready) = Ready::new() else { return };
    let none = ready.detach(&[], "cat; echo ended");
    assert_eq!(ready.rbox(&["wait", &none]), "0\n");
    let open = ready.detach(&["-i"], "echo up; cat; echo ended");
    ready.logged(&open, "up");
    let terminal = ready.detach(&["-t"], "tty; exec 0<&- 1>&- 2>&-; sleep 1000");
    ready.logged(&terminal, "/dev/pts/0");
    assert_eq!(ready.rbox(&["ps", "-q"]).lines().count(), 2);
    // A terminal that nobody has open any more keeps nobody busy.
    let ticks = || {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", ready.monitor(&terminal))).unwrap();
        let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    };
    let (before, end) = (ticks(), Instant::now() + Duration::from_secs(1));
    wait_until("a second is over", || Instant::now() > end);
    assert!(ticks() - before < 20, "of a hundred ticks");
    ready.rbox(&["rm", "-f", &open, &terminal]);
}

#[test]
fn a_container_outlives_who_started_it() {
    let Some(ready) = Ready::new() else { return };
    let before = Mounts::now(&ready.user);
    let mut command = Command::new("sh");
    let inner = ready.command(&["-d", "--name", "orphan"], &["sh", "-c", POLITE]);
    let environment: Vec<_> = inner.get_envs().filter_map(|(name, value)| Some((name, value?))).collect();
    command.args(["-c", "\"$@\"; sleep 1000", "sh"]).arg(inner.get_program()).args(inner.get_args()).envs(environment);
    let mut shell = command.process_group(0).stdout(Stdio::piped()).spawn().unwrap();
    let mut id = String::new();
    BufReader::new(shell.stdout.take().unwrap()).read_line(&mut id).unwrap();
    ready.logged("orphan", "up");
    let group = Pid::from_raw(i32::try_from(shell.id()).unwrap()).unwrap();
    rustix::process::kill_process_group(group, Signal::KILL).unwrap();
    shell.wait().unwrap();
    assert!(ready.status(id.trim()).unwrap().starts_with("Up "));
    ready.rbox(&["stop", "orphan"]);
    assert_eq!(ready.rbox(&["wait", "orphan"]), "33\n");
    ready.rbox(&["rm", "orphan"]);
    no_containers(&ready, &before, &[id.trim()]);
}

#[test]
fn kill_nine_of_rrun_at_any_moment_leaves_a_container_or_none() {
    let Some(ready) = Ready::new() else { return };
    let before = Mounts::now(&ready.user);
    for round in 0..40_u64 {
        let name = format!("round-{round}");
        let mut child = ready
            .command(&["-d", "--name", &name], &["sh", "-c", POLITE])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let end = Instant::now() + Duration::from_micros(round * round * 60);
        while Instant::now() < end {
            std::hint::spin_loop();
        }
        // It may have ended.
        let _ = child.kill();
        child.wait().unwrap();
    }
    // What was being started comes to be, or does not; nothing is left half way.
    wait_until("nothing is being started", || {
        let monitors = processes(&ready.user).len();
        let rows = ready.rbox(&["ps", "--all", "--format", "json"]);
        assert!(rows.lines().all(|row| row.contains("\"Up ") || row.contains("\"Created\"")), "{rows}");
        // Each of these has its monitor, and nothing else of Longshore's lives.
        rows.lines().filter(|row| row.contains("\"Up ")).count() == monitors
    });
    let ids = ready.rbox(&["ps", "-aq", "--no-trunc"]);
    let ids: Vec<&str> = ids.lines().collect();
    assert!(!ids.is_empty(), "some have come to be");
    wait_until("all are removed", || ready.user.output("rbox", &[&["rm", "-f"][..], &ids].concat()).status.success());
    // What was killed before it had a container the next command clears away.
    ready.sh(&[], "true");
    no_containers(&ready, &before, &ids);
}

#[test]
fn kill_nine_of_the_monitor_ends_the_container_and_ps_says_so() {
    let Some(ready) = Ready::new() else { return };
    let before = Mounts::now(&ready.user);
    let id = ready.detach(&["--name", "kept"], "(sleep 1000 &); echo up; while :; do sleep 1000; done");
    ready.logged("kept", "up");
    let (monitor, init) = (ready.monitor(&id), ready.init());
    // No command of ours looks meanwhile: the kernel ends the one with the other.
    send(monitor, Signal::KILL);
    wait_until("the container's first process is gone", || !Path::new(&format!("/proc/{init}")).exists());
    assert_eq!(ready.rbox(&["ps", "-q"]), "");
    assert!(ready.status(&id).unwrap().starts_with("Exited (137) "));
    nothing_left(&ready.user, &before, &[&id]);
    // It can be started again, and who waits is told, too.
    ready.rbox(&["start", "kept"]);
    let waiting = ready.user.command("rbox", &["wait", "kept"]).stdout(Stdio::piped()).spawn().unwrap();
    send(ready.monitor(&id), Signal::KILL);
    assert_eq!(waiting.wait_with_output().unwrap().stdout, b"137\n");
    ready.rbox(&["rm", "kept"]);
    let id = ready.detach(&["--rm"], POLITE);
    send(ready.monitor(&id), Signal::KILL);
    wait_until("one that goes when it ends has gone", || ready.status(&id).is_none());
    no_containers(&ready, &before, &[&id]);
}

#[test]
fn kill_nine_of_everything_at_any_moment_leaves_what_can_be_removed() {
    let Some(ready) = Ready::new() else { return };
    let before = Mounts::now(&ready.user);
    let kill_all = || {
        let all = processes(&ready.user);
        for pid in &all {
            let _ = kill_process(Pid::from_raw(i32::try_from(*pid).unwrap()).unwrap(), Signal::KILL);
        }
        all.len()
    };
    for round in 0..40_u64 {
        let mut child =
            ready.command(&["-d"], &["sh", "-c", POLITE]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let end = Instant::now() + Duration::from_micros(round * round * 60);
        while Instant::now() < end {
            std::hint::spin_loop();
        }
        // The monitor too, while it is still a copy of the command or has just become itself.
        kill_all();
        child.wait().unwrap();
    }
    // One that came to be between the look and the blow.
    wait_until("every process is gone", || kill_all() == 0);
    let rows = ready.rbox(&["ps", "--all", "--no-trunc", "--format", "json"]);
    assert!(rows.lines().all(|row| row.contains("\"Exited (137)") || row.contains("\"Created\"")), "{rows}");
    let ids = ready.rbox(&["ps", "-aq", "--no-trunc"]);
    let ids: Vec<&str> = ids.lines().collect();
    assert!(!ids.is_empty(), "some have come to be");
    ready.rbox(&[&["rm"][..], &ids].concat());
    ready.sh(&[], "true");
    no_containers(&ready, &before, &ids);
}

#[test]
fn a_frozen_first_process_whose_monitor_was_killed_is_found_and_ended() {
    let Some(ready) = Ready::new() else { return };
    let id = ready.detach(&[], "echo up; exec sleep 1000");
    ready.logged(&id, "up");
    let (monitor, init) = (ready.monitor(&id), ready.init());
    send(init, Signal::STOP);
    send(monitor, Signal::KILL);
    wait_until("it is told", || ready.status(&id).is_some_and(|status| status.starts_with("Exited (137)")));
    wait_until("it is gone", || !Path::new(&format!("/proc/{init}")).exists());
    // The tie to its monitor is cut by the kernel where a program has capabilities of its own.
    let mark = format!("MARK={}", ready.user.store().display());
    let output = ready.run(&["-d", "-e", &mark, "-u", "app"], &["ping", "127.0.0.1"]);
    let id = String::from_utf8(output.stdout).unwrap().trim().to_owned();
    ready.logged(&id, "PING");
    let (monitor, init) = (ready.monitor(&id), ready.monitored(&id));
    send(monitor, Signal::KILL);
    wait_until("the monitor is gone", || !Path::new(&format!("/proc/{monitor}/exe")).exists());
    assert!(Path::new(&format!("/proc/{init}/cmdline")).exists(), "it has lost its tie");
    // A process has its files a moment longer than its program.
    wait_until("it is told", || ready.status(&id).is_some_and(|status| status.starts_with("Exited (137)")));
    wait_until("it is gone", || !Path::new(&format!("/proc/{init}")).exists());
}

#[test]
fn containers_of_one_image_share_the_mounts_of_its_layers() {
    /// `EROFS_SUPER_MAGIC_V1`.
    const EROFS: i64 = 0xe0f5_e1e2;
    let Some(ready) = Ready::new() else { return };
    let before = Mounts::now(&ready.user);
    // The file systems of images that a container's monitor has.
    let images = |id: &str| -> Vec<u64> {
        let directory = std::fs::read_dir(format!("/proc/{}/fd", ready.monitor(id))).unwrap();
        let paths = directory.map(|entry| entry.unwrap().path());
        let images = paths.filter(|path| rustix::fs::statfs(path).is_ok_and(|status| status.f_type == EROFS));
        images.map(|path| std::fs::metadata(path).unwrap().dev()).collect()
    };
    let first = ready.detach(&[], POLITE);
    let mounted = images(&first);
    if !useful(!mounted.is_empty(), "a kernel that mounts EROFS images from files") {
        return;
    }
    let second = ready.detach(&[], POLITE);
    assert_eq!(images(&second), mounted);
    // Of who was killed nothing can be taken, of the other it can.
    send(ready.monitor(&first), Signal::KILL);
    wait_until("it has ended", || ready.status(&first).unwrap().starts_with("Exited"));
    let third = ready.detach(&[], POLITE);
    assert_eq!(images(&third), mounted);
    let pids = [&second, &third].map(|id| format!("{}-", ready.monitor(id)));
    ready.rbox(&["rm", "-f", &first, &second, &third]);
    for image in std::fs::read_dir("/run/longshore/layers").unwrap().flatten() {
        let entries = std::fs::read_dir(image.path()).into_iter().flatten().flatten();
        let names = entries.map(|entry| entry.file_name().into_string().unwrap());
        names.for_each(|name| assert!(!pids.iter().any(|pid| name.starts_with(pid)), "{name} is left"));
    }
    no_containers(&ready, &before, &[&first, &second, &third]);
}

#[test]
fn what_is_stopped_just_when_it_is_started_again_stays_stopped() {
    let Some(ready) = Ready::new() else { return };
    let before = Mounts::now(&ready.user);
    let ids: Vec<String> = (0..6).map(|_| ready.detach(&["--restart", "always"], "exit 3")).collect();
    let names: Vec<&str> = ids.iter().map(String::as_str).collect();
    for _ in 0..5 {
        let stop = ready.user.command("rbox", &[&["stop"][..], &names].concat()).stdout(Stdio::null()).spawn().unwrap();
        end_while_it_runs(vec![stop]);
        for id in &ids {
            let status = ready.status(id).unwrap();
            assert!(status.starts_with("Exited (3)"), "{status}");
        }
        ready.rbox(&[&["start"][..], &names].concat());
    }
    ready.rbox(&[&["rm", "-f"][..], &names].concat());
    no_containers(&ready, &before, &names);
}

#[test]
fn root_leaves_another_user_s_directory_alone() {
    let Some(ready) = Ready::new() else { return };
    let theirs = tempfile::tempdir().unwrap();
    std::os::unix::fs::chown(theirs.path(), Some(1234), Some(1234)).unwrap();
    let mut command = ready.user.command("rrun", &["--rm", &ready.image, "true"]);
    assert!(command.env("XDG_RUNTIME_DIR", theirs.path()).status().unwrap().success());
    assert_eq!(std::fs::read_dir(theirs.path()).unwrap().count(), 0);
}

#[test]
fn a_name_is_one_container_s_however_many_ask_at_once() {
    let Some(ready) = Ready::new() else { return };
    let before = Mounts::now(&ready.user);
    let outputs: Vec<_> = std::thread::scope(|scope| {
        let start = || ready.run(&["-d", "--name", "only"], &["sleep", "1000"]);
        let threads: Vec<_> = (0..20).map(|_| scope.spawn(start)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let (won, lost): (Vec<_>, Vec<_>) = outputs.iter().partition(|output| output.status.success());
    assert_eq!(won.len(), 1);
    for output in lost {
        assert!(output.status.code() == Some(125) && stderr(output).contains("/only"), "{}", stderr(output));
    }
    let id = String::from_utf8(won[0].stdout.clone()).unwrap();
    assert_eq!(ready.rbox(&["ps", "-aq", "--no-trunc"]), id);
    ready.rbox(&["rm", "-f", "only"]);
    // The name is free.
    ready.detach(&["--name", "only", "--rm"], "true");
    wait_until("it has gone", || ready.rbox(&["ps", "-aq"]).is_empty());
    no_containers(&ready, &before, &[id.trim()]);
}

/// All are done while the container runs; which of them had it is the same to them.
fn end_while_it_runs(children: Vec<Child>) {
    for mut child in children {
        wait_until("a command that others were quicker than is done", || child.try_wait().unwrap().is_some());
        assert!(child.wait().unwrap().success());
    }
}

#[test]
fn many_start_and_restart_one_at_once_and_none_waits_for_its_end() {
    let Some(ready) = Ready::new() else { return };
    let before = Mounts::now(&ready.user);
    let id = ready.detach(&["--name", "one"], POLITE);
    ready.rbox(&["stop", "one"]);
    let quiet = |words: &[&str]| ready.user.command("rbox", words).stdout(Stdio::null()).spawn().unwrap();
    for verb in ["start", "restart"] {
        end_while_it_runs((0..8).map(|_| quiet(&[verb, "one"])).collect());
        assert_eq!(ready.inspect("one")["State"]["Running"], true, "{verb}");
    }
    // Who waits for the end of one run is not kept by the next.
    for _ in 0..8 {
        let waiting: Vec<_> = (0..4).map(|_| quiet(&["wait", "one"])).collect();
        wait_until("all of them wait", || {
            let locks = std::fs::read_to_string("/proc/locks").unwrap();
            let waits =
                |child: &Child| locks.lines().any(|line| line.contains("->") && line.contains(&format!(" {} ", child.id())));
            waiting.iter().all(waits)
        });
        let monitor = pidfd_open(Pid::from_raw(ready.monitor(&id).cast_signed()).unwrap(), PidfdFlags::empty()).unwrap();
        pidfd_send_signal(&monitor, Signal::KILL).unwrap();
        // Until it has died the container runs, and there is nothing to start.
        assert_eq!(poll(&mut [PollFd::new(&monitor, PollFlags::IN)], None).unwrap(), 1);
        let starting: Vec<_> = (0..4).map(|_| quiet(&["start", "one"])).collect();
        wait_until("it runs", || ready.inspect("one")["State"]["Running"] == true);
        end_while_it_runs(starting);
        end_while_it_runs(waiting);
    }
    // What is being started is not removed, and what is removed is not started.
    ready.rbox(&["stop", "one"]);
    let (mut start, mut rm) = (quiet(&["start", "one"]), quiet(&["rm", "one"]));
    match (start.wait().unwrap().success(), rm.wait().unwrap().success()) {
        (true, false) => drop(ready.rbox(&["rm", "-f", "one"])),
        (started, removed) => assert!(!started && removed, "{started} {removed}"),
    }
    no_containers(&ready, &before, &[&id]);
}

#[test]
fn a_detached_container_with_rm_leaves_nothing() {
    let Some(ready) = Ready::new() else { return };
    let before = Mounts::now(&ready.user);
    let cidfile = ready.user.home().join("cid");
    let script = "(sleep 1000 &); mkdir /new; rm -r /usr; echo x; exit 3";
    let id = ready.detach(&["--rm", "--cidfile", cidfile.to_str().unwrap()], script);
    assert_eq!(std::fs::read_to_string(&cidfile).unwrap(), id);
    wait_until("it has gone", || ready.status(&id).is_none());
    no_containers(&ready, &before, &[&id]);
    let refused = ready.run(&["-d", "--cidfile", cidfile.to_str().unwrap()], &["true"]);
    assert!(refused.status.code() == Some(125) && stderr(&refused).contains("cid"), "{}", stderr(&refused));
    // Killed, too.
    let id = ready.detach(&["--rm"], POLITE);
    ready.rbox(&["kill", &id]);
    wait_until("it has gone", || ready.status(&id).is_none());
    no_containers(&ready, &before, &[&id]);
}

#[test]
fn two_hundred_at_once_start_and_stop() {
    let Some(ready) = Ready::new() else { return };
    let before = Mounts::now(&ready.user);
    let timed = |count: usize| {
        let began = Instant::now();
        let ids: Vec<String> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..count).map(|_| scope.spawn(|| ready.detach(&[], POLITE))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let started = began.elapsed();
        let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
        ids.iter().for_each(|id| ready.logged(id, "up"));
        assert_eq!(ready.rbox(&["ps", "-q"]).lines().count(), count);
        let began = Instant::now();
        ready.rbox(&[&["stop", "-t", "120"][..], &ids].concat());
        let stopped = began.elapsed();
        assert_eq!(ready.rbox(&[&["wait"][..], &ids].concat()), "33\n".repeat(count));
        ready.rbox(&[&["rm"][..], &ids].concat());
        no_containers(&ready, &before, &ids);
        let _ = writeln!(std::io::stderr(), "{count} containers: started in {started:?}, stopped in {stopped:?}");
    };
    timed(50);
    timed(200);
}

#[test]
fn a_full_disk_neither_holds_up_nor_kills_a_container() {
    let Some(mut ready) = Ready::new() else { return };
    let mounted = ready.user.store();
    std::fs::remove_dir_all(&mounted).unwrap();
    std::fs::create_dir(&mounted).unwrap();
    let mount = Command::new("mount").args(["-t", "tmpfs", "-o", "size=24m,mode=700", "tmpfs"]).arg(&mounted).status().unwrap();
    assert!(mount.success());
    ready.user.succeed("rpull", &[&ready.image]);
    let script = "head -c 60000000 /dev/zero | tr '\\0' x; echo; echo 'still here' >&2; exit 5";
    let ids = [ready.detach(&[], script), ready.detach(&["--name", "second"], POLITE)];
    assert_eq!(ready.rbox(&["wait", &ids[0]]), "5\n");
    assert!(ready.status(&ids[0]).unwrap().starts_with("Exited (5) "));
    // Every entry that is there is whole.
    let path = ready.inspect(&ids[0])["LogPath"].as_str().unwrap().to_owned();
    let log = std::fs::read_to_string(&path).unwrap();
    assert!(log.len() > 1 << 20 && log.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()));
    ready.rbox(&["stop", "second"]);
    assert!(ready.status(&ids[1]).unwrap().starts_with("Exited (33) "));
    ready.rbox(&["rm", &ids[0], "second"]);
    assert_eq!(ready.rbox(&["ps", "-aq"]), "");
    assert!(Command::new("umount").arg(&mounted).status().unwrap().success());
    ready.image.clear();
}

#[test]
fn lists_are_filtered_as_dockers() {
    let Some(ready) = Ready::new() else { return };
    let id = ready.detach(&["--name", "web-1"], POLITE);
    for (name, code) in [("web-2", "0"), ("db", "3")] {
        let ended = ready.detach(&["--name", name], &format!("exit {code}"));
        ready.rbox(&["wait", &ended]);
    }
    let list = |filters: &[&str]| {
        let options: Vec<&str> = filters.iter().flat_map(|filter| ["--filter", filter]).collect();
        let rows = ready.rbox(&[&["ps", "-a", "--format", "json"][..], &options].concat());
        let name = |row: &str| serde_json::from_str::<serde_json::Value>(row).unwrap()["Names"].as_str().unwrap().to_owned();
        rows.lines().map(name).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(list(&[]), "db web-2 web-1");
    for (filters, names) in [
        (&["name=web"][..], "web-2 web-1"),
        (&["name=^/db$"], "db"),
        (&["status=exited"], "db web-2"),
        (&["status=running"], "web-1"),
        (&["status=exited", "name=web"], "web-2"),
        (&["exited=3"], "db"),
        (&[&format!("id={}", &id[..10])], "web-1"),
        (&[&format!("ancestor={}", ready.image)], "db web-2 web-1"),
        (&["ancestor=other"], ""),
        (&["name=db", "name=web-1"], "db web-1"),
    ] {
        assert_eq!(list(filters), names, "{filters:?}");
    }
    assert!(ready.rbox(&["ps", "-l"]).contains("db"));
    assert!(ready.user.fail("rbox", &["ps", "--filter", "nonsense=1"]).contains("nonsense"));
    // An image is still an image, and what is neither is said to be.
    assert!(ready.rbox(&["inspect", &ready.image]).contains("RepoTags"));
    ready.rbox(&["rm", "-f", "web-1", "web-2", "db"]);
}
