//! Checkpoints and restores by the real criu, where it works with the kernel.

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use serde_json::{Value, json};

use crate::bundle::{Run, open_terminal, read_until};
use crate::container::{Container, wait_until};
use crate::descriptors::receive;
use crate::needs::{installed, useful};

/// Says the next number again and again.
const COUNTER: &str = "i=0; while :; do i=$((i+1)); echo $i; sleep 0.02; done";

/// Whether criu is there, and knows this kernel.
fn criu_works() -> bool {
    installed("criu") && useful(criu_knows_this_kernel(), "a criu that works with this kernel (`criu check`)")
}

pub(crate) fn criu_knows_this_kernel() -> bool {
    Command::new("criu").arg("check").output().unwrap().status.success()
}

/// A counter that runs, its output in a file; `None` where there is no criu for it.
fn counter(edit: impl FnOnce(&mut Value)) -> Option<Container> {
    let container = Container::sh(COUNTER)?;
    if !criu_works() {
        return None;
    }
    container.write(edit);
    container.bring_up("run", &["--detach"]).ok();
    wait_until(|| !numbers(&container).is_empty());
    Some(container)
}

fn numbers(container: &Container) -> Vec<u64> {
    let text = container.out();
    // The last line may be half written.
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole.lines().map(|line| line.parse().unwrap()).collect()
}

/// That it has said each number once, and goes on.
#[track_caller]
fn counts_on(container: &Container) {
    let before = numbers(container).len();
    wait_until(|| numbers(container).len() > before + 5);
    let numbers = numbers(container);
    assert!(numbers.iter().copied().eq(1..=numbers.len() as u64), "{numbers:?}");
}

pub(crate) fn images(container: &Container) -> PathBuf {
    container.file("images")
}

pub(crate) fn checkpoint(container: &Container, flags: &[&str]) -> Run {
    let path = images(container);
    container.roci(&[&["checkpoint", "--image-path", path.to_str().unwrap()], flags, &[container.id()]].concat())
}

/// `restore` with its output at the end of the container's.
pub(crate) fn restore_command(container: &Container, flags: &[&str], id: &str) -> Command {
    restore_command_from(&images(container), container, flags, id)
}

fn restore_command_from(images: &Path, container: &Container, flags: &[&str], id: &str) -> Command {
    let mut command = container.command(&["restore", "--image-path"]);
    command.arg(images).args(flags).arg("--bundle").arg(container.bundle.directory.path()).arg(id);
    let append = |name: &str| OpenOptions::new().append(true).create(true).open(container.file(name)).unwrap();
    command.stdout(append("out")).stderr(append("err"));
    command
}

#[track_caller]
fn restore(container: &Container, flags: &[&str]) {
    let status = restore_command(container, &[&["--detach"], flags].concat(), container.id()).status().unwrap();
    assert!(status.success(), "{}", container.err());
}

/// That it is refused; its words.
#[track_caller]
pub(crate) fn not_restored(container: &Container, flags: &[&str], id: &str) -> String {
    let output = restore_command(container, flags, id).stdout(Stdio::null()).stderr(Stdio::piped()).output().unwrap();
    let run = Run::of(output);
    assert_eq!(run.code, Some(1), "{run:?}");
    run.err
}

/// That nothing is mounted in the state directory, or on the bundle.
#[track_caller]
pub(crate) fn nothing_is_mounted(container: &Container) {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    for path in [container.bundle.directory.path(), container.state.path()] {
        assert!(!mounts.contains(path.to_str().unwrap()), "{mounts}");
    }
}

/// The command line of a process, if it is there.
pub(crate) fn command_of(pid: i32) -> Option<Vec<u8>> {
    fs::read(format!("/proc/{pid}/cmdline")).ok().filter(|text| !text.is_empty())
}

#[test]
fn a_container_that_was_checkpointed_has_ended_and_goes_on_where_it_was_when_it_is_restored() {
    let Some(container) = counter(|spec| spec["linux"]["resources"]["pids"] = json!({ "limit": 20 })) else { return };
    let pid = container.pid();
    checkpoint(&container, &[]).ok();
    assert_eq!(command_of(pid), None, "its process has ended");
    assert_eq!(container.status(), "stopped");
    let said = numbers(&container).len();

    let pid_file = container.file("pid");
    restore(&container, &["--pid-file", pid_file.to_str().unwrap()]);
    let state = container.state();
    assert_eq!((&state["status"], &state["id"]), (&json!("running"), &json!(container.id())));
    assert_eq!(fs::read_to_string(&pid_file).unwrap(), state["pid"].to_string());
    counts_on(&container);
    assert!(numbers(&container).len() > said);
    nothing_is_mounted(&container);
    assert_eq!(fs::read_dir(container.state.path().join(container.id())).unwrap().count(), 2, "state.json, config.json");

    // It is a container like any other.
    assert_eq!(container.exec(&["sh", "-c", "echo $(hostname) $(cat /proc/1/comm)"]).ok().split(' ').next_back(), Some("sh"));
    let loopback = container.exec(&["ip", "addr", "show", "lo"]).ok();
    assert!(loopback.contains("UP") && loopback.contains("127.0.0.1"), "{loopback}");
    let cgroup = container.bundle.cgroups().into_iter().find(|path| path.join("cgroup.procs").exists()).unwrap();
    assert!(fs::read_to_string(cgroup.join("cgroup.procs")).unwrap().contains(&state["pid"].to_string()));
    container.roci(&["pause", container.id()]).ok();
    assert_eq!(container.status(), "paused");
    container.roci(&["resume", container.id()]).ok();
    // And can be written again, and deleted then.
    fs::remove_dir_all(images(&container)).unwrap();
    checkpoint(&container, &[]).ok();
    restore(&container, &[]);
    counts_on(&container);
    checkpoint(&container, &[]).ok();
    container.roci(&["delete", container.id()]).ok();
    assert!(container.is_gone());
    restore(&container, &[]);
    counts_on(&container);
    container.roci(&["delete", "--force", container.id()]).ok();
    assert!(container.is_gone());
}

#[test]
fn it_can_go_on_under_another_name_and_has_the_limits_of_its_configuration_then() {
    let Some(container) = counter(|_| {}) else { return };
    checkpoint(&container, &[]).ok();
    container.roci(&["delete", container.id()]).ok();
    container.write(|spec| spec["linux"]["resources"]["pids"] = json!({ "limit": 33 }));
    let other = Container { bundle: crate::bundle::Bundle::sh("true").unwrap(), state: tempfile::tempdir().unwrap() };
    let mut command = restore_command(&container, &["--detach", "--manage-cgroups-mode", "soft"], other.id());
    assert!(command.status().unwrap().success(), "{}", container.err());
    counts_on(&container);
    let state = |id: &str| container.roci(&["state", id]);
    assert_eq!(state(container.id()).code, Some(1));
    let state: Value = serde_json::from_str(&state(other.id()).ok()).unwrap();
    let cgroup = PathBuf::from(format!("/sys/fs/cgroup/longshore-{}", other.id()));
    if cgroup.is_dir() {
        assert_eq!(fs::read_to_string(cgroup.join("pids.max")).unwrap().trim(), "33");
        assert!(fs::read_to_string(cgroup.join("cgroup.procs")).unwrap().contains(&state["pid"].to_string()));
    }
    container.roci(&["delete", "--force", other.id()]).ok();
    assert!(other.is_gone() && container.is_gone());
}

#[test]
fn a_container_left_running_goes_on_and_can_go_on_a_second_time() {
    let Some(container) = Container::sh(COUNTER) else { return };
    if !criu_works() {
        return;
    }
    container.write(|_| {});
    let mut command = container.command(&["run", "--detach", "--bundle"]);
    let (mut started, mut out) = in_foreground(command.arg(container.bundle.directory.path()).arg(container.id()));
    assert!(started.wait().unwrap().success());
    assert_eq!(next(&mut out), 1);
    let pid = container.pid();
    checkpoint(&container, &["--leave-running"]).ok();
    assert_eq!((container.status().as_str(), container.pid()), ("running", pid));
    for number in 2..50 {
        assert_eq!(next(&mut out), number);
    }
    let refusal = not_restored(&container, &["--detach"], container.id());
    assert!(refusal.contains("already exists"), "{refusal}");
    assert_eq!(container.pid(), pid);
    container.roci(&["delete", "--force", container.id()]).ok();
    let mut rest = String::new();
    out.read_to_string(&mut rest).unwrap();
    let last: u64 = rest.lines().next_back().unwrap().parse().unwrap();
    // From where it was written, and not from where it was ended.
    let (mut restored, mut out) = in_foreground(&mut restore_command(&container, &["--detach"], container.id()));
    assert!(restored.wait().unwrap().success());
    let first = next(&mut out);
    assert!((2..last).contains(&first), "{first} of {last}");
    assert_eq!(next(&mut out), first + 1);
}

#[test]
fn a_paused_container_is_written_as_well_and_stays_paused() {
    let Some(container) = counter(|_| {}) else { return };
    container.roci(&["pause", container.id()]).ok();
    checkpoint(&container, &["--leave-running"]).ok();
    assert_eq!(container.status(), "paused");
    container.roci(&["resume", container.id()]).ok();
    counts_on(&container);
    container.roci(&["pause", container.id()]).ok();
    checkpoint(&container, &[]).ok();
    assert_eq!(container.status(), "stopped");
    restore(&container, &[]);
    counts_on(&container);
}

/// A container in the foreground, whose output is a pipe.
fn in_foreground(command: &mut Command) -> (Child, BufReader<ChildStdout>) {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let out = BufReader::new(child.stdout.take().unwrap());
    (child, out)
}

fn next(out: &mut BufReader<ChildStdout>) -> u64 {
    let mut line = String::new();
    out.read_line(&mut line).unwrap();
    line.trim().parse().unwrap()
}

#[test]
fn pipes_are_the_restorer_s_and_the_end_in_the_foreground_is_waited_for() {
    let Some(container) = Container::sh(&format!("trap 'exit 7' TERM; {COUNTER}")) else { return };
    if !criu_works() {
        return;
    }
    container.write(|_| {});
    let mut command = container.command(&["run", "--bundle"]);
    let (mut first, mut out) = in_foreground(command.arg(container.bundle.directory.path()).arg(container.id()));
    assert_eq!((next(&mut out), next(&mut out)), (1, 2));
    wait_until(|| container.roci(&["state", container.id()]).code == Some(0));
    checkpoint(&container, &[]).ok();
    assert_eq!(first.wait().unwrap().code(), Some(137));
    let mut rest = String::new();
    out.read_to_string(&mut rest).unwrap();
    let last: u64 = rest.lines().next_back().map_or(2, |line| line.parse().unwrap());
    assert!(container.is_gone(), "who ran it has removed it");

    let (mut second, mut out) = in_foreground(&mut restore_command(&container, &[], container.id()));
    assert_eq!((next(&mut out), next(&mut out)), (last + 1, last + 2), "{}", container.err());
    wait_until(|| container.roci(&["state", container.id()]).code == Some(0));
    container.roci(&["kill", container.id(), "TERM"]).ok();
    assert_eq!(second.wait().unwrap().code(), Some(7));
    assert!(container.is_gone());

    // Killed, who waits for it takes it along.
    let (mut third, mut out) = in_foreground(&mut restore_command(&container, &[], container.id()));
    assert_eq!(next(&mut out), last + 1, "{}", container.err());
    let pid = container.pid();
    third.kill().unwrap();
    third.wait().unwrap();
    wait_until(|| container.is_gone() && command_of(pid).is_none());

    // What was tied to a command in the foreground is not tied to one that goes.
    let mut detached = restore_command(&container, &["--detach"], container.id());
    let (mut fourth, mut out) = in_foreground(&mut detached);
    assert!(fourth.wait().unwrap().success());
    for number in last + 1..last + 10 {
        assert_eq!(next(&mut out), number);
    }
    assert_eq!(container.status(), "running");
}

#[test]
fn what_criu_refuses_is_told_in_its_words_with_its_log_and_the_container_runs_on() {
    // More than criu keeps of a file that has no name any more.
    let script = "dd if=/dev/zero of=/tmp/f bs=1M count=2 2>/dev/null; exec 3</tmp/f; rm /tmp/f; echo up; \
                  trap 'exec 3<&-; echo closed' USR1; while :; do sleep 0.02; done";
    let Some(container) = Container::sh(script) else { return };
    if !criu_works() {
        return;
    }
    container.write(|_| {});
    container.bring_up("run", &["--detach"]).ok();
    wait_until(|| container.out() == "up");
    let before = container.state();
    let work = container.file("work");
    let refused = checkpoint(&container, &["--work-path", work.to_str().unwrap()]);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    let log = work.join("dump.log").canonicalize().unwrap();
    for words in ["Error (criu/", "ghost file", log.to_str().unwrap()] {
        assert!(refused.err.contains(words), "{words} in {}", refused.err);
    }
    assert_eq!(container.state(), before);
    assert_eq!(container.exec(&["echo", "inside"]).ok(), "inside");
    let incomplete = not_restored(&container, &["--detach"], "other");
    assert!(incomplete.contains("checkpoint") && incomplete.contains(".img"), "{incomplete}");
    // The same container without that file.
    container.roci(&["kill", container.id(), "USR1"]).ok();
    wait_until(|| container.out().ends_with("closed"));
    checkpoint(&container, &[]).ok();
    restore(&container, &[]);
    assert_eq!(container.exec(&["cat", "/proc/1/comm"]).ok(), "sh");
}

#[test]
fn binds_from_the_host_are_bound_again_from_where_the_configuration_has_them() {
    let source = tempfile::tempdir().unwrap();
    let moved = tempfile::tempdir().unwrap();
    for (directory, word) in [(&source, "first"), (&moved, "second")] {
        // Each on its own: criu finds a mount by itself that shows what another one shows, too.
        for part in ["one", "two"] {
            fs::create_dir(directory.path().join(part)).unwrap();
            fs::write(directory.path().join(part).join("word"), word).unwrap();
        }
    }
    let Some(container) = Container::sh(COUNTER) else { return };
    if !criu_works() {
        return;
    }
    // A destination by a link of the image's, one that has to be made, one file.
    fs::create_dir(container.bundle.root().join("real")).unwrap();
    symlink("/real", container.bundle.root().join("link")).unwrap();
    let write = |from: &Path| {
        container.write(|spec| {
            let bind = |source: &Path, destination: &str, mode: &str| {
                json!({ "destination": destination, "type": "bind", "source": source, "options": ["rbind", mode] })
            };
            let mounts = spec["mounts"].as_array_mut().unwrap();
            mounts.push(bind(&from.join("one"), "/link/there", "rw"));
            mounts.push(bind(&from.join("two"), "/made/for/it", "ro"));
            mounts.push(bind(&from.join("two/word"), "/etc/word", "ro"));
        });
    };
    let look = "cat /real/there/word /made/for/it/word /etc/word; touch /made/for/it/x 2>/dev/null || echo ' closed'";
    write(source.path());
    container.bring_up("run", &["--detach"]).ok();
    wait_until(|| !numbers(&container).is_empty());
    assert_eq!(container.exec(&["sh", "-c", look]).ok(), "firstfirstfirst closed");
    checkpoint(&container, &[]).ok();
    restore(&container, &[]);
    assert_eq!(container.exec(&["sh", "-c", look]).ok(), "firstfirstfirst closed");
    counts_on(&container);

    // To another place, as when it is moved to another host: what the mounts go to has to be made there.
    checkpoint(&container, &[]).ok();
    container.roci(&["delete", container.id()]).ok();
    write(moved.path());
    fs::remove_dir_all(container.bundle.root().join("made")).unwrap();
    restore(&container, &[]);
    assert_eq!(container.exec(&["sh", "-c", look]).ok(), "secondsecondsecond closed");
    counts_on(&container);
    assert!(!source.path().join("two/x").exists() && !moved.path().join("two/x").exists());
    nothing_is_mounted(&container);
}

#[test]
fn a_terminal_is_handed_over_again() {
    let Some(container) = Container::sh("echo up; while read line; do echo got $line; done") else { return };
    if !criu_works() {
        return;
    }
    container.write(|spec| spec["process"]["terminal"] = true.into());
    let path = container.file("console.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let socket = ["--console-socket", path.to_str().unwrap()];
    container.create(&socket).ok();
    let mut master = File::from(receive(&listener).0);
    container.roci(&["start", container.id()]).ok();
    read_until(&mut master, "up");
    checkpoint(&container, &[]).ok();
    drop(master);
    let refusal = not_restored(&container, &["--detach"], container.id());
    assert!(refusal.contains("--console-socket"), "{refusal}");
    restore(&container, &socket);
    let mut master = File::from(receive(&listener).0);
    assert!(!rustix::fs::fcntl_getfl(&master).unwrap().contains(rustix::fs::OFlags::NONBLOCK), "it blocks, as engines expect");
    master.write_all(b"hello\r").unwrap();
    read_until(&mut master, "got hello");

    // In the foreground it is relayed between the container and a terminal of this test's.
    checkpoint(&container, &[]).ok();
    let (mut outer, slave) = open_terminal();
    let stdio = || Stdio::from(slave.try_clone().unwrap());
    let mut command = restore_command(&container, &[], container.id());
    let mut child = command.stdin(stdio()).stdout(stdio()).stderr(stdio()).spawn().unwrap();
    outer.write_all(b"again\r").unwrap();
    read_until(&mut outer, "got again");
    outer.write_all(b"\x04").unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0), "the end of input is the end of its loop");
    assert!(container.is_gone());
}

#[test]
fn memory_can_be_written_ahead_and_is_no_checkpoint_by_itself() {
    let Some(container) = counter(|_| {}) else { return };
    let early = images(&container).join("early");
    let ahead = ["checkpoint", "--pre-dump", "--image-path", early.to_str().unwrap(), container.id()];
    container.roci(&ahead).ok();
    assert_eq!(container.status(), "running");
    let last = images(&container).join("last");
    let mut late = vec!["checkpoint", "--image-path", last.to_str().unwrap(), "--parent-path"];
    for (parent, words) in [("/etc", "relative"), ("../nothing", "nothing"), ("inventory", "inventory")] {
        let run = container.roci(&[&late[..], &[parent, container.id()]].concat());
        assert!(run.code == Some(1) && run.err.contains("--parent-path") && run.err.contains(words), "{run:?}");
    }
    late.extend(["../early", container.id()]);
    container.roci(&late).ok();
    assert_eq!(container.status(), "stopped");
    let restore_from = |path: &Path| restore_command_from(path, &container, &["--detach"], container.id());
    let refused = Run::of(restore_from(&early).stderr(Stdio::piped()).output().unwrap());
    assert!(refused.code == Some(1) && refused.err.contains("--pre-dump"), "{refused:?}");
    assert!(restore_from(&last).status().unwrap().success(), "{}", container.err());
    counts_on(&container);
}

#[test]
fn a_network_that_was_given_is_kept_and_hooks_run_before_its_processes_do() {
    let Some(container) = Container::sh(COUNTER) else { return };
    if !criu_works() {
        return;
    }
    // A namespace kept by a process that does nothing else.
    let mut keeper = Command::new("unshare").args(["--net", "sleep", "1000"]).spawn().unwrap();
    let path = format!("/proc/{}/ns/net", keeper.id());
    let own = fs::read_link("/proc/self/ns/net").unwrap();
    wait_until(|| {
        fs::read_link(&path).is_ok_and(|link| link != own)
            && command_of(keeper.id() as i32).is_some_and(|line| line.starts_with(b"sleep"))
    });
    let log = container.file("hooks.log");
    let write = |more: &str| {
        container.write(|spec| {
            for namespace in spec["linux"]["namespaces"].as_array_mut().unwrap() {
                if namespace["type"] == "network" {
                    namespace["path"] = json!(path);
                }
            }
            for kind in ["prestart", "createRuntime", "poststop"] {
                let script = format!("echo {kind} $(grep -o '\"status\":\"[a-z]*\"') >> {}; {more}", log.display());
                spec["hooks"][kind] = json!([{ "path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/usr/bin:/bin"] }]);
            }
        });
    };
    write("");
    container.bring_up("run", &["--detach"]).ok();
    wait_until(|| !numbers(&container).is_empty());
    let network = |container: &Container| fs::read_link(format!("/proc/{}/ns/net", container.pid())).unwrap();
    let before = network(&container);
    checkpoint(&container, &[]).ok();
    container.roci(&["delete", container.id()]).ok();
    fs::write(&log, "").unwrap();
    restore(&container, &[]);
    assert_eq!(network(&container), before);
    counts_on(&container);
    assert_eq!(fs::read_to_string(&log).unwrap(), "prestart \"status\":\"created\"\ncreateRuntime \"status\":\"creating\"\n");

    // One that fails ends the restore.
    checkpoint(&container, &[]).ok();
    container.roci(&["delete", container.id()]).ok();
    write("echo oh no; exit 3");
    let refusal = not_restored(&container, &["--detach"], container.id());
    assert!(refusal.contains("prestart") && refusal.contains("oh no"), "{refusal}");
    assert!(container.is_gone());
    nothing_is_mounted(&container);
    keeper.kill().unwrap();
    keeper.wait().unwrap();
}

#[test]
fn damaged_images_leave_nothing_behind() {
    let Some(container) = counter(|_| {}) else { return };
    checkpoint(&container, &[]).ok();
    container.roci(&["delete", container.id()]).ok();
    let whole = images(&container);
    let kept = container.file("kept");
    fs::rename(&whole, &kept).unwrap();
    let names: Vec<_> = fs::read_dir(&kept).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    for damaged in ["core-1.img", "pstree.img", "inventory.img", "mountpoints", "pages-1.img", "descriptors.json", "files.img"] {
        fs::create_dir(&whole).unwrap();
        for name in &names {
            let mut bytes = fs::read(kept.join(name)).unwrap();
            if name.starts_with(damaged) {
                bytes.truncate(bytes.len() / 2);
            }
            fs::write(whole.join(name), bytes).unwrap();
        }
        let refusal = not_restored(&container, &["--detach"], container.id());
        assert!(refusal.contains("/images"), "{damaged}: {refusal}");
        assert!(container.is_gone(), "{damaged}");
        nothing_is_mounted(&container);
        fs::remove_dir_all(&whole).unwrap();
    }
    fs::rename(&kept, &whole).unwrap();
    restore(&container, &[]);
    counts_on(&container);
}
