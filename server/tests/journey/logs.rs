//! Where a container's output goes: compressed files, systemd's journal.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use super::common::needs::installed;
use super::common::wait_until;
use super::fixture::Ready;
use super::rootless::{Ordinary, RANGE};
use super::tools::stderr;

/// Prints so many lines once it is told to, and lives on.
const NUMBERS: &str = "until [ -e /go ]; do sleep 0.01; done; for n in $(seq 3000); do echo line $n; done; sleep 1000";

/// The older files of a log, and how many of them are compressed.
fn older(log: &str) -> (usize, usize) {
    let path = Path::new(log);
    let prefix = format!("{}.", path.file_name().unwrap().to_str().unwrap());
    let names = std::fs::read_dir(path.parent().unwrap()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let names: Vec<String> = names.filter(|name| name.starts_with(&prefix)).collect();
    (names.len(), names.iter().filter(|name| name.ends_with(".gz")).count())
}

fn numbers(text: &str) -> Vec<usize> {
    text.lines().map(|line| line.strip_prefix("line ").unwrap().parse().unwrap()).collect()
}

/// Asserts that these are the last of 3000 lines, from `first`.
fn from(first: usize, text: &str) {
    let read = numbers(text);
    let strange = read.iter().zip(first..).find(|(read, expected)| **read != *expected);
    assert!(strange.is_none() && read.len() == 3001 - first, "{} from {first}, {strange:?}", read.len());
}

/// A long line in a few characters.
fn short(text: &[u8]) -> String {
    String::from_utf8_lossy(text).replace(&"x".repeat(1000), "X")
}

#[test]
fn files_that_are_full_are_compressed_and_read_back_with_the_others() {
    let Some(ready) = Ready::new() else { return };
    let options = ["--log-opt", "compress=true", "--log-opt", "max-size=8k", "--log-opt", "max-file=100"];
    let id = ready.detach(&options, NUMBERS);
    let follow = ready.user.command("rbox", &["logs", "-f", &id]).stdout(Stdio::piped()).spawn().unwrap();
    ready.rbox(&["exec", &id, "touch", "/go"]);
    let log = ready.inspect(&id)["LogPath"].as_str().unwrap().to_owned();
    ready.logged(&id, "line 3000\n");
    wait_until("all full files are compressed", || {
        let (all, compressed) = older(&log);
        all > 20 && all == compressed
    });
    from(1, &ready.rbox(&["logs", &id]));
    for tail in [1, 100, 2000, 2999, 5000] {
        from(3001_usize.saturating_sub(tail).max(1), &ready.rbox(&["logs", "--tail", &tail.to_string(), &id]));
    }
    let stamped = ready.rbox(&["logs", "-t", &id]);
    let middle = stamped.lines().nth(1000).unwrap();
    from(1001, &ready.rbox(&["logs", "--since", middle.split(' ').next().unwrap(), &id]));
    let config = &ready.inspect(&id)["HostConfig"]["LogConfig"];
    assert_eq!(config["Config"], serde_json::json!({ "compress": "true", "max-size": "8192", "max-file": "100" }));
    // Killed and started again, it goes on with what is there.
    ready.rbox(&["kill", &id]);
    let followed = follow.wait_with_output().unwrap();
    from(1, std::str::from_utf8(&followed.stdout).unwrap());
    ready.rbox(&["start", &id]);
    wait_until("it has written as much again", || numbers(&ready.rbox(&["logs", &id])).len() == 6000);
    // What cannot be read hides nothing else.
    wait_until("all full files are compressed", || {
        let (all, compressed) = older(&log);
        all == compressed
    });
    std::fs::write(format!("{log}.2.gz"), "no gzip").unwrap();
    let output = ready.user.output("rbox", &["logs", &id]);
    let read = numbers(std::str::from_utf8(&output.stdout).unwrap());
    assert!(read.len() > 5000 && read.len() < 6000 && read.last() == Some(&3000), "{}", read.len());
    assert!(stderr(&output).contains(".2") && output.status.success(), "{}", stderr(&output));
    ready.rbox(&["rm", "-f", &id]);
}

#[test]
fn a_log_driver_refuses_options_that_are_not_its_own() {
    let Some(ready) = Ready::new() else { return };
    for (options, words) in [
        (&["--log-opt", "compress=true"][..], &["compress=true", "max-size", "max-file"][..]),
        (&["--log-opt", "max-sise=1k"], &["max-sise", "json-file"]),
        (&["--log-driver", "journald", "--log-opt", "max-size=1k"], &["max-size", "journald"]),
        (&["--log-driver", "none", "--log-opt", "tag=x"], &["tag", "none"]),
        (&["--log-driver", "syslog"], &["syslog", "journald"]),
        (&["--log-opt", "tag={{.Secret}}"], &["{{.Secret}}", "{{.Name}}"]),
    ] {
        let output = ready.run(&[&["-d"], options].concat(), &["true"]);
        let said = stderr(&output);
        assert!(output.status.code() == Some(125) && words.iter().all(|word| said.contains(word)), "{options:?}: {said}");
    }
    assert_eq!(ready.rbox(&["ps", "-aq"]), "");
}

#[test]
fn chosen_labels_and_variables_are_in_each_entry() {
    let Some(ready) = Ready::new() else { return };
    let options = ["--label", "tier=web", "--label", "other=x", "-e", "STAGE=test", "--name", "said"];
    let log = ["--log-opt", "labels=tier,none", "--log-opt", "env=STAGE", "--log-opt", "tag={{.Name}}/{{.ID}}"];
    let id = ready.detach(&[&options[..], &log].concat(), "echo hello");
    ready.rbox(&["wait", &id]);
    let expected = format!("STAGE=test,tag=said/{},tier=web hello\n", &id[..12]);
    assert_eq!(ready.rbox(&["logs", "--details", &id]), expected);
    assert_eq!(ready.rbox(&["logs", &id]), "hello\n");
    ready.rbox(&["rm", &id]);
}

/// systemd's journal, in a mount namespace with a `/run` of its own.
struct Journal {
    daemon: Child,
}

/// Where Debian has it.
const DAEMON: &str = "/lib/systemd/systemd-journald";

impl Journal {
    fn start() -> Option<Self> {
        if !["journalctl", "unshare", "nsenter", DAEMON].iter().all(|program| installed(program)) {
            return None;
        }
        let script = format!("mount -t tmpfs tmpfs /run && mkdir -p /run/systemd/journal /run/log/journal && exec {DAEMON}");
        let mut daemon = Command::new("unshare");
        daemon.args(["-m", "sh", "-c", &script]).stdout(Stdio::null()).stderr(Stdio::null());
        let journal = Self { daemon: daemon.spawn().unwrap() };
        journal.wait();
        Some(journal)
    }

    /// The socket as this machine sees it.
    fn socket(&self) -> String {
        format!("/proc/{}/root/run/systemd/journal/socket", self.daemon.id())
    }

    fn wait(&self) {
        wait_until("the journal listens", || std::os::unix::net::UnixDatagram::unbound().unwrap().connect(self.socket()).is_ok());
    }

    /// The same command where the journal is.
    fn command(&self, command: &Command) -> Command {
        within(self.daemon.id(), command)
    }

    fn output(&self, command: &Command) -> Output {
        self.command(command).output().unwrap()
    }

    fn succeed(&self, command: &Command) -> String {
        let output = self.output(command);
        assert!(output.status.success(), "{command:?}: {}\n{}", output.status, stderr(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    fn rbox(&self, ready: &Ready, args: &[&str]) -> String {
        self.succeed(&ready.user.command("rbox", args))
    }

    /// The entries of a container as the journal has them.
    fn entries(&self, id: &str) -> Vec<serde_json::Value> {
        let mut journalctl = Command::new("journalctl");
        journalctl.args(["--all", "--output=json", &format!("CONTAINER_ID_FULL={id}")]);
        self.succeed(Command::new("journalctl").arg("--sync"));
        self.succeed(&journalctl).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

/// The same command in the mount namespace of a process.
fn within(pid: u32, command: &Command) -> Command {
    let mut within = Command::new("nsenter");
    within.arg(format!("--mount=/proc/{pid}/ns/mnt")).arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => within.env(name, value),
            None => within.env_remove(name),
        };
    }
    within
}

impl Drop for Journal {
    fn drop(&mut self) {
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}

#[test]
fn output_in_the_journal_has_dockers_fields_and_is_read_back_as_it_was() {
    let Some(ready) = Ready::new() else { return };
    let Some(journal) = Journal::start() else { return };
    let script = "echo one; printf 'a\\377b\\n' >&2; head -c 40000 /dev/zero | tr '\\0' x; echo; printf 'no end'";
    let options = ["-d", "--name", "kept", "--log-driver", "journald", "--label", "tier=web", "--log-opt", "labels=tier"];
    let tag = ["--log-opt", "tag=app/{{.Name}}"];
    let run = ready.command(&[&options[..], &tag].concat(), &["sh", "-c", script]);
    let id = journal.succeed(&run).trim_end().to_owned();
    assert_eq!(journal.rbox(&ready, &["wait", &id]), "0\n");
    let entries = journal.entries(&id);
    let field = |at: usize, name: &str| entries[at][name].as_str().map(str::to_owned);
    let of = |text: &str| entries.iter().position(|entry| entry["MESSAGE"] == text).unwrap();
    let one = of("one");
    for (name, value) in [
        ("CONTAINER_ID", &id[..12]),
        ("CONTAINER_NAME", "kept"),
        ("CONTAINER_TAG", "app/kept"),
        ("SYSLOG_IDENTIFIER", "app/kept"),
        ("IMAGE_NAME", &ready.image),
        ("PRIORITY", "6"),
        ("TIER", "web"),
    ] {
        assert_eq!(field(one, name).as_deref(), Some(value), "{name}");
    }
    assert_eq!(field(one, "CONTAINER_PARTIAL_MESSAGE"), None);
    let bytes = entries.iter().find(|entry| entry["MESSAGE"] == serde_json::json!([97, 255, 98])).expect("bytes as they were");
    assert_eq!(bytes["PRIORITY"], "3");
    let parts: Vec<_> = entries.iter().filter(|entry| entry["CONTAINER_PARTIAL_ID"].is_string()).collect();
    assert_eq!(parts.len(), 3, "40000 bytes are three times at most 16 KiB");
    assert_eq!(parts.iter().filter(|part| part["CONTAINER_PARTIAL_MESSAGE"] == "true").count(), 2);
    // By rbox, each stream for itself.
    let output = journal.output(&ready.user.command("rbox", &["logs", &id]));
    assert_eq!(short(&output.stdout), format!("one\n{}\nno end\n", "X".repeat(40)));
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "a\u{fffd}b\n");
    assert_eq!(journal.rbox(&ready, &["logs", "--tail", "1", &id]), "no end\n");
    assert_eq!(journal.rbox(&ready, &["logs", "--until", "1h", &id]), "");
    assert!(journal.rbox(&ready, &["logs", "--details", "--tail", "1", &id]).starts_with("TIER=web no end"));
    let stamped = journal.rbox(&ready, &["logs", "-t", "--tail", "1", &id]);
    let time = stamped.split(' ').next().unwrap();
    assert_eq!(journal.rbox(&ready, &["logs", "--since", time, &id]), "no end\n");
    // Somebody else's entry that calls itself the container's is not.
    let mut forged = Command::new("setpriv");
    let logger = format!("printf 'MESSAGE=forged\\nCONTAINER_ID_FULL={id}\\n' | logger --journald");
    forged.args(["--reuid", "65534", "--clear-groups", "sh", "-c", &logger]);
    journal.succeed(&forged);
    assert!(journal.entries(&id).iter().any(|entry| entry["MESSAGE"] == "forged"), "the journal has it");
    assert!(!journal.rbox(&ready, &["logs", &id]).contains("forged"));
    assert!(journal.output(&ready.user.command("rbox", &["logs", &id])).status.success());
    // Where there is no program that reads the journal.
    let logs = ready.user.command("rbox", &["logs", &id]);
    let mut without = Command::new("env");
    without.arg("PATH=/nonexistent").arg(logs.get_program()).args(logs.get_args());
    without.envs(logs.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let output = journal.output(&without);
    assert!(!output.status.success() && stderr(&output).contains("journalctl"), "{}", stderr(&output));
    journal.rbox(&ready, &["rm", "kept"]);
}

#[test]
fn who_follows_the_journal_gets_all_that_comes_and_ends_with_the_container() {
    let Some(ready) = Ready::new() else { return };
    let Some(journal) = Journal::start() else { return };
    let script = "trap 'echo last; exit' TERM; for n in $(seq 30); do echo line $n; done; sleep 1000 & wait";
    let id = journal.succeed(&ready.command(&["-d", "--log-driver", "journald"], &["sh", "-c", script])).trim_end().to_owned();
    wait_until("it has written", || journal.rbox(&ready, &["logs", &id]).contains("line 30\n"));
    let follow = |args: &[&str]| {
        let command = ready.user.command("rbox", &[&["logs", "-f"], args, &[&id]].concat());
        let mut child = journal.command(&command).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        (child, lines)
    };
    let ((mut all, mut all_lines), (mut end, mut end_lines)) = (follow(&[]), follow(&["--tail", "2"]));
    for n in 1..=30 {
        assert_eq!(all_lines.next().unwrap().unwrap(), format!("line {n}"));
    }
    assert_eq!([end_lines.next().unwrap().unwrap(), end_lines.next().unwrap().unwrap()], ["line 29", "line 30"]);
    journal.rbox(&ready, &["stop", &id]);
    for (child, lines) in [(&mut all, all_lines), (&mut end, end_lines)] {
        assert_eq!(lines.map(Result::unwrap).collect::<Vec<_>>(), ["last"]);
        assert!(child.wait().unwrap().success());
    }
    journal.rbox(&ready, &["rm", &id]);
}

#[test]
fn a_journal_that_is_not_there_is_an_error_and_one_that_goes_holds_nobody_up() {
    let Some(ready) = Ready::new() else { return };
    let Some(mut journal) = Journal::start() else { return };
    let script = "trap 'echo bye; exit 3' TERM; for n in $(seq 20000); do echo line $n; done; echo > /done; sleep 1000 & wait";
    let waiting = format!("until [ -e /go ]; do sleep 0.01; done; {script}");
    let detached = ["-d", "--log-driver", "journald"];
    let run = ready.command(&detached, &["sh", "-c", &waiting]);
    let id = journal.succeed(&run).trim_end().to_owned();
    // It takes nothing, and then it is gone: neither is waited for long.
    let daemon = rustix::process::Pid::from_raw(i32::try_from(journal.daemon.id()).unwrap()).unwrap();
    rustix::process::kill_process(daemon, rustix::process::Signal::STOP).unwrap();
    ready.rbox(&["exec", &id, "touch", "/go"]);
    wait_until("it has written all", || ready.user.output("rbox", &["exec", &id, "test", "-e", "/done"]).status.success());
    // Its namespace lives on with the container's monitor: another journal may begin there.
    let monitor = ready.monitor(&id);
    journal.daemon.kill().unwrap();
    journal.daemon.wait().unwrap();
    let socket = format!("/proc/{monitor}/root/run/systemd/journal/socket");
    std::fs::remove_file(&socket).unwrap();
    let create = ready.user.command("rbox", &["create", "--log-driver", "journald", &ready.image]);
    for command in [ready.command(&detached, &["true"]), create] {
        let output = within(monitor, &command).output().unwrap();
        assert!(!output.status.success() && stderr(&output).contains("journald"), "{}", stderr(&output));
    }
    assert_eq!(ready.rbox(&["ps", "-aq", "--no-trunc"]), format!("{id}\n"));
    journal.daemon = within(monitor, &Command::new(DAEMON)).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    journal.wait();
    ready.rbox(&["stop", &id]);
    assert!(ready.status(&id).unwrap().starts_with("Exited (3) "));
    let last = journal.entries(&id).pop().unwrap();
    assert_eq!(last["MESSAGE"], "bye", "it goes to the journal that has come");
    let ordinal: usize = last["CONTAINER_LOG_ORDINAL"].as_str().unwrap().parse().unwrap();
    assert_eq!(ordinal, 20_001, "the numbers tell what was left out");
    ready.rbox(&["rm", &id]);
}

#[test]
fn an_ordinary_user_s_output_is_in_the_journal_too() {
    let Some(ready) = Ready::new() else { return };
    let Some(ordinary) = Ordinary::new(RANGE) else { return };
    let Some(journal) = Journal::start() else { return };
    ordinary.succeed("rpull", &[&ready.image]);
    let run = ["-d", "--log-driver", "journald", &ready.image, "sh", "-c", "echo hello; echo trouble >&2"];
    let id = journal.succeed(&ordinary.command("rrun", &run)).trim_end().to_owned();
    journal.succeed(&ordinary.command("rbox", &["wait", &id]));
    let entries = journal.entries(&id);
    assert_eq!(entries.len(), 2);
    // In one file for all the journal is not for everybody to read.
    let output = journal.output(&ordinary.command("rbox", &["logs", &id]));
    assert!(!output.status.success() && stderr(&output).contains("systemd-journal"), "{}", stderr(&output));
    // As if they were of that group.
    journal.succeed(Command::new("chmod").args(["-R", "o+rX", "/run/log/journal"]));
    let output = journal.output(&ordinary.command("rbox", &["logs", &id]));
    assert_eq!((&output.stdout[..], &output.stderr[..]), (&b"hello\n"[..], &b"trouble\n"[..]));
    journal.succeed(&ordinary.command("rbox", &["rm", &id]));
}
