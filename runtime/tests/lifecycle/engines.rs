//! podman and buildah, unchanged, with `roci` in runc's place.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::bundle::{Bundle, ROCI, Run};
use crate::checkpoint::criu_knows_this_kernel;
use crate::container::{pack, wait_until};
use crate::needs::{installed, root};
use crate::systemd;

/// A storage of an engine's own, with one image in it.
struct Engine {
    directory: tempfile::TempDir,
    /// Whether containers of it are to be ended with it.
    podman: bool,
    /// Who makes cgroups for podman: `cgroupfs` or `systemd`.
    cgroup_manager: &'static str,
}

/// The image's name.
const IMAGE: &str = "localhost/box:latest";

impl Engine {
    /// podman with an image of busybox; `None` where it cannot be.
    fn podman() -> Option<Self> {
        let bundle = Bundle::sh("true")?;
        if !root() || !installed("podman") || !installed("tar") {
            return None;
        }
        let engine = Self { directory: tempfile::tempdir().unwrap(), podman: true, cgroup_manager: "cgroupfs" };
        let archive = engine.path("box.tar");
        pack(&bundle.root(), &archive);
        let script = format!("#!/bin/sh\nexec {ROCI} --root {} \"$@\"\n", engine.path("state").display());
        fs::write(engine.path("roci"), script).unwrap();
        fs::set_permissions(engine.path("roci"), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        // What podman asks of a machine beyond Debian's defaults is not under test.
        let limits = "[containers]\ndefault_ulimits = [\"nofile=1024:4096\", \"nproc=4096:4096\"]\n";
        fs::write(engine.path("containers.conf"), limits).unwrap();
        engine.succeed(&["import", "--change", "CMD sh", archive.to_str().unwrap(), IMAGE]);
        Some(engine)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Storage, and the runtime: a script, because podman's cleanup forgets a runtime's flags.
    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("podman");
        command.arg("--root").arg(self.path("root")).arg("--runroot").arg(self.path("run")).arg("--tmpdir").arg(self.path("tmp"));
        command.args(["--storage-driver", "vfs", "--cgroup-manager", self.cgroup_manager, "--events-backend", "none"]);
        command.arg("--runtime").arg(self.path("roci")).env("CONTAINERS_CONF", self.path("containers.conf"));
        command.args(args).stdin(Stdio::null());
        command
    }

    fn output(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    fn run(&self, args: &[&str]) -> Run {
        Run::of(self.output(args))
    }

    #[track_caller]
    fn succeed(&self, args: &[&str]) -> String {
        let run = self.run(args);
        assert_eq!(run.code, Some(0), "{args:?}: {run:?}");
        run.out
    }

    /// `podman run --rm` of a script.
    fn sh(&self, options: &[&str], script: &str) -> Run {
        let fixed = ["run", "--rm", "--network", "none"];
        self.run(&[&fixed[..], options, &[IMAGE, "sh", "-c", script]].concat())
    }

    /// A container in the background that says `up`, by name.
    fn service(&self, name: &str, options: &[&str]) {
        let fixed = ["run", "-d", "--name", name, "--network", "none"];
        let script = "trap 'exit 7' TERM; echo up; while :; do sleep 0.05; done";
        self.succeed(&[&fixed[..], options, &[IMAGE, "sh", "-c", script]].concat());
        wait_until(|| self.succeed(&["logs", name]).contains("up"));
    }

    /// The containers `roci` knows.
    fn known(&self) -> usize {
        fs::read_dir(self.path("state")).map_or(0, Iterator::count)
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if self.podman {
            let _ = self.output(&["pod", "rm", "--all", "--force"]);
            let _ = self.output(&["rm", "--all", "--force", "--time", "0"]);
        }
    }
}

#[test]
fn podman_runs_a_container_and_its_exit_code_is_the_command_s() {
    let Some(podman) = Engine::podman() else { return };
    assert_eq!(podman.sh(&["--env", "A=b"], "echo $A; hostname >/dev/null; exit 0").ok(), "b");
    assert_eq!(podman.sh(&[], "exit 42").code, Some(42));
    assert_eq!(podman.sh(&[], "kill -9 $$; sleep 1").code, Some(0), "init ignores what it sends itself");
    let missing = podman.run(&["run", "--rm", "--network", "none", IMAGE, "no-such"]);
    assert_eq!(missing.code, Some(127), "{missing:?}");
    let plain = podman.sh(&[], "chmod 755 /etc; echo x >/etc/plain; /etc/plain");
    assert_ne!(plain.code, Some(0));
    let directory = podman.run(&["run", "--rm", "--network", "none", IMAGE, "/etc"]);
    assert_eq!(directory.code, Some(126), "{directory:?}");
    assert_eq!(podman.known(), 0, "nothing is left");
}

#[test]
fn podman_executes_stops_pauses_lists_and_removes() {
    let Some(podman) = Engine::podman() else { return };
    podman.service("one", &[]);
    assert_eq!(podman.succeed(&["exec", "one", "sh", "-c", "echo inside; id -u"]), "inside\n0");
    assert_eq!(
        podman.run(&["exec", "--user", "5", "--workdir", "/tmp", "-e", "X=y", "one", "sh", "-c", "id -u; pwd; echo $X"]).ok(),
        "5\n/tmp\ny"
    );
    assert_eq!(podman.run(&["exec", "one", "sh", "-c", "exit 9"]).code, Some(9));
    assert_eq!(podman.run(&["exec", "one", "no-such"]).code, Some(127));
    podman.succeed(&["exec", "-d", "one", "sleep", "1000"]);
    assert!(podman.succeed(&["top", "one", "args"]).contains("sleep 1000"));
    podman.succeed(&["pause", "one"]);
    assert_eq!(podman.succeed(&["inspect", "--format", "{{.State.Status}}", "one"]), "paused");
    podman.succeed(&["unpause", "one"]);
    podman.succeed(&["stop", "--time", "10", "one"]);
    assert_eq!(podman.succeed(&["inspect", "--format", "{{.State.Status}} {{.State.ExitCode}}", "one"]), "exited 7");
    podman.succeed(&["start", "one"]);
    wait_until(|| podman.succeed(&["logs", "one"]).matches("up").count() == 2);
    podman.succeed(&["kill", "--signal", "KILL", "one"]);
    wait_until(|| podman.succeed(&["inspect", "--format", "{{.State.ExitCode}}", "one"]) == "137");
    podman.succeed(&["rm", "one"]);
    assert_eq!(podman.known(), 0);
}

#[test]
fn podman_s_options_for_limits_and_confinement_hold() {
    let Some(podman) = Engine::podman() else { return };
    let file = |v1: &str| format!("cat /sys/fs/cgroup/{v1} 2>/dev/null || cat /sys/fs/cgroup/*/{v1}");
    let memory =
        podman.sh(&["--memory", "64m"], "cat /sys/fs/cgroup/memory/memory.limit_in_bytes || cat /sys/fs/cgroup/memory.max");
    assert_eq!(memory.out, (64 << 20).to_string(), "{memory:?}");
    let pids = podman.sh(&["--pids-limit", "33"], &file("pids/pids.max"));
    assert_eq!(pids.out, "33", "{pids:?}");
    let read_only = podman.sh(&["--read-only"], "touch /x; touch /run/x && echo run");
    assert!(read_only.err.contains("Read-only") && read_only.out == "run", "{read_only:?}");
    let caps = "grep CapEff /proc/self/status | while read k v; do echo $v; done";
    assert_eq!(podman.sh(&["--cap-drop", "all"], caps).ok(), "0000000000000000");
    assert_eq!(podman.sh(&["--cap-drop", "all", "--cap-add", "chown"], caps).ok(), "0000000000000001");
    let profile = podman.path("seccomp.json");
    let text = r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO","errnoRet":95}]}"#;
    fs::write(&profile, text).unwrap();
    let seccomp = podman.sh(&["--security-opt", &format!("seccomp={}", profile.display())], "mkdir /x");
    assert!(seccomp.code != Some(0) && seccomp.err.contains("supported"), "{seccomp:?}");
    let secured = podman.sh(&["--security-opt", "no-new-privileges"], "grep NoNewPrivs /proc/self/status");
    assert_eq!(secured.ok(), "NoNewPrivs:\t1");
    assert_eq!(podman.sh(&["--user", "5:6"], "id -u; id -g").ok(), "5\n6");
    assert_eq!(
        podman.sh(&["--hostname", "given", "--sysctl", "kernel.msgmax=4321"], "hostname; cat /proc/sys/kernel/msgmax").ok(),
        "given\n4321"
    );
    let volume = format!("{}:/v:ro", podman.path("").display());
    let volume = podman.sh(&["--volume", &volume, "--tmpfs", "/t"], "ls /v/box.tar; touch /v/x; touch /t/x");
    assert!(volume.out == "/v/box.tar" && volume.err.contains("Read-only"), "{volume:?}");
    let script = "readlink /proc/self/ns/pid; readlink /proc/self/ns/net";
    let shared = ["run", "--rm", "--network", "host", "--pid", "host", "--ipc", "host", IMAGE, "sh", "-c", script];
    let own = ["pid", "net"].map(|name| fs::read_link(format!("/proc/self/ns/{name}")).unwrap().display().to_string());
    assert_eq!(podman.succeed(&shared), own.join("\n"));
}

#[test]
fn podman_gives_a_container_an_init() {
    let Some(podman) = Engine::podman() else { return };
    if !installed("catatonit") {
        return;
    }
    let path = ["/usr/libexec/podman/catatonit", "/usr/bin/catatonit"].into_iter().find(|path| Path::new(path).exists()).unwrap();
    let run = podman.sh(&["--init", "--init-path", path], "cat /proc/1/comm; echo $$");
    let lines: Vec<_> = run.out.lines().collect();
    assert_eq!(lines[0], "podman-init", "{run:?}");
    assert_ne!(lines[1], "1");
}

#[test]
fn podman_connects_a_terminal() {
    let Some(podman) = Engine::podman() else { return };
    if !installed("script") {
        return;
    }
    // `script` is a terminal for podman; podman's is the container's.
    let ask = |args: &[&str], typed: &str| {
        let command: Vec<String> = std::iter::once("podman".to_owned())
            .chain(
                podman
                    .command(args)
                    .get_args()
                    .map(|argument| format!("'{}'", argument.to_str().unwrap().replace('\'', "'\\''"))),
            )
            .collect();
        let mut script = Command::new("script");
        script.env("CONTAINERS_CONF", podman.path("containers.conf"));
        script
            .args(["-qec", &command.join(" "), "/dev/null"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = script.spawn().unwrap();
        let mut input = child.stdin.take().unwrap();
        std::io::Write::write_all(&mut input, typed.as_bytes()).unwrap();
        let run = Run::of(child.wait_with_output().unwrap());
        drop(input);
        run
    };
    let options = ["run", "--rm", "-it", "--network", "none", IMAGE];
    let talk = "tty; read line; echo got $line; [ -t 0 ] && exit 9";
    let run = ask(&[&options[..], &["sh", "-c", talk]].concat(), "typed\n");
    assert!(run.out.contains("/dev/pts/0") && run.out.contains("got typed"), "{run:?}");
    assert_eq!(run.code, Some(9), "{run:?}");
    podman.service("one", &[]);
    let exec = ask(&["exec", "-it", "one", "sh", "-c", talk], "again\n");
    assert!(exec.out.contains("/dev/pts/") && exec.out.contains("got again"), "{exec:?}");
    assert_eq!(exec.code, Some(9), "{exec:?}");
}

#[test]
fn podman_s_pods_share_namespaces() {
    let Some(podman) = Engine::podman() else { return };
    podman.succeed(&[
        "pod",
        "create",
        "--name",
        "pod",
        "--network",
        "none",
        "--infra-image",
        IMAGE,
        "--infra-command",
        "sleep 1000",
        "--share",
        "net,ipc,uts,pid",
    ]);
    let script = "for n in net ipc uts pid; do readlink /proc/self/ns/$n; done";
    let one = podman.run(&["run", "--rm", "--pod", "pod", IMAGE, "sh", "-c", script]);
    let two = podman.run(&["run", "--rm", "--pod", "pod", IMAGE, "sh", "-c", &format!("{script}; ps | grep -c '[s]leep 1000'")]);
    assert_eq!(one.code, Some(0), "{one:?}");
    assert_eq!(two.ok(), format!("{}\n1", one.out));
    let own = fs::read_link("/proc/self/ns/net").unwrap();
    assert!(!one.out.contains(own.to_str().unwrap()));
    podman.succeed(&["pod", "stop", "--time", "0", "pod"]);
    podman.succeed(&["pod", "rm", "--force", "pod"]);
    assert_eq!(podman.known(), 0);
}

#[test]
fn buildah_runs_commands_of_a_build() {
    let Some(podman) = Engine::podman() else { return };
    if !installed("buildah") {
        return;
    }
    let buildah = |args: &[&str]| {
        let mut command = Command::new("buildah");
        command.arg("--root").arg(podman.path("root")).arg("--runroot").arg(podman.path("run")).args(["--storage-driver", "vfs"]);
        Run::of(command.args(args).stdin(Stdio::null()).output().unwrap())
    };
    let container = buildah(&["from", "--pull-never", "--isolation", "oci", IMAGE]).ok();
    let run = |command: &[&str]| {
        buildah(&[&["run", "--runtime", ROCI, "--isolation", "oci", "--network", "none", &container, "--"], command].concat())
    };
    assert_eq!(run(&["sh", "-c", "echo built >/made; id -u"]).ok(), "0");
    assert_eq!(run(&["cat", "/made"]).ok(), "built");
    let failed = run(&["sh", "-c", "exit 5"]);
    assert_eq!(failed.code, Some(5), "{failed:?}");
    buildah(&["rm", &container]).ok();
}

#[test]
fn podman_has_systemd_make_cgroups() {
    let Some(mut engine) = Engine::podman() else { return };
    if !systemd::booted() {
        return;
    }
    engine.cgroup_manager = "systemd";
    let pod = ["pod", "create", "--name", "group", "--infra=false"];
    engine.succeed(&pod);
    for options in
        [&["--memory", "64m", "--pids-limit", "20"] as &[&str], &["--memory", "64m", "--pids-limit", "20", "--pod", "group"]]
    {
        engine.service("scoped", options);
        let pid = engine.succeed(&["inspect", "--format", "{{.State.Pid}}", "scoped"]);
        let cgroup = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
        let path = cgroup.trim().strip_prefix("0::/").unwrap();
        assert!(path.starts_with("machine.slice/") && path.contains("libpod") && path.ends_with(".scope"), "{path}");
        let directory = Path::new("/sys/fs/cgroup").join(path);
        let limit = |file: &str| fs::read_to_string(directory.join(file)).unwrap().trim().to_owned();
        assert_eq!((limit("memory.max").as_str(), limit("pids.max").as_str()), ("67108864", "20"));
        let unit = directory.file_name().unwrap().to_str().unwrap();
        assert_eq!(systemd::systemctl(&["show", "--value", "--property", "TasksMax", unit]), "20");
        assert_eq!(engine.run(&["exec", "scoped", "echo", "inside"]).out, "inside");
        assert_eq!(engine.run(&["stop", "scoped"]).code, Some(0));
        engine.succeed(&["rm", "-f", "scoped"]);
        assert_eq!(systemd::systemctl(&["show", "--value", "--property", "LoadState", unit]), "not-found");
        assert!(!directory.exists());
    }
    assert_eq!(engine.known(), 0);
}

#[test]
fn podman_checkpoints_and_restores_a_container_or_is_told_what_criu_says() {
    let Some(engine) = Engine::podman() else { return };
    if !installed("criu") {
        return;
    }
    engine.service("saved", &[]);
    let left = engine.run(&["container", "checkpoint", "--leave-running", "--file-locks", "saved"]);
    let state = || engine.succeed(&["inspect", "--format", "{{.State.Status}}", "saved"]);
    assert_eq!(state(), "running");
    if criu_knows_this_kernel() {
        assert_eq!(left.code, Some(0), "{left:?}");
        engine.succeed(&["container", "checkpoint", "saved"]);
        assert_eq!(state(), "exited");
        engine.succeed(&["container", "restore", "saved"]);
        assert_eq!(state(), "running");
    } else {
        assert!(left.code != Some(0) && left.err.contains("Error (criu/"), "{left:?}");
    }
    assert_eq!(engine.run(&["exec", "saved", "echo", "inside"]).out, "inside");
    engine.succeed(&["rm", "-f", "-t", "0", "saved"]);
}
