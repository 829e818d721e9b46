//! Further processes in a running container.

use std::fs;
use std::process::Stdio;

use serde_json::json;

use crate::bundle::Run;
use crate::container::{Container, SERVICE, wait_until};

#[test]
fn a_process_joins_all_namespaces_and_the_cgroups() {
    let Some(container) = Container::service() else { return };
    let pid = container.pid();
    let names = ["pid", "mnt", "net", "ipc", "uts", "cgroup"];
    let script = names.map(|name| format!("readlink /proc/self/ns/{name}")).join("; ");
    let inside = container.exec(&["sh", "-c", &script]).ok();
    for (name, inside) in names.iter().zip(inside.lines()) {
        assert_eq!(fs::read_link(format!("/proc/{pid}/ns/{name}")).unwrap().to_str(), Some(inside), "{name}");
    }
    // The cgroups as the host sees them: by a process that stays.
    let pid_file = container.file("exec.pid");
    let args = ["exec", "--detach", "--pid-file", pid_file.to_str().unwrap(), container.id(), "sleep", "1000"];
    assert!(container.command(&args).stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success());
    let other = fs::read_to_string(&pid_file).unwrap();
    let cgroups = |pid: &str| fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    assert_eq!(cgroups(&other), cgroups(&pid.to_string()));
    assert_ne!(cgroups(&other), cgroups("self"));
}

#[test]
fn environment_directory_user_and_groups_are_the_container_s_unless_told_otherwise() {
    let Some(container) = Container::service() else { return };
    let out = container.roci(&[
        "exec",
        "--env",
        "A=b c",
        "-e",
        "B=2",
        "--cwd",
        "/tmp",
        "--user",
        "5:6",
        "-g",
        "7",
        "-g",
        "8",
        container.id(),
        "sh",
        "-c",
        "echo $A $B $PATH; pwd; id -u; id -G",
    ]);
    let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    assert_eq!(out.ok(), format!("b c 2 {path}\n/tmp\n5\n6 7 8"));
    let first = container.exec(&["sh", "-c", "pwd; id -u; umask; cat /proc/1/cmdline | head -c 2"]).ok();
    assert_eq!(first, "/\n0\n0022\nsh");
}

#[test]
fn a_variable_is_there_once_and_the_home_directory_is_the_user_s() {
    let Some(container) = Container::sh(SERVICE) else { return };
    fs::write(container.bundle.root().join("etc/passwd"), "root:x:0:0::/root:/bin/sh\nfive:x:5:5::/five:/bin/sh\n").unwrap();
    container.write(|spec| spec["process"]["env"] = json!(["PATH=/bin", "A=1", "HOME=/x", "A=2", "HOME="]));
    container.bring_up("run", &["--detach"]).ok();
    assert_eq!(container.exec(&["env"]).ok(), "PATH=/bin\nA=2\nHOME=/root");
    let home = |flags: &[&str]| container.roci(&[&["exec"], flags, &[container.id(), "sh", "-c", "echo $HOME"]].concat()).ok();
    assert_eq!(home(&["--user", "5"]), "/five");
    assert_eq!(home(&["--user", "6"]), "/");
    assert_eq!(home(&["--env", "HOME=/given"]), "/given");
    // A document may leave the user out: runc's own default is user 0.
    fs::write(container.file("process.json"), r#"{"args":["sh","-c","id -u; echo $HOME"],"cwd":"/"}"#).unwrap();
    let document = container.file("process.json");
    assert_eq!(container.roci(&["exec", "--process", document.to_str().unwrap(), container.id()]).ok(), "0\n/root");
}

#[test]
fn exit_codes_and_signals_are_the_command_s() {
    let Some(container) = Container::service() else { return };
    assert_eq!(container.exec(&["sh", "-c", "exit 42"]).code, Some(42));
    assert_eq!(container.exec(&["sh", "-c", "kill -9 $$"]).code, Some(137));
    let missing = container.exec(&["no-such-command"]);
    assert!(missing.code == Some(255) && missing.err.contains("executable file not found in $PATH"), "{missing:?}");
    assert_eq!(container.roci(&["exec", container.id()]).code, Some(255));
    assert_eq!(container.status(), "running");
}

#[test]
fn a_process_document_is_taken_as_it_is() {
    let Some(container) = Container::service() else { return };
    let path = container.file("process.json");
    let document = json!({
        "args": ["sh", "-c", "echo $ONLY; env | grep -c .; pwd; id -u; grep -E 'CapEff|NoNewPrivs' /proc/self/status"],
        "cwd": "/etc", "env": ["ONLY=this", "PATH=/bin"], "user": { "uid": 12, "gid": 13 }, "noNewPrivileges": true,
    });
    fs::write(&path, document.to_string()).unwrap();
    let out = container.roci(&["exec", "--process", path.to_str().unwrap(), container.id()]).ok();
    assert!(out.starts_with("this\n"), "{out}");
    assert!(out.contains("/etc\n12\n") && out.contains("CapEff:\t0000000000000000") && out.contains("NoNewPrivs:\t1"), "{out}");
    fs::write(&path, "{\"args\": [").unwrap();
    let broken = container.roci(&["exec", "--process", path.to_str().unwrap(), container.id()]);
    assert!(broken.code == Some(255) && broken.err.contains("process.json"), "{broken:?}");
}

#[test]
fn input_is_read_and_output_streams_stay_apart() {
    let Some(container) = Container::service() else { return };
    let mut command = container.command(&["exec", container.id(), "sh", "-c", "read line; echo out $line; echo err >&2"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), b"typed\n").unwrap();
    let run = Run::of(child.wait_with_output().unwrap());
    assert_eq!((run.out.as_str(), run.err.as_str()), ("out typed", "err"));
}

#[test]
fn a_detached_process_outlives_the_command_and_ends_with_the_container() {
    let Some(container) = Container::service() else { return };
    let pid_file = container.file("exec.pid");
    let mut command =
        container.command(&["exec", "-d", "--pid-file", pid_file.to_str().unwrap(), container.id(), "sleep", "1000"]);
    assert!(command.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success());
    let pid = fs::read_to_string(&pid_file).unwrap();
    assert!(fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap().starts_with("sleep"));
    container.roci(&["delete", "--force", container.id()]).ok();
    let ended = || fs::read_to_string(format!("/proc/{pid}/stat")).map_or(true, |stat| stat.contains(") Z "));
    wait_until(ended);
}

#[test]
fn a_created_container_can_be_looked_into_before_it_starts() {
    let Some(container) = Container::sh(SERVICE) else { return };
    container.write(|_| {});
    container.create(&[]).ok();
    assert_eq!(container.exec(&["hostname"]).ok(), container.id().chars().take(12).collect::<String>());
    assert_eq!(container.status(), "created");
}

#[test]
fn signals_to_the_command_reach_the_process() {
    let Some(container) = Container::service() else { return };
    let script = "trap 'exit 33' TERM; echo up; while :; do sleep 0.02; done";
    let mut child = container.command(&["exec", container.id(), "sh", "-c", script]).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stdout.as_mut().unwrap()), &mut line).unwrap();
    rustix::process::kill_process(rustix::process::Pid::from_raw(child.id() as i32).unwrap(), rustix::process::Signal::TERM)
        .unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(33));
}

#[test]
fn the_container_s_seccomp_filter_holds_for_further_processes() {
    let Some(container) = Container::service() else { return };
    let out = container.exec(&["sh", "-c", "grep Seccomp: /proc/self/status; unshare -U true 2>&1"]);
    assert!(out.out.contains("Seccomp:\t2") && out.out.contains("not permitted"), "{out:?}");
}
