//! The life of a container: made, started again by its policy, watched over, attached to, changed, told of.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::common::needs::useful;
use super::common::wait_until;
use super::detached::{POLITE, no_containers};
use super::fixture::{Mounts, Ready, processes, send};
use super::tools::stderr;

impl Ready {
    /// `rbox create OPTIONS IMAGE sh -c SCRIPT`: the ID it prints.
    fn create(&self, options: &[&str], script: &str) -> String {
        let mark = format!("MARK={}", self.user.store().display());
        let args = [&["create", "-e", &mark], options, &[&self.image, "sh", "-c", script]].concat();
        self.rbox(&args).trim_end().to_owned()
    }

    /// What `rrun -d OPTIONS` that must fail says.
    fn refused(&self, options: &[&str]) -> String {
        let output = self.run(options, &["true"]);
        assert_eq!((output.status.code(), &output.stdout[..]), (Some(125), &b""[..]), "{options:?}: {}", stderr(&output));
        stderr(&output)
    }

    fn wait_for_status(&self, id: &str, beginning: &str) {
        wait_until(&format!("it is {beginning:?}"), || self.status(id).is_some_and(|status| status.starts_with(beginning)));
    }

    fn runs(&self, container: &str) -> usize {
        self.rbox(&["logs", container]).matches("run").count()
    }

    /// Ends a container from within: nobody has stopped it.
    fn end(&self, container: &str) {
        // The command may go with the container.
        self.user.output("rbox", &["exec", container, "sh", "-c", "kill -TERM 1"]);
    }

    fn spawn(&self, args: &[&str]) -> Child {
        let mut command = self.user.command("rbox", args);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// `rbox ARGS` on a terminal.
    fn on_terminal(&self, args: &[&str]) -> Child {
        let rbox = self.user.command("rbox", args);
        let words: Vec<&str> =
            std::iter::once(rbox.get_program()).chain(rbox.get_args()).map(|word| word.to_str().unwrap()).collect();
        let mut terminal = Command::new("script");
        terminal.args(["-qec", &words.join(" "), "/dev/null"]);
        terminal.envs(rbox.get_envs().filter_map(|(name, value)| Some((name, value?))));
        terminal.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap()
    }
}

#[test]
fn a_failure_is_retried_as_often_as_asked_for_and_a_success_is_not() {
    let Some(ready) = Ready::new() else { return };
    let before = Mounts::now(&ready.user);
    let failing = ready.detach(&["--restart", "on-failure:2"], "echo run; exit 3");
    assert_eq!(ready.rbox(&["wait", &failing]), "3\n", "who waits waits for the last end");
    assert_eq!(ready.runs(&failing), 3);
    let inspected = ready.inspect(&failing);
    assert_eq!((inspected["RestartCount"].as_u64(), inspected["State"]["ExitCode"].as_u64()), (Some(2), Some(3)));
    assert_eq!(inspected["HostConfig"]["RestartPolicy"], serde_json::json!({"Name": "on-failure", "MaximumRetryCount": 2}));
    assert!(ready.status(&failing).unwrap().starts_with("Exited (3)"));
    // Started by hand it counts anew.
    ready.rbox(&["start", &failing]);
    assert_eq!(ready.rbox(&["wait", &failing]), "3\n");
    assert_eq!(ready.runs(&failing), 6);
    let well = ready.detach(&["--restart", "on-failure"], "echo run");
    assert_eq!(ready.rbox(&["wait", &well]), "0\n");
    assert_eq!((ready.runs(&well), ready.inspect(&well)["RestartCount"].as_u64()), (1, Some(0)));
    ready.rbox(&["rm", &failing, &well]);
    no_containers(&ready, &before, &[&failing, &well]);
}

#[test]
fn what_always_runs_ends_by_stop_kill_and_rm_and_by_nothing_else() {
    let Some(ready) = Ready::new() else { return };
    let before = Mounts::now(&ready.user);
    let mut ids = Vec::new();
    for (policy, end) in [("always", &["stop"][..]), ("unless-stopped", &["kill"]), ("always", &["rm", "-f"])] {
        let id = ready.detach(&["--restart", policy], "echo run; exit 1");
        // Each delay is twice the one before: soon it is found waiting.
        wait_until("it has been started again", || ready.runs(&id) > 3);
        ready.wait_for_status(&id, "Restarting (1) ");
        let state = &ready.inspect(&id)["State"];
        assert_eq!(
            (state["Status"].as_str(), state["Running"].as_bool(), state["Restarting"].as_bool()),
            (Some("restarting"), Some(true), Some(true))
        );
        assert!(ready.rbox(&["ps", "-q", "--no-trunc"]).contains(&id), "docker lists it without --all");
        assert_eq!(ready.rbox(&["ps", "-q", "--no-trunc", "--filter", "status=restarting"]), format!("{id}\n"));
        let began = Instant::now();
        ready.rbox(&[end, &[&id]].concat());
        assert!(began.elapsed() < Duration::from_secs(5), "nobody waits for the delay");
        if end[0] != "rm" {
            ready.wait_for_status(&id, "Exited (1) ");
            let runs = ready.runs(&id);
            ready.rbox(&["start", &id]);
            wait_until("its policy is at work again", || ready.runs(&id) > runs + 2);
            ready.rbox(&["rm", "-f", &id]);
        }
        ids.push(id);
    }
    // One that runs.
    let id = ready.detach(&["--restart", "always"], POLITE);
    ready.logged(&id, "up");
    ready.rbox(&["stop", &id]);
    assert!(ready.status(&id).unwrap().starts_with("Exited (33)"));
    ready.rbox(&["start", &id]);
    ready.end(&id);
    wait_until("it was not stopped: it runs again", || ready.inspect(&id)["RestartCount"] == 1);
    ready.wait_for_status(&id, "Up ");
    ready.rbox(&["restart", &id]);
    assert_eq!(ready.inspect(&id)["RestartCount"], 0);
    ready.rbox(&["kill", "-s", "USR1", &id]);
    ready.rbox(&["kill", &id]);
    ready.wait_for_status(&id, "Exited (137)");
    ready.rbox(&["rm", &id]);
    ids.push(id);
    no_containers(&ready, &before, &ids.iter().map(String::as_str).collect::<Vec<_>>());
}

#[test]
fn while_it_waits_to_start_again_a_container_is_one_process_that_may_be_killed() {
    let Some(ready) = Ready::new() else { return };
    let before = Mounts::now(&ready.user);
    let check = ["--health-cmd", "sleep 1000", "--health-interval", "1ms"];
    let id = ready.detach(&[&["--restart", "always", "--name", "again"], &check[..]].concat(), "echo run; sleep 0.05; exit 1");
    wait_until("its delay is a second and more", || ready.runs("again") > 5);
    ready.wait_for_status(&id, "Restarting");
    let monitor = ready.monitor(&id);
    // It says so first, and then lets go.
    wait_until("it has few descriptors", || std::fs::read_dir(format!("/proc/{monitor}/fd")).unwrap().count() <= 6);
    assert_eq!(
        std::fs::read_to_string(format!("/proc/{monitor}/task/{monitor}/children")).unwrap(),
        "",
        "nobody is left of a look"
    );
    send(monitor, Signal::KILL);
    ready.wait_for_status(&id, "Exited (1");
    // The machine starts it again, as it does all that were not stopped.
    assert_eq!(ready.rbox(&["system", "boot"]), "again\n");
    ready.wait_for_status(&id, "Restarting");
    ready.rbox(&["rm", "-f", "again"]);
    no_containers(&ready, &before, &[&id]);
}

#[test]
fn kill_nine_of_the_monitor_at_any_moment_between_two_runs_leaves_one_that_has_ended() {
    let Some(ready) = Ready::new() else { return };
    let before = Mounts::now(&ready.user);
    let options = ["--restart", "always", "--health-cmd", "true", "--health-interval", "5ms"];
    let mut ids = Vec::new();
    for round in 0..25_u64 {
        let id = ready.detach(&options, "sleep 0.01; exit 1");
        std::thread::sleep(Duration::from_millis(20 + round * 11));
        // While it executes itself anew its words are not there for a moment.
        wait_until("the monitor is found and killed", || {
            let is_it = |pid: &u32| {
                let words = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                words.starts_with(format!("longshore-monitor\0{id}\0").as_bytes())
            };
            let kill = |pid: u32| kill_process(Pid::from_raw(i32::try_from(pid).unwrap()).unwrap(), Signal::KILL).is_ok();
            processes(&ready.user).into_iter().filter(is_it).map(kill).fold(false, |killed, one| killed | one)
        });
        ready.wait_for_status(&id, "Exited (1");
        ids.push(id);
    }
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    ready.rbox(&[&["rm"][..], &ids].concat());
    no_containers(&ready, &before, &ids);
}

#[test]
fn when_the_machine_starts_each_policy_means_what_it_says() {
    let Some(ready) = Ready::new() else { return };
    let before = Mounts::now(&ready.user);
    let mut ids = Vec::new();
    for (name, policy, stopped) in [
        ("always", "always", false),
        ("always-stopped", "always", true),
        ("unless", "unless-stopped", false),
        ("unless-stopped", "unless-stopped", true),
        ("failed", "on-failure", false),
        ("no", "no", false),
    ] {
        let id = ready.detach(&["--name", name, "--restart", policy], POLITE);
        ready.logged(name, "up");
        if stopped {
            ready.rbox(&["stop", name]);
        } else {
            send(ready.monitor(&id), Signal::KILL);
            ready.wait_for_status(&id, "Exited (137)");
            // As after a start of the machine: numbers of processes mean nothing any more.
            let path = ready.user.store().join("containers").join(&id).join("status.json");
            let mut status: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
            for (key, value) in [("boot", "another".into()), ("phase", "running".into()), ("pid", 1.into())] {
                status[key] = value;
            }
            std::fs::write(&path, status.to_string()).unwrap();
        }
        ids.push(id);
    }
    ready.create(&["--name", "never", "--restart", "always"], POLITE);
    assert_eq!(ready.rbox(&["ps", "-q"]), "");
    assert_eq!(ready.rbox(&["system", "boot"]), "always\nalways-stopped\nunless\nfailed\n");
    assert_eq!(ready.rbox(&["ps", "-q"]).lines().count(), 4);
    assert_eq!(ready.rbox(&["system", "boot"]), "", "all that should run runs");
    let unit = ready.rbox(&["system", "generate-systemd"]);
    let store = ready.user.store().display().to_string();
    assert!(unit.contains("[Install]") && unit.contains(&format!("--root \"{store}\" system boot")), "{unit}");
    ready.rbox(&["rm", "-f", "always", "always-stopped", "unless", "unless-stopped", "failed", "no", "never"]);
    no_containers(&ready, &before, &ids.iter().map(String::as_str).collect::<Vec<_>>());
}

#[test]
fn the_health_of_a_container_is_looked_at_and_told() {
    let Some(ready) = Ready::new() else { return };
    let before = Mounts::now(&ready.user);
    let check = ["--health-interval", "50ms", "--health-timeout", "2s", "--health-retries", "2"];
    let command = "echo looked; cat /well || exit 4";
    let id = ready.detach(&[&["--name", "patient", "--health-cmd", command], &check[..]].concat(), POLITE);
    ready.logged(&id, "up");
    wait_until("it is unwell", || ready.status(&id).unwrap().ends_with("(unhealthy)"));
    assert_eq!(ready.rbox(&["ps", "-q", "--no-trunc", "--filter", "health=unhealthy"]), format!("{id}\n"));
    assert_eq!(ready.rbox(&["ps", "-q", "--filter", "health=healthy"]), "");
    let health = ready.inspect("patient")["State"]["Health"].clone();
    assert!(health["FailingStreak"].as_u64().unwrap() >= 2 && health["Log"].as_array().unwrap().len() <= 5, "{health}");
    let last = health["Log"].as_array().unwrap().last().unwrap();
    assert!(last["ExitCode"] == 4 && last["Output"].as_str().unwrap().starts_with("looked\n"), "{last}");
    assert!(last["Start"].as_str() < last["End"].as_str(), "{last}");
    ready.rbox(&["exec", "patient", "touch", "/well"]);
    wait_until("it is well", || ready.status(&id).unwrap().ends_with("(healthy)"));
    // Looking at it keeps nobody's output out of the log, and leaves no process.
    assert_eq!(ready.rbox(&["logs", "patient"]), "up\n");
    wait_until("nobody is left of a look", || ready.rbox(&["top", "patient"]).lines().count() <= 4);
    ready.rbox(&["stop", "patient"]);
    assert!(ready.status(&id).unwrap().starts_with("Exited (33)"));
    ready.rbox(&["start", "patient"]);
    assert!(ready.status(&id).unwrap().contains("health: "), "it is found out anew");
    ready.rbox(&["rm", "-f", "patient"]);
    // One that takes too long, a flood of output, and one that cannot be run.
    let slow = ready.detach(
        &["--health-cmd", "yes & sleep 1000", "--health-interval", "20ms", "--health-timeout", "100ms", "--health-retries", "1"],
        POLITE,
    );
    wait_until("it was given up", || ready.status(&slow).unwrap().ends_with("(unhealthy)"));
    let result = ready.inspect(&slow)["State"]["Health"]["Log"][0].clone();
    let output = result["Output"].as_str().unwrap();
    assert!(result["ExitCode"] == -1 && output.contains("exceeded timeout (100ms)") && output.ends_with("..."), "{result}");
    assert!(output.len() < 4200);
    ready.rbox(&["stop", &slow]);
    // Failures at the beginning do not count.
    let early = ready.detach(
        &[
            "--health-cmd",
            "false",
            "--health-start-interval",
            "20ms",
            "--health-interval",
            "20ms",
            "--health-start-period",
            "1h",
            "--health-retries",
            "1",
        ],
        POLITE,
    );
    wait_until("it was looked at", || ready.inspect(&early)["State"]["Health"]["Log"].as_array().unwrap().len() > 2);
    assert!(ready.status(&early).unwrap().ends_with("(health: starting)"));
    let none = ready.detach(&["--no-healthcheck"], POLITE);
    assert!(ready.inspect(&none)["State"].get("Health").is_none());
    assert_eq!(ready.rbox(&["ps", "-q", "--no-trunc", "--filter", "health=none"]), format!("{none}\n"));
    ready.rbox(&["rm", "-f", &slow, &early, &none]);
    no_containers(&ready, &before, &[&id, &slow, &early, &none]);
}

#[test]
fn who_is_attached_sees_the_output_and_types_the_input() {
    let Some(ready) = Ready::new() else { return };
    let before = Mounts::now(&ready.user);
    let script = "echo up; while read line; do echo got $line; echo also $line >&2; [ $line = end ] && exit 7; done";
    let id = ready.detach(&["-i", "--name", "reader"], script);
    ready.logged("reader", "up");
    let mut first = ready.spawn(&["attach", "reader"]);
    let mut second = ready.spawn(&["attach", "--no-stdin", "reader"]);
    let mut others = BufReader::new(second.stdout.take().unwrap()).lines();
    let mut lines = BufReader::new(first.stdout.take().unwrap()).lines();
    wait_until("both are attached", || ready.rbox(&["events", "--until", "0s", "--filter", "event=attach"]).lines().count() == 2);
    let stdin = first.stdin.as_mut().unwrap();
    stdin.write_all(b"one\n").unwrap();
    assert_eq!(lines.next().unwrap().unwrap(), "got one");
    ready.logged("reader", "got one");
    // The end of what is typed is not the end of what it reads.
    drop(first.stdin.take());
    let mut third = ready.spawn(&["attach", "reader"]);
    third.stdin.as_mut().unwrap().write_all(b"two\nend\n").unwrap();
    assert_eq!(third.wait().unwrap().code(), Some(7));
    assert_eq!((first.wait().unwrap().code(), second.wait().unwrap().code()), (Some(7), Some(7)));
    assert_eq!(lines.map(Result::unwrap).collect::<Vec<_>>(), ["got two", "got end"]);
    assert!(others.any(|line| line.unwrap() == "got end"));
    let mut errors = String::new();
    first.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
    assert!(errors.ends_with("also two\nalso end\n"), "{errors:?}");
    assert!(ready.user.fail("rbox", &["attach", "reader"]).contains("not running"));
    assert!(ready.user.fail("rbox", &["attach", "--detach-keys", "ctrl-?", "reader"]).contains("detach keys"));
    let sockets = std::fs::read_dir(ready.user.store().join("containers").join(&id)).unwrap();
    assert!(sockets.flatten().all(|entry| !entry.file_name().to_string_lossy().starts_with("attach")), "sockets are left");
    // Signals are the container's.
    ready.rbox(&["rm", "reader"]);
    let polite = ready.detach(&["--name", "polite"], POLITE);
    ready.logged("polite", "up");
    let mut attached = ready.spawn(&["attach", "polite"]);
    let told = ["events", "--until", "0s", "--filter", "event=attach", "--filter", "container=polite"];
    wait_until("it is attached", || ready.rbox(&told).lines().count() == 1);
    send(attached.id(), Signal::TERM);
    assert_eq!(attached.wait().unwrap().code(), Some(33));
    let paused = ready.detach(&["--name", "paused"], POLITE);
    ready.rbox(&["pause", "paused"]);
    assert!(ready.user.fail("rbox", &["attach", "paused"]).contains("paused"));
    ready.rbox(&["rm", "-f", "polite", "paused"]);
    no_containers(&ready, &before, &[&id, &polite, &paused]);
}

#[test]
fn who_does_not_read_holds_the_container_up_and_loses_nothing() {
    let Some(ready) = Ready::new() else { return };
    let before = Mounts::now(&ready.user);
    let script = "read go; dd if=/dev/zero bs=64k count=300 2>/dev/null | tr '\\0' x | fold -w 1000; echo done; read end; exit 5";
    let id = ready.detach(&["-i", "--name", "flood"], script);
    let mut slow = ready.spawn(&["attach", "--no-stdin", "flood"]);
    let mut reading = ready.spawn(&["attach", "flood"]);
    wait_until("both are attached", || ready.rbox(&["events", "--until", "0s", "--filter", "event=attach"]).lines().count() == 2);
    send(slow.id(), Signal::STOP);
    let count = |out: std::process::ChildStdout| {
        std::thread::spawn(move || BufReader::new(out).lines().map(|line| line.unwrap().len() as u64).sum::<u64>())
    };
    let reader = count(reading.stdout.take().unwrap());
    reading.stdin.as_mut().unwrap().write_all(b"go\n").unwrap();
    let size = || std::fs::metadata(ready.inspect("flood")["LogPath"].as_str().unwrap()).unwrap().len();
    // Longer than anybody was ever waited for.
    wait_until("it is held up", || {
        let (before, end) = (size(), Instant::now() + Duration::from_millis(1500));
        wait_until("a while is over", || Instant::now() > end);
        before > 10_000 && before == size()
    });
    send(slow.id(), Signal::CONT);
    let other = count(slow.stdout.take().unwrap());
    ready.logged("flood", "done");
    reading.stdin.as_mut().unwrap().write_all(b"end\n").unwrap();
    assert_eq!((reading.wait().unwrap().code(), slow.wait().unwrap().code()), (Some(5), Some(5)));
    let all = 300 * 65536 + 4;
    assert_eq!((reader.join().unwrap(), other.join().unwrap()), (all, all), "each gets all of it");
    ready.rbox(&["rm", "flood"]);
    no_containers(&ready, &before, &[&id]);
}

#[test]
fn a_terminal_is_left_by_keys_and_found_again() {
    let Some(ready) = Ready::new() else { return };
    if !useful(super::common::needs::installed("script"), "script") {
        return;
    }
    let before = Mounts::now(&ready.user);
    let script = "echo up; while read line; do echo got $line; [ $line = end ] && exit 3; done";
    let id = ready.detach(&["-it", "--name", "shell"], script);
    ready.logged("shell", "up");
    for (keys, option) in [(&b"\x10\x11"[..], None), (b"\x01x", Some("ctrl-a,x"))] {
        let options = option.map_or(vec![], |keys| vec!["--detach-keys", keys]);
        let mut terminal = ready.on_terminal(&[&["attach"], &options[..], &["shell"]].concat());
        let mut out = BufReader::new(terminal.stdout.take().unwrap());
        let mut stdin = terminal.stdin.take().unwrap();
        // Once it is attached what is typed comes back.
        std::thread::sleep(Duration::from_millis(300));
        stdin.write_all(b"hello\n").unwrap();
        let mut line = String::new();
        while !line.contains("got hello") {
            line.clear();
            assert!(out.read_line(&mut line).unwrap() > 0, "it ended without an answer");
        }
        stdin.write_all(keys).unwrap();
        let mut rest = String::new();
        out.read_to_string(&mut rest).unwrap();
        assert!(rest.contains("read escape sequence"), "{rest:?}");
        assert!(terminal.wait().unwrap().success());
        assert!(ready.status(&id).unwrap().starts_with("Up "));
    }
    ready.rbox(&["rm", "-f", "shell"]);
    no_containers(&ready, &before, &[&id]);
}

#[test]
fn a_container_is_made_first_and_started_later() {
    let Some(ready) = Ready::new() else { return };
    let before = Mounts::now(&ready.user);
    let id = ready.create(&["--name", "later", "-i"], "cat; echo end >&2; exit 6");
    assert_eq!(ready.status(&id).as_deref(), Some("Created"));
    assert_eq!(ready.rbox(&["ps", "-q"]), "");
    assert!(ready.user.fail("rbox", &["attach", "later"]).contains("not running"));
    // All of its output, and an end of what it reads.
    for _ in 0..3 {
        let mut started = ready.spawn(&["start", "-ai", "later"]);
        started.stdin.take().unwrap().write_all(b"typed").unwrap();
        let output = started.wait_with_output().unwrap();
        assert_eq!((&output.stdout[..], &output.stderr[..]), (&b"typed"[..], &b"end\n"[..]));
        assert_eq!(output.status.code(), Some(6));
    }
    let big = ready.create(&["--rm"], "seq 100000; exit 2");
    let output = ready.user.output("rbox", &["start", "-a", &big]);
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    let numbers: String = (1..=100_000).map(|number| format!("{number}\n")).collect();
    assert!(output.stdout == numbers.as_bytes(), "{} bytes", output.stdout.len());
    wait_until("it has gone", || ready.status(&big).is_none());
    assert!(ready.user.fail("rbox", &["start", "-a", "later", "other"]).contains("only one"));
    let none = ready.create(&[], "exec no-such-command");
    assert_eq!(ready.user.output("rbox", &["start", "-a", &none]).status.code(), Some(127));
    for options in [
        &["create", "-d"][..],
        &["create", "--restart", "sometimes"],
        &["create", "--name", "later"],
        &["create", "--name", "a/b"],
    ] {
        let output = ready.user.output("rbox", &[options, &[&ready.image, "true"]].concat());
        assert_eq!((output.status.code(), &output.stdout[..]), (Some(125), &b""[..]), "{options:?}: {}", stderr(&output));
    }
    ready.rbox(&["rm", "later", &none]);
    no_containers(&ready, &before, &[&id, &big, &none]);
}

#[test]
fn labels_are_kept_filtered_and_shown() {
    let Some(ready) = Ready::new() else { return };
    let file = ready.user.home().join("labels");
    std::fs::write(&file, "# of a file\nfrom=file\ntier=file\nempty\n").unwrap();
    let id = ready.detach(&["--label-file", file.to_str().unwrap(), "-l", "tier=web", "--label", "plain"], "true");
    let labels = &ready.inspect(&id)["Config"]["Labels"];
    assert_eq!(*labels, serde_json::json!({"from": "file", "tier": "web", "empty": "", "plain": ""}));
    let list = |filters: &[&str]| {
        let options: Vec<&str> = filters.iter().flat_map(|filter| ["--filter", filter]).collect();
        ready.rbox(&[&["ps", "-aq", "--no-trunc"][..], &options].concat()).lines().count()
    };
    assert_eq!(list(&["label=tier"]), 1);
    assert_eq!(list(&["label=tier=web", "label=plain"]), 1);
    assert_eq!((list(&["label=tier=db"]), list(&["label=tier=web", "label=other"])), (0, 0));
    let row: Value = serde_json::from_str(ready.rbox(&["ps", "-a", "--format", "json"]).trim_end()).unwrap();
    assert_eq!(row["Labels"], "empty=,from=file,plain=,tier=web");
    assert!(ready.refused(&["-d", "--label", "=x"]).contains("label"));
    assert!(ready.refused(&["-d", "--label-file", "/no/such/file"]).contains("/no/such/file"));
    // A container that goes with its command may have them, too.
    assert_eq!(ready.sh(&["--label", "a=b"], "echo up"), "up\n");
}

#[test]
fn a_container_is_stopped_by_the_signal_that_is_given() {
    let Some(ready) = Ready::new() else { return };
    let before = Mounts::now(&ready.user);
    let script = "trap 'exit 5' USR1; trap 'exit 7' TERM; echo up; while :; do sleep 1000 & wait; done";
    let id = ready.detach(&["--name", "asked"], script);
    ready.logged("asked", "up");
    ready.rbox(&["stop", "--signal", "USR1", "asked"]);
    assert_eq!(ready.inspect("asked")["State"]["ExitCode"], 5);
    ready.rbox(&["start", "asked"]);
    wait_until("it is up again", || ready.rbox(&["logs", "asked"]).matches("up").count() == 2);
    ready.rbox(&["restart", "-s", "USR1", "asked"]);
    wait_until("and once more", || ready.rbox(&["logs", "asked"]).matches("up").count() == 3);
    let died = ready.rbox(&["events", "--until", "0s", "--filter", "event=die", "--format", "{{.Actor.Attributes.exitCode}}"]);
    assert_eq!(died, "5\n5\n");
    ready.rbox(&["rm", "-f", "asked"]);
    no_containers(&ready, &before, &[&id]);
}

#[test]
fn limits_and_policies_are_changed_while_it_runs() {
    let Some(ready) = Ready::new() else { return };
    if !super::limits::limited(&ready) {
        return;
    }
    let before = Mounts::now(&ready.user);
    let id = ready.detach(&["--name", "grows", "--memory", "32m", "--cpus", "1", "--pids-limit", "50"], POLITE);
    assert_eq!(ready.rbox(&["update", "--memory", "64m", "--cpus", "0.5", "--restart", "on-failure:4", "grows"]), "grows\n");
    let row: Value = serde_json::from_str(ready.rbox(&["stats", "--no-stream", "--format", "json", "grows"]).trim_end()).unwrap();
    assert!(row["MemUsage"].as_str().unwrap().ends_with(" / 64MiB"), "{row}");
    let host = &ready.inspect("grows")["HostConfig"];
    assert_eq!(
        (host["Memory"].as_u64(), host["NanoCpus"].as_u64(), host["PidsLimit"].as_u64()),
        (Some(64 << 20), Some(500_000_000), Some(50))
    );
    assert_eq!(host["RestartPolicy"]["Name"], "on-failure");
    // Its monitor has the new policy, too, and the next start the new limits.
    ready.end("grows");
    wait_until("it is started again", || ready.inspect("grows")["RestartCount"] == 1);
    ready.wait_for_status(&id, "Up ");
    let row: Value = serde_json::from_str(ready.rbox(&["stats", "--no-stream", "--format", "json", "grows"]).trim_end()).unwrap();
    assert!(row["MemUsage"].as_str().unwrap().ends_with(" / 64MiB"), "{row}");
    for (options, word) in [
        (&["--memory", "1x"][..], "--memory"),
        (&[], "nothing"),
        (&["--restart", "x"], "restart policy"),
        (&["--cpuset-cpus", "9999"], "cpu"),
    ] {
        let said = ready.user.fail("rbox", &[&["update"], options, &["grows"]].concat());
        assert!(said.contains(word), "{options:?}: {said}");
    }
    assert!(ready.user.fail("rbox", &["update", "--memory", "64m", "nobody"]).contains("nobody"));
    let goes = ready.detach(&["--rm"], POLITE);
    assert!(ready.user.fail("rbox", &["update", "--restart", "always", &goes]).contains("--rm"));
    ready.rbox(&["rm", "-f", "grows", &goes]);
    no_containers(&ready, &before, &[&id, &goes]);
}

#[test]
fn what_nothing_needs_is_pruned_and_what_that_frees_is_said() {
    let Some(ready) = Ready::new() else { return };
    let before = Mounts::now(&ready.user);
    let runs = ready.detach(&["--name", "runs"], POLITE);
    let kept = ready.detach(&["--label", "keep=yes"], "true");
    let big = ready.detach(&[], "dd if=/dev/zero of=/big bs=1M count=5 2>/dev/null");
    ready.rbox(&["wait", &kept, &big]);
    // Without an answer nothing goes.
    let asked = ready.rbox(&["container", "prune"]);
    assert!(asked.contains("WARNING! This will remove all stopped containers.") && asked.contains("[y/N]"), "{asked}");
    assert_eq!(ready.rbox(&["ps", "-aq"]).lines().count(), 3);
    assert_eq!(ready.rbox(&["container", "prune", "-f", "--filter", "until=1h"]), "Total reclaimed space: 0B\n");
    let said = ready.rbox(&["container", "prune", "--force", "--filter", "label!=keep"]);
    assert!(
        said.starts_with(&format!("Deleted Containers:\n{big}\n\nTotal reclaimed space: 5.")) && said.ends_with("MB\n"),
        "{said}"
    );
    assert!(ready.user.fail("rbox", &["container", "prune", "-f", "--filter", "x=y"]).contains("until"));
    // An image somebody needs stays, one nobody needs goes with its layers.
    assert_eq!(ready.rbox(&["image", "prune", "-af"]), "Total reclaimed space: 0B\n");
    ready.rbox(&["rm", "-f", "runs"]);
    let said = ready.rbox(&["system", "prune", "-af"]);
    assert!(
        said.contains(&format!("Deleted Containers:\n{kept}\n")) && said.contains(&format!("untagged: {}\n", ready.image)),
        "{said}"
    );
    assert!(said.contains("deleted: sha256:") && said.lines().last().unwrap().ends_with("MB"), "{said}");
    assert_eq!(ready.user.check_store(), (vec![], vec![]));
    no_containers(&ready, &before, &[&runs, &kept, &big]);
}

#[test]
fn what_happens_is_told_as_docker_tells_it() {
    let Some(ready) = Ready::new() else { return };
    let mut follow = ready.spawn(&["events", "--filter", "container=told", "--format", "json"]);
    // It listens once its directory is there.
    wait_until("it listens", || ready.user.store().join("events").exists());
    std::thread::sleep(Duration::from_millis(100));
    let id = ready.detach(&["--name", "told", "--label", "tier=web"], POLITE);
    ready.detach(&["--rm", "--name", "other"], "true");
    ready.logged("told", "up");
    ready.rbox(&["pause", "told"]);
    ready.rbox(&["unpause", "told"]);
    ready.rbox(&["stop", "told"]);
    ready.rbox(&["rename", "told", "else"]);
    ready.rbox(&["rm", "else"]);
    let expected = ["create", "start", "pause", "unpause", "kill", "die", "stop"];
    let mut lines = BufReader::new(follow.stdout.take().unwrap()).lines();
    for action in expected {
        let event: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
        assert_eq!(
            (event["Action"].as_str(), event["Type"].as_str(), event["id"].as_str()),
            (Some(action), Some("container"), Some(&*id))
        );
        assert_eq!(event["Actor"]["Attributes"]["tier"], "web");
        assert!(
            event["time"].as_u64().unwrap() > 1_700_000_000
                && event["timeNano"].as_u64().unwrap() > event["time"].as_u64().unwrap()
        );
    }
    follow.kill().unwrap();
    follow.wait().unwrap();
    // What was: told again, by its end and by what is asked for.
    let past = |options: &[&str]| ready.rbox(&[&["events", "--until", "0s"], options].concat());
    let all = past(&["--filter", &format!("container={}", &id[..12])]);
    assert_eq!(all.lines().count(), expected.len() + 2, "{all}");
    let die = past(&["--filter", "event=die", "--filter", &format!("image={}", ready.image), "--filter", "label=tier=web"]);
    assert!(die.contains(&format!("Z container die {id} (exitCode=33, image={}, name=told, tier=web)\n", ready.image)), "{die}");
    assert_eq!(past(&["--filter", "type=network"]), "");
    assert!(ready.user.fail("rbox", &["events", "--filter", "x=y"]).contains("kinds are"));
    assert!(ready.user.fail("rbox", &["events", "--since", "yesterday"]).contains("since"));
}

#[test]
fn flags_that_make_no_sense_together_are_refused_by_name() {
    let Some(ready) = Ready::new() else { return };
    for (options, word) in [
        (&["-d", "--restart", "sometimes"][..], "restart policy"),
        (&["-d", "--restart", "always:3"], "on-failure"),
        (&["-d", "--rm", "--restart", "always"], "--rm"),
        (&["--rm", "--restart", "always"], "--rm"),
        (&["-d", "-a", "stdout"], "--detach"),
        (&["-a", "stdlog"], "--attach"),
        (&["-it", "--detach-keys", "ctrl-?"], "detach keys"),
        (&["-d", "--health-cmd", "true", "--no-healthcheck"], "--no-healthcheck"),
        (&["-d", "--health-interval", "5"], "--health-interval"),
        (&["-d", "--health-retries", "-1"], "--health-retries"),
    ] {
        let said = ready.refused(options);
        assert!(said.contains(word), "{options:?}: {said}");
    }
    ready.user.check_store();
}
