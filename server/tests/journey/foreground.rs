//! `rrun` without `--detach`: kept and attached to, or with `--rm` the command's own; listed in both cases.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use longshore_runtime::name::Digest;
use rustix::process::{Pid, Signal, kill_process};

use super::common::needs::useful;
use super::common::wait_until;
use super::detached::{POLITE, no_containers};
use super::fixture::{Mounts, Ready, processes, send};
use super::rootless::{Ordinary, RANGE};
use super::tools::stderr;

impl Ready {
    fn mark(&self) -> String {
        format!("MARK={}", self.user.store().display())
    }

    /// `rrun OPTIONS IMAGE sh -c SCRIPT`, with pipes.
    fn spawn_run(&self, options: &[&str], script: &str) -> Child {
        let mut command = self.command(&[&["-e", &self.mark()], options].concat(), &["sh", "-c", script]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// A command of the client's on a terminal of 33 lines and 99 columns. The terminal's name is in the file `tty`.
    fn typed_at(&self, program: &str, args: &[&str]) -> Terminal {
        let inner = self.user.command(program, args);
        let words = std::iter::once(inner.get_program()).chain(inner.get_args());
        let words: Vec<String> = words.map(|word| format!("'{}'", word.to_str().unwrap())).collect();
        let name = self.user.home().join("tty");
        let line = format!("stty rows 33 cols 99; tty >{}; exec {}", name.display(), words.join(" "));
        let mut terminal = Command::new("script");
        terminal.args(["-qec", &line, "/dev/null"]);
        terminal.envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let mut child = terminal.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (out, stdin) = (BufReader::new(child.stdout.take().unwrap()), child.stdin.take());
        Terminal { child, out, stdin }
    }
}

/// A terminal on which a command runs.
struct Terminal {
    child: Child,
    out: BufReader<std::process::ChildStdout>,
    stdin: Option<std::process::ChildStdin>,
}

impl Terminal {
    fn type_in(&mut self, text: &[u8]) {
        self.stdin.as_mut().unwrap().write_all(text).unwrap();
    }

    /// Reads until there is a line that ends so.
    fn see(&mut self, ending: &str) {
        let mut seen = String::new();
        while !seen.trim_end().ends_with(ending) {
            let before = seen.len();
            self.out.read_line(&mut seen).unwrap();
            assert!(seen.len() > before, "it ended without {ending:?}: {seen:?}");
        }
    }

    /// What else is seen, and the exit code.
    fn finish(mut self) -> (String, i32) {
        let mut rest = String::new();
        self.out.read_to_string(&mut rest).unwrap();
        (rest, self.child.wait().unwrap().code().unwrap())
    }
}

fn has_script() -> bool {
    useful(super::common::needs::installed("script"), "script")
}

/// Waits for that long, which is what is tested.
fn let_pass(time: Duration) {
    let end = Instant::now() + time;
    wait_until("it is over", || Instant::now() > end);
}

#[test]
fn what_every_course_teaches_works() {
    let Some(ready) = Ready::new() else { return };
    if !has_script() {
        return;
    }
    let before = Mounts::now(&ready.user);
    let mut first = ready.typed_at("rrun", &["-it", "-e", &ready.mark(), "--name", "box", &ready.image, "sh"]);
    // Its input waits until somebody is attached to read it.
    first.type_in(b"stty size; echo $((6 * 7)) > /kept; echo is $((6 * 7))\n");
    first.see("33 99");
    first.see("is 42");
    assert!(ready.rbox(&["ps"]).contains("box"), "in a second terminal");
    assert_eq!(ready.rbox(&["exec", "box", "cat", "/kept"]), "42\n");
    let tty = std::fs::read_to_string(ready.user.home().join("tty")).unwrap();
    first.type_in(b"sh -c 'trap \"stty size; exit\" WINCH; echo re\"\"ady; while :; do sleep 0.05; done'\n");
    first.see("ready");
    assert!(Command::new("stty").args(["-F", tty.trim(), "rows", "40", "cols", "120"]).status().unwrap().success());
    first.see("40 120");
    first.type_in(b"exit 3\n");
    assert_eq!(first.finish().1, 3);
    let id = ready.inspect("box")["Id"].as_str().unwrap().to_owned();
    assert!(ready.status(&id).unwrap().starts_with("Exited (3) "));
    // Started again it has what it wrote.
    let mut again = ready.typed_at("rbox", &["start", "-ai", "box"]);
    again.type_in(b"echo again $(cat /kept)\n");
    again.see("again 42");
    again.type_in(b"exit 4\n");
    assert_eq!(again.finish().1, 4);
    let log = ready.rbox(&["logs", "box"]);
    assert!(log.contains("is 42") && log.contains("again 42"), "{log}");
    assert_eq!(ready.rbox(&["rm", "box"]), "box\n");
    // With --rm it has gone at once.
    let mut third = ready.typed_at("rrun", &["--rm", "-it", "-e", &ready.mark(), "--name", "box", &ready.image, "sh"]);
    third.type_in(b"echo he''re\n");
    third.see("here");
    assert!(ready.rbox(&["logs", "box"]).contains("here"));
    third.type_in(b"exit 5\n");
    assert_eq!(third.finish().1, 5);
    wait_until("it has gone", || ready.rbox(&["ps", "-aq"]).is_empty());
    no_containers(&ready, &before, &[&id]);
}

#[test]
fn the_detach_keys_leave_a_container_of_rrun_running() {
    let Some(ready) = Ready::new() else { return };
    if !has_script() {
        return;
    }
    let before = Mounts::now(&ready.user);
    for (keys, option) in [(&b"\x10\x11"[..], &[][..]), (b"\x01x", &["--detach-keys", "ctrl-a,x"])] {
        let mark = ready.mark();
        let args = [&["-it", "-e", &mark, "--name", "box"], option, &[&ready.image, "sh"]].concat();
        let mut terminal = ready.typed_at("rrun", &args);
        // What is typed comes back, too.
        terminal.type_in(b"echo u''p\n");
        terminal.see("up");
        terminal.type_in(keys);
        let (rest, code) = terminal.finish();
        assert!(rest.contains("read escape sequence") && code == 0, "{code}: {rest:?}");
        assert!(ready.rbox(&["ps"]).contains("box"));
        let mut attached = ready.typed_at("rbox", &["attach", "box"]);
        attached.type_in(b"echo fou''nd\nexit 6\n");
        attached.see("found");
        assert_eq!(attached.finish().1, 6);
        ready.rbox(&["rm", "box"]);
    }
    no_containers(&ready, &before, &[]);
}

#[test]
fn a_kept_container_gives_its_streams_and_its_exit_code_and_is_there_afterwards() {
    let Some(ready) = Ready::new() else { return };
    let before = Mounts::now(&ready.user);
    let cidfile = ready.user.home().join("cid");
    let output =
        ready.run(&["--name", "one", "--cidfile", cidfile.to_str().unwrap()], &["sh", "-c", "echo out; echo err >&2; exit 7"]);
    assert_eq!((output.status.code(), &output.stdout[..], &output.stderr[..]), (Some(7), &b"out\n"[..], &b"err\n"[..]));
    let id = std::fs::read_to_string(&cidfile).unwrap();
    assert!(ready.status(&id).unwrap().starts_with("Exited (7) "));
    assert_eq!(ready.rbox(&["logs", "one"]), "out\n");
    let taken = ready.run(&["--name", "one"], &["true"]);
    assert!(taken.status.code() == Some(125) && stderr(&taken).contains("in use"), "{}", stderr(&taken));
    for (name, command, code) in [("nofile", "no-such-command", 127), ("nodir", "/etc", 126)] {
        let output = ready.run(&["--name", name], &[command]);
        assert_eq!((output.status.code(), &output.stdout[..]), (Some(code), &b""[..]), "{}", stderr(&output));
        assert_eq!(ready.inspect(name)["State"]["Status"], "created");
    }
    // What is not attached to is not shown.
    let says = "echo out; echo err >&2";
    let shown = |options: &[&str]| {
        let output = ready.run(&[&["--rm"], options].concat(), &["sh", "-c", says]);
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    assert_eq!(shown(&["-a", "stdout"]), ("out\n".into(), String::new()));
    assert_eq!(shown(&["-a", "STDERR"]), (String::new(), "err\n".into()));
    let (printed, errors) = shown(&["-i", "-a", "stdin"]);
    assert!(printed.trim_end().len() == 64 && errors.is_empty(), "the ID, as with docker: {printed:?} {errors:?}");
    // Of several runs it is the first whose end is waited for.
    let output = ready.run(&["--name", "retried", "--restart", "on-failure:1"], &["sh", "-c", "echo run; exit 8"]);
    assert_eq!((output.status.code(), &output.stdout[..]), (Some(8), &b"run\n"[..]), "{}", stderr(&output));
    ready.rbox(&["wait", "retried"]);
    assert_eq!(ready.rbox(&["logs", "retried"]), "run\nrun\n");
    ready.rbox(&["rm", "one", "nofile", "nodir", "retried"]);
    no_containers(&ready, &before, &[&id]);
}

#[test]
fn a_health_check_is_run_beside_a_container_in_the_foreground_too() {
    let Some(ready) = Ready::new() else { return };
    let before = Mounts::now(&ready.user);
    let options = ["--rm", "--name", "well", "--health-cmd", "true", "--health-interval", "50ms"];
    let mut running = ready.spawn_run(&options, POLITE);
    wait_until("it is well", || ready.rbox(&["ps", "--filter", "health=healthy", "--format", "json"]).contains("well"));
    ready.rbox(&["stop", "well"]);
    assert_eq!(running.wait().unwrap().code(), Some(33));
    no_containers(&ready, &before, &[]);
}

#[test]
fn all_that_is_piped_in_is_read_and_its_end_is_the_end() {
    let Some(ready) = Ready::new() else { return };
    let before = Mounts::now(&ready.user);
    let long: Vec<u8> = (0..3_000_000_u32).map(|n| (n ^ n >> 8) as u8).collect();
    let mut child = ready.spawn_run(&["-i", "--name", "cat", "--log-driver", "none"], "cat; echo end >&2");
    let mut stdin = child.stdin.take().unwrap();
    let output = std::thread::scope(|scope| {
        scope.spawn(|| {
            stdin.write_all(&long).unwrap();
            drop(stdin);
        });
        child.wait_with_output().unwrap()
    });
    assert!(output.stdout == long, "{} bytes", output.stdout.len());
    assert_eq!((output.status.code(), stderr(&output).as_str()), (Some(0), "end\n"));
    // Without -i nobody reads.
    let output = ready.spawn_run(&["--rm", "-a", "stdout"], "cat").wait_with_output().unwrap();
    assert_eq!((output.status.code(), &output.stdout[..]), (Some(0), &b""[..]));
    // Whoever typed and is gone has come to the end, too.
    let mut killed = ready.spawn_run(&["-i", "--name", "left"], "echo up; cat; echo ended");
    ready_line(&mut killed, "up");
    killed.kill().unwrap();
    killed.wait().unwrap();
    ready.logged("left", "ended");
    ready.rbox(&["wait", "left"]);
    ready.rbox(&["rm", "cat", "left"]);
    no_containers(&ready, &before, &[]);
}

/// Waits for a line of output, and gives what comes after it.
fn ready_line(child: &mut Child, line: &str) -> BufReader<std::process::ChildStdout> {
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut read = String::new();
    out.read_line(&mut read).unwrap();
    assert_eq!(read.trim_end(), line);
    out
}

#[test]
fn who_reads_slowly_loses_nothing() {
    let Some(ready) = Ready::new() else { return };
    let before = Mounts::now(&ready.user);
    const LINES: usize = 12_500;
    let script = format!(
        "i=0; while [ $i -lt 5 ]; do i=$((i+1)); head -c {} /dev/zero | tr '\\0' $i | fold -w 4000; done; exit 5",
        LINES / 5 * 4000
    );
    let mut child = ready.spawn_run(&["--name", "flood"], &script);
    let mut out = child.stdout.take().unwrap();
    let mut first = vec![0; 100_000];
    out.read_exact(&mut first).unwrap();
    // Nobody reads, and then there is nobody who could.
    let log = || std::fs::metadata(ready.inspect("flood")["LogPath"].as_str().unwrap()).unwrap().len();
    let_pass(Duration::from_millis(1200));
    let held = log();
    let_pass(Duration::from_millis(200));
    assert!(held < 10_000_000 && held == log(), "the container is held up: {held}");
    send(child.id(), Signal::STOP);
    let_pass(Duration::from_millis(1200));
    assert!(ready.rbox(&["ps"]).contains("flood") && held == log(), "a reader that was stopped holds it up, too");
    send(child.id(), Signal::CONT);
    let mut rest = Vec::new();
    out.read_to_end(&mut rest).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(5));
    let mut expected = Vec::new();
    for digit in 1..=5 {
        let line = [vec![b'0' + digit; 4000], vec![b'\n']].concat();
        let lines = line.repeat(LINES / 5);
        // Without the line feed that nothing follows.
        expected.extend(&lines[..lines.len() - 1]);
    }
    let all = [first, rest].concat();
    assert_eq!((all.len(), Digest::of(&all)), (expected.len(), Digest::of(&expected)));
    let logged = ready.user.output("rbox", &["logs", "flood"]).stdout;
    assert!(logged == all, "the log has it, too: {} bytes", logged.len());
    ready.rbox(&["rm", "flood"]);
    no_containers(&ready, &before, &[]);
}

#[test]
fn signals_reach_a_container_whose_output_nobody_takes_and_its_end_waits_for_no_reader() {
    let Some(ready) = Ready::new() else { return };
    let before = Mounts::now(&ready.user);
    for (signal, name) in [(Signal::TERM, "TERM"), (Signal::INT, "INT")] {
        let script = format!("trap 'exit 33' {name}; echo up; (yes 0123456789 | head -c 30000000) & wait");
        let mut child = ready.spawn_run(&["--name", "full"], &script);
        let mut out = ready_line(&mut child, "up");
        let log = || std::fs::metadata(ready.inspect("full")["LogPath"].as_str().unwrap()).unwrap().len();
        wait_until("it is held up", || {
            let size = log();
            let_pass(Duration::from_millis(200));
            size > 50_000 && size == log()
        });
        send(child.id(), signal);
        // Others see that it has ended while its last words are still to be read.
        assert_eq!(ready.rbox(&["wait", "full"]), "33\n");
        ready.rbox(&["rm", "full"]);
        assert!(child.try_wait().unwrap().is_none(), "rrun has more to show");
        let mut rest = String::new();
        out.read_to_string(&mut rest).unwrap();
        assert!(rest.len() > 50_000 && rest.lines().rev().skip(1).all(|line| line == "0123456789"));
        assert_eq!(child.wait().unwrap().code(), Some(33));
    }
    // Without --sig-proxy they are the command's own, and the container goes on.
    let mut child = ready.spawn_run(&["--name", "alone", "--sig-proxy=false"], POLITE);
    drop(ready_line(&mut child, "up"));
    send(child.id(), Signal::TERM);
    assert_eq!(child.wait().unwrap().code(), None);
    assert!(ready.rbox(&["ps"]).contains("alone"));
    ready.rbox(&["rm", "-f", "alone"]);
    no_containers(&ready, &before, &[]);
}

#[test]
fn a_kept_container_outlives_its_rrun_and_who_has_read_enough() {
    let Some(ready) = Ready::new() else { return };
    let before = Mounts::now(&ready.user);
    let mut child = ready.spawn_run(&["--name", "orphan"], POLITE);
    let out = ready_line(&mut child, "up");
    child.kill().unwrap();
    child.wait().unwrap();
    drop(out);
    assert_eq!(ready.rbox(&["exec", "orphan", "echo", "lives"]), "lives\n");
    ready.rbox(&["stop", "orphan"]);
    assert_eq!(ready.rbox(&["wait", "orphan"]), "33\n");
    ready.logged("orphan", "bye");
    let mut unread = ready.spawn_run(&["--name", "unread"], "trap 'exit 34' TERM; while :; do echo line; sleep 0.01; done");
    drop(ready_line(&mut unread, "line"));
    assert_eq!(unread.wait().unwrap().code(), Some(128 + 13));
    assert!(ready.rbox(&["ps"]).contains("unread"));
    ready.rbox(&["stop", "unread"]);
    assert_eq!(ready.rbox(&["wait", "unread"]), "34\n");
    ready.rbox(&["rm", "orphan", "unread"]);
    no_containers(&ready, &before, &[]);
}

#[test]
fn with_rm_and_no_terminal_it_is_the_command_s_own_and_listed_all_the_same() {
    let Some(ready) = Ready::new() else { return };
    let before = Mounts::now(&ready.user);
    let mut child = ready.spawn_run(&["--rm", "--name", "own", "--label", "tier=web"], POLITE);
    let mut out = ready_line(&mut child, "up");
    let row: serde_json::Value = serde_json::from_str(ready.rbox(&["ps", "--no-trunc", "--format", "json"]).trim()).unwrap();
    let id = row["ID"].as_str().unwrap().to_owned();
    assert!(row["Names"] == "own" && row["Status"].as_str().unwrap().starts_with("Up "), "{row}");
    let monitors = processes(&ready.user)
        .into_iter()
        .filter(|pid| std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|words| words.starts_with(b"longshore-monitor")));
    assert_eq!(monitors.count(), 0);
    assert_eq!(ready.rbox(&["exec", "own", "echo", "inside"]), "inside\n");
    assert_eq!(ready.inspect("own")["State"]["Running"], true);
    assert!(ready.rbox(&["top", "own"]).contains("sleep 1000"));
    assert!(ready.rbox(&["stats", "--no-stream"]).contains("own"));
    let file = ready.user.home().join("file");
    std::fs::write(&file, "copied").unwrap();
    ready.rbox(&["cp", file.to_str().unwrap(), "own:/file"]);
    assert_eq!(ready.rbox(&["exec", "own", "cat", "/file"]), "copied");
    ready.rbox(&["pause", "own"]);
    assert!(ready.status(&id).unwrap().ends_with("(Paused)"));
    ready.rbox(&["unpause", "own"]);
    for (verb, why) in [("logs", "rrun --rm"), ("attach", "rrun --rm"), ("rm", "--force")] {
        let said = ready.user.fail("rbox", &[verb, "own"]);
        assert!(said.contains(why), "{verb}: {said}");
    }
    assert_eq!(ready.run(&["--rm", "--name", "own"], &["true"]).status.code(), Some(125), "its name is taken");
    ready.rbox(&["rename", "own", "renamed"]);
    assert_eq!(ready.rbox(&["start", "renamed"]), "renamed\n", "it runs: nothing to do");
    let mut waiting = ready.user.command("rbox", &["wait", "renamed"]).stdout(Stdio::piped()).spawn().unwrap();
    ready.rbox(&["stop", "renamed"]);
    let mut rest = String::new();
    out.read_to_string(&mut rest).unwrap();
    assert_eq!((rest.as_str(), child.wait().unwrap().code()), ("bye\n", Some(33)));
    waiting.wait().unwrap();
    let told = ready.rbox(&["events", "--until", "0s", "--filter", &format!("container={id}"), "--format", "json"]);
    let actions: Vec<String> = told
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["Action"].as_str().unwrap().to_owned())
        // Who sends a signal says so afterwards: by then it may have ended.
        .filter(|action| !action.starts_with("exec") && action != "kill")
        .collect();
    assert_eq!(actions, ["create", "start", "pause", "unpause", "rename", "die", "destroy", "stop"]);
    // By force it ends and goes; by --log-driver it is logged.
    let mut child = ready.spawn_run(&["--rm", "--name", "forced"], POLITE);
    drop(ready_line(&mut child, "up"));
    ready.rbox(&["rm", "-f", "forced"]);
    assert_eq!(child.wait().unwrap().code(), Some(137));
    let mut child = ready.spawn_run(&["--rm", "--name", "logged", "--log-driver", "json-file"], POLITE);
    ready.rbox(&["ps"]);
    drop(ready_line(&mut child, "up"));
    ready.logged("logged", "up");
    ready.rbox(&["rm", "-f", "logged"]);
    child.wait().unwrap();
    no_containers(&ready, &before, &[&id]);
}

#[test]
fn a_command_that_its_terminal_has_stopped_does_not_hold_up_who_stops_its_container() {
    let Some(ready) = Ready::new() else { return };
    let before = Mounts::now(&ready.user);
    let mut child = ready.spawn_run(&["--rm", "--name", "job"], POLITE);
    drop(ready_line(&mut child, "up"));
    wait_until("it is said to run", || ready.rbox(&["ps"]).contains("job"));
    send(child.id(), Signal::STOP);
    ready.rbox(&["stop", "job"]);
    assert_eq!(child.wait().unwrap().code(), Some(33));
    no_containers(&ready, &before, &[]);
}

#[test]
fn kill_nine_of_rrun_with_rm_at_any_moment_leaves_nothing() {
    let Some(ready) = Ready::new() else { return };
    let before = Mounts::now(&ready.user);
    for round in 0..30_u64 {
        let mut child = ready.spawn_run(&["--rm", "--name", "short"], POLITE);
        let end = Instant::now() + Duration::from_micros(round * 1500);
        while Instant::now() < end {
            std::hint::spin_loop();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        wait_until("every process is gone", || processes(&ready.user).is_empty());
    }
    // What was killed before it had a guard is the next command's to remove.
    ready.sh(&["--name", "short"], "true");
    no_containers(&ready, &before, &[]);
}

#[test]
fn without_its_guard_a_killed_command_s_container_is_removed_by_who_looks_next() {
    let Some(ready) = Ready::new() else { return };
    let before = Mounts::now(&ready.user);
    for started in [true, false] {
        let mut child = ready.spawn_run(&["--rm", "--name", "short"], POLITE);
        drop(ready_line(&mut child, "up"));
        let is_guard = |pid: &u32| {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            status.contains(&format!("PPid:\t{}\n", child.id())) && !super::fixture::is_init(pid)
        };
        let guard = processes(&ready.user).into_iter().find(is_guard).expect("its guard");
        for pid in [guard, child.id()] {
            kill_process(Pid::from_raw(i32::try_from(pid).unwrap()).unwrap(), Signal::KILL).unwrap();
        }
        child.wait().unwrap();
        wait_until("every process is gone", || processes(&ready.user).is_empty());
        if !started {
            // As it stands just before it is started.
            let id = super::fixture::only_container(&ready.user);
            let path = ready.user.store().join("containers").join(id).join("status.json");
            let text = std::fs::read_to_string(&path).unwrap();
            std::fs::write(&path, text.replace("\"running\"", "\"created\"")).unwrap();
        }
        assert_eq!(ready.rbox(&["ps", "-aq"]), "");
    }
    // The lease is stale; the next command clears it.
    ready.sh(&[], "true");
    no_containers(&ready, &before, &[]);
}

#[test]
fn an_ordinary_user_s_containers_in_the_foreground_are_kept_and_listed_too() {
    let Some(ready) = Ready::new() else { return };
    let Some(ordinary) = Ordinary::new(RANGE) else { return };
    ordinary.succeed("rpull", &[&ready.image]);
    let before = Mounts::now(&ordinary.user);
    let output = ordinary.output("rrun", &["--name", "one", &ready.image, "sh", "-c", "echo out; echo err >&2; exit 7"]);
    assert_eq!((output.status.code(), &output.stdout[..], &output.stderr[..]), (Some(7), &b"out\n"[..], &b"err\n"[..]));
    assert_eq!(ordinary.succeed("rbox", &["logs", "one"]), "out\n");
    ordinary.succeed("rbox", &["rm", "one"]);
    let mark = format!("MARK={}", ordinary.user.store().display());
    let run = |killed: bool| {
        let mut command = ordinary.command("rrun", &["--rm", "--name", "own", "-e", &mark, &ready.image, "sh", "-c", POLITE]);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        drop(ready_line(&mut child, "up"));
        assert!(ordinary.succeed("rbox", &["ps"]).contains("own"));
        assert_eq!(ordinary.succeed("rbox", &["exec", "own", "echo", "inside"]), "inside\n");
        if killed {
            child.kill().unwrap();
            child.wait().unwrap();
        } else {
            ordinary.succeed("rbox", &["stop", "own"]);
            assert_eq!(child.wait().unwrap().code(), Some(33));
        }
        wait_until("every process is gone", || processes(&ordinary.user).is_empty());
        for directory in ["containers", "names"] {
            let left: Vec<_> = std::fs::read_dir(ordinary.user.store().join(directory)).unwrap().collect();
            assert!(left.is_empty(), "{directory}: {left:?}");
        }
    };
    run(false);
    run(true);
    super::fixture::nothing_left(&ordinary.user, &before, &[]);
}
