//! Filters, loaded by the real launch: what becomes of system calls.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use crate::bundle::Bundle;
use crate::needs::{required, root};

/// Everything is allowed but what `rules` say.
fn profile(spec: &mut Value, rules: &Value) {
    spec["linux"]["seccomp"] = json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules });
}

const MKDIR: [&str; 2] = ["mkdir", "mkdirat"];

#[test]
fn each_action_does_what_it_says() {
    let Some(bundle) = Bundle::sh("mkdir /tmp/d; echo code $?") else { return };
    for (action, errno, out, err) in [
        ("SCMP_ACT_ALLOW", None, "code 0", ""),
        ("SCMP_ACT_LOG", None, "code 0", ""),
        ("SCMP_ACT_ERRNO", None, "code 1", "Operation not permitted"),
        ("SCMP_ACT_ERRNO", Some(28), "code 1", "No space left"),
        // Without a tracer the call is as if the kernel did not have it.
        ("SCMP_ACT_TRACE", Some(5), "code 1", "not implemented"),
        ("SCMP_ACT_TRAP", None, "code 159", "Bad system call"),
        ("SCMP_ACT_KILL", None, "code 159", "Bad system call"),
        ("SCMP_ACT_KILL_THREAD", None, "code 159", "Bad system call"),
        ("SCMP_ACT_KILL_PROCESS", None, "code 159", "Bad system call"),
    ] {
        let _ = fs::remove_dir(bundle.root().join("tmp/d"));
        let run = bundle.run_edited(|spec| {
            // The action of the rule must not be the default one, or it would be no rule.
            let mut rule = json!({ "names": MKDIR, "action": action });
            if let Some(errno) = errno {
                rule["errnoRet"] = json!(errno);
            }
            profile(spec, &json!([rule]));
            if action == "SCMP_ACT_ALLOW" {
                spec["linux"]["seccomp"]["defaultAction"] = json!("SCMP_ACT_LOG");
            }
        });
        assert_eq!((run.code, run.out.as_str()), (Some(0), out), "{action}: {}", run.err);
        assert!(run.err.contains(err), "{action}: {}", run.err);
    }
    let run = bundle.run_edited(|spec| {
        profile(spec, &json!([{ "names": MKDIR, "action": "SCMP_ACT_KILL_PROCESS" }]));
        spec["process"]["args"] = json!(["mkdir", "/tmp/other"]);
    });
    assert_eq!(run.code, Some(128 + 31), "the container's own exit code");
}

#[test]
fn the_default_errno_and_flags_count() {
    let Some(bundle) = Bundle::sh("mkdir /tmp/d") else { return };
    let run = bundle.run_edited(|spec| {
        // All of the default profile but mkdir: what is left is answered by the default.
        spec["linux"]["seccomp"]["defaultErrnoRet"] = json!(38);
        spec["linux"]["seccomp"]["flags"] =
            json!(["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW", "SECCOMP_FILTER_FLAG_TSYNC"]);
        for rule in spec["linux"]["seccomp"]["syscalls"].as_array_mut().unwrap() {
            rule["names"].as_array_mut().unwrap().retain(|name| !MKDIR.contains(&name.as_str().unwrap()));
        }
        spec["linux"]["seccomp"]["syscalls"].as_array_mut().unwrap().retain(|rule| !rule["names"].as_array().unwrap().is_empty());
    });
    assert_eq!(run.code, Some(1));
    assert!(run.err.contains("not implemented"), "{}", run.err);
}

#[test]
fn arguments_are_compared_by_every_operator() {
    let Some(bundle) = Bundle::sh("for m in 700 704 755; do chmod $m /tmp/f 2>/dev/null && echo $m; done") else { return };
    fs::write(bundle.root().join("tmp/f"), "").unwrap();
    for (operator, value, two, allowed) in [
        ("SCMP_CMP_EQ", 0o704, 0, "700 755"),
        ("SCMP_CMP_NE", 0o704, 0, "704"),
        ("SCMP_CMP_LT", 0o704, 0, "704 755"),
        ("SCMP_CMP_LE", 0o704, 0, "755"),
        ("SCMP_CMP_GT", 0o704, 0, "700 704"),
        ("SCMP_CMP_GE", 0o704, 0, "700"),
        ("SCMP_CMP_MASKED_EQ", 0o077, 0o004, "700 755"),
    ] {
        let run = bundle.run_edited(|spec| {
            let rule = |names: Value, index: u32| {
                let argument = json!({ "index": index, "value": value, "valueTwo": two, "op": operator });
                json!({ "names": names, "action": "SCMP_ACT_ERRNO", "args": [argument] })
            };
            profile(spec, &json!([rule(json!(["chmod"]), 1), rule(json!(["fchmodat"]), 2)]));
        });
        assert_eq!(run.out.split_whitespace().collect::<Vec<_>>().join(" "), allowed, "{operator}: {}", run.err);
    }
}

/// An agent that refuses with ENOSPC what it is asked about, and prints what it was sent. In C, as the
/// kernel's interface is.
const AGENT: &str = r#"
#define _GNU_SOURCE
#include <errno.h>
#include <linux/seccomp.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
int main(int argc, char **argv) {
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    strncpy(address.sun_path, argv[1], sizeof address.sun_path - 1);
    int server = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (bind(server, (void *)&address, sizeof address) || listen(server, 1)) return 2;
    puts("listening"); fflush(stdout);
    int client = accept(server, 0, 0), fd = -1;
    char text[65536] = { 0 }, space[CMSG_SPACE(sizeof fd)];
    struct iovec part = { text, sizeof text - 1 };
    struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1, .msg_control = space, .msg_controllen = sizeof space };
    ssize_t length = recvmsg(client, &message, MSG_CMSG_CLOEXEC);
    struct cmsghdr *control = CMSG_FIRSTHDR(&message);
    if (length <= 0 || !control || control->cmsg_type != SCM_RIGHTS) return 3;
    memcpy(&fd, CMSG_DATA(control), sizeof fd);
    for (ssize_t more; (more = read(client, text + length, sizeof text - 1 - length)) > 0;) length += more;
    puts(text); fflush(stdout);
    for (;;) {
        struct seccomp_notif asked; struct seccomp_notif_resp answer;
        memset(&asked, 0, sizeof asked); memset(&answer, 0, sizeof answer);
        if (ioctl(fd, SECCOMP_IOCTL_NOTIF_RECV, &asked)) { if (errno == EINTR) continue; return 0; }
        answer.id = asked.id; answer.error = -ENOSPC;
        ioctl(fd, SECCOMP_IOCTL_NOTIF_SEND, &answer);
        printf("asked %d\n", asked.data.nr); fflush(stdout);
    }
}
"#;

struct Agent {
    child: Child,
    lines: BufReader<std::process::ChildStdout>,
    socket: PathBuf,
}

impl Agent {
    fn start(directory: &Path) -> Option<Self> {
        let (source, binary) = (directory.join("agent.c"), directory.join("agent"));
        fs::write(&source, AGENT).unwrap();
        let compiled = Command::new("cc").arg(&source).arg("-o").arg(&binary).output();
        if !required(compiled.is_ok_and(|output| output.status.success()), "a C compiler with the kernel's headers") {
            return None;
        }
        let socket = directory.join("agent.sock");
        let mut child = Command::new(&binary).arg(&socket).stdout(Stdio::piped()).spawn().unwrap();
        let mut agent = Self { lines: BufReader::new(child.stdout.take().unwrap()), child, socket };
        assert_eq!(agent.line(), "listening");
        Some(agent)
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn an_agent_decides_about_calls_and_is_told_whose_they_are() {
    for no_new_privileges in [false, true] {
        let Some(bundle) = Bundle::sh("mkdir /tmp/d; ls /proc/self/fd | wc -l") else { return };
        if !root() {
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let Some(mut agent) = Agent::start(directory.path()) else { return };
        let run = bundle.run_edited(|spec| {
            profile(spec, &json!([{ "names": MKDIR, "action": "SCMP_ACT_NOTIFY" }]));
            spec["linux"]["seccomp"]["listenerPath"] = json!(agent.socket);
            spec["linux"]["seccomp"]["listenerMetadata"] = json!("for the agent");
            spec["linux"]["seccomp"]["flags"] = json!(["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV", "SECCOMP_FILTER_FLAG_TSYNC"]);
            spec["process"]["noNewPrivileges"] = json!(no_new_privileges);
            spec["annotations"] = json!({ "a.key": "a value" });
        });
        assert!(run.err.contains("No space left"), "{}", run.err);
        assert_eq!(run.out, "4", "0 to 2 and the directory ls reads: the listener is not among them");
        let state: Value = serde_json::from_str(&agent.line()).unwrap();
        assert_eq!(state["fds"], json!(["seccompFd"]));
        assert_eq!(state["metadata"], json!("for the agent"));
        assert!(state["ociVersion"].is_string() && state["pid"].as_i64().unwrap() > 1);
        let container = &state["state"];
        assert_eq!(container["id"], json!(bundle.id));
        assert_eq!(container["status"], json!("creating"));
        assert_eq!(container["pid"], state["pid"]);
        assert_eq!(container["bundle"], json!(fs::canonicalize(bundle.directory.path()).unwrap()));
        assert_eq!(container["annotations"]["a.key"], json!("a value"));
        assert!(agent.line().starts_with("asked "), "it was asked about the call");
    }
}

#[test]
fn wrong_profiles_are_refused_by_name() {
    let Some(bundle) = Bundle::sh("true") else { return };
    let rule = |rule: Value| json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule] });
    for (seccomp, names) in [
        (rule(json!({ "names": ["mkdir"], "action": "SCMP_ACT_NOTIFY" })), "linux.seccomp.listenerPath"),
        (json!({ "defaultAction": "SCMP_ACT_NOTIFY", "listenerPath": "/x" }), "linux.seccomp.defaultAction"),
        (json!({ "defaultAction": "SCMP_ACT_ALLOW", "listenerMetadata": "x" }), "linux.seccomp.listenerMetadata"),
        (json!({ "defaultAction": "SCMP_ACT_ALLOW", "defaultErrnoRet": 1 }), "linux.seccomp.defaultErrnoRet"),
        (rule(json!({ "names": ["mkdir"], "action": "SCMP_ACT_KILL", "errnoRet": 1 })), "linux.seccomp.syscalls[].errnoRet"),
        (rule(json!({ "names": [], "action": "SCMP_ACT_ERRNO" })), "linux.seccomp.syscalls[].names"),
        (
            rule(
                json!({ "names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "args": [{ "index": 6, "value": 1, "op": "SCMP_CMP_EQ" }] }),
            ),
            "args[].index",
        ),
        (rule(json!({ "names": ["sendmsg"], "action": "SCMP_ACT_NOTIFY" })), "sendmsg"),
        (rule(json!({ "names": ["mkdir"], "action": "SCMP_ACT_MAYBE" })), "SCMP_ACT_MAYBE"),
        (json!({ "defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_PDP11"] }), "SCMP_ARCH_PDP11"),
    ] {
        let run = bundle.run_edited(|spec| spec["linux"]["seccomp"] = seccomp.clone());
        assert_eq!(run.code, Some(125), "{seccomp}: {}", run.out);
        assert!(run.err.contains(names), "{seccomp}: {}", run.err);
    }
    let run = bundle.run_edited(|spec| {
        profile(spec, &json!([{ "names": ["mkdir"], "action": "SCMP_ACT_NOTIFY" }]));
        spec["linux"]["seccomp"]["listenerPath"] = json!("/no/agent/here");
    });
    assert!(run.code == Some(125) && run.err.contains("/no/agent/here"), "{}", run.err);
}
