//! dockerd, unchanged, with `roci` beside its own runtime.
//!
//! It looks at the host's cgroups by itself and takes a hybrid host for cgroup2, and it changes the network:
//! so it has a mount and a network namespace of its own. Its containerd and their shims stay in them too.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::bundle::{Bundle, ROCI, Run};
use crate::container::{pack, wait_until};
use crate::needs::{installed, root};

struct Dockerd {
    directory: tempfile::TempDir,
    daemon: Child,
}

/// The image's name.
const IMAGE: &str = "box:latest";

impl Dockerd {
    /// A daemon with an image of busybox; `None` where it cannot be.
    fn start() -> Option<Self> {
        let bundle = Bundle::sh("true")?;
        if !root() || !["dockerd", "docker", "containerd", "unshare", "tar"].into_iter().all(installed) {
            return None;
        }
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name).display().to_string();
        let enter =
            "umount /sys/fs/cgroup/unified 2>/dev/null; mount -t tmpfs tmpfs /run && ip link set lo up; exec dockerd \"$@\"";
        let mut command = Command::new("unshare");
        command.args(["--mount", "--net", "sh", "-c", enter, "dockerd", "--add-runtime", &format!("roci={ROCI}")]);
        command.args(["--default-runtime", "roci", "--exec-opt", "native.cgroupdriver=cgroupfs", "--storage-driver", "overlay2"]);
        command.args(["--iptables=false", "--ip6tables=false", "--bridge=none", "--log-level", "error"]);
        command.args(["--data-root", &path("data"), "--exec-root", &path("exec"), "--pidfile", &path("pid")]);
        command.args(["--host", &format!("unix://{}", path("sock")), "--config-file", &path("none.json")]);
        fs::write(path("none.json"), "{}").unwrap();
        let log = fs::File::create(path("log")).unwrap();
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let dockerd = Self { daemon: command.spawn().unwrap(), directory };
        wait_until(|| dockerd.run(&["version"]).code == Some(0));
        fs::create_dir_all(bundle.root().join("etc")).unwrap();
        fs::write(bundle.root().join("etc/passwd"), "root:x:0:0::/root:/bin/sh\n").unwrap();
        let archive = dockerd.path("box.tar");
        pack(&bundle.root(), &archive);
        dockerd.succeed(&["import", "--change", "CMD sh", archive.to_str().unwrap(), IMAGE]);
        Some(dockerd)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn run(&self, args: &[&str]) -> Run {
        let mut command = Command::new("docker");
        command.env("DOCKER_CONFIG", self.path("client")).arg("--host").arg(format!("unix://{}", self.path("sock").display()));
        Run::of(command.args(args).stdin(Stdio::null()).output().unwrap())
    }

    #[track_caller]
    fn succeed(&self, args: &[&str]) -> String {
        let run = self.run(args);
        assert_eq!(run.code, Some(0), "{args:?}: {run:?}");
        run.out
    }

    /// `docker run --rm` of a script.
    fn sh(&self, options: &[&str], script: &str) -> Run {
        let fixed = ["run", "--rm", "--runtime", "roci", "--network", "none"];
        self.run(&[&fixed[..], options, &[IMAGE, "sh", "-c", script]].concat())
    }

    fn inspect(&self, name: &str, what: &str) -> String {
        self.succeed(&["inspect", "--format", &format!("{{{{.{what}}}}}"), name])
    }
}

impl Drop for Dockerd {
    fn drop(&mut self) {
        let containers = self.run(&["ps", "-aq"]).out;
        for container in containers.lines() {
            let _ = self.run(&["rm", "--force", container]);
        }
        let pid = rustix::process::Pid::from_child(&self.daemon);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        // It ends its containerd; killed it would leave that behind.
        for _ in 0..600 {
            if self.daemon.try_wait().is_ok_and(|ended| ended.is_some()) {
                break;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
        if std::thread::panicking() {
            eprintln!("dockerd: {}", fs::read_to_string(self.path("log")).unwrap_or_default());
        }
    }
}

#[test]
fn dockerd_runs_executes_stops_and_removes() {
    let Some(docker) = Dockerd::start() else { return };
    assert_eq!(docker.sh(&["--env", "A=b"], "echo $A $HOME; id -u").ok(), "b /root\n0");
    assert_eq!(docker.sh(&["--user", "5:6"], "id -u; id -g; echo $HOME").ok(), "5\n6\n/");
    assert_eq!(docker.sh(&[], "exit 42").code, Some(42));
    let missing = docker.run(&["run", "--rm", "--network", "none", IMAGE, "no-such"]);
    assert_eq!(missing.code, Some(127), "{missing:?}");
    let directory = docker.run(&["run", "--rm", "--network", "none", IMAGE, "/etc"]);
    assert_eq!(directory.code, Some(126), "{directory:?}");

    let script = "trap 'exit 7' TERM; echo up; while :; do sleep 0.05; done";
    docker.succeed(&["run", "-d", "--name", "one", "--network", "none", IMAGE, "sh", "-c", script]);
    wait_until(|| docker.succeed(&["logs", "one"]).contains("up"));
    assert_eq!(docker.inspect("one", "HostConfig.Runtime"), "roci");
    assert_eq!(docker.succeed(&["exec", "one", "sh", "-c", "echo inside; id -u"]), "inside\n0");
    let exec = ["exec", "--user", "5", "--workdir", "/tmp", "-e", "X=y", "one", "sh", "-c", "id -u; pwd; echo $X"];
    assert_eq!(docker.succeed(&exec), "5\n/tmp\ny");
    assert_eq!(docker.run(&["exec", "one", "sh", "-c", "exit 9"]).code, Some(9));
    let missing = docker.run(&["exec", "one", "no-such"]);
    assert!(matches!(missing.code, Some(126 | 127)), "{missing:?}");
    docker.succeed(&["exec", "-d", "one", "sleep", "1000"]);
    wait_until(|| docker.succeed(&["top", "one"]).contains("sleep 1000"));
    docker.succeed(&["pause", "one"]);
    assert_eq!(docker.inspect("one", "State.Status"), "paused");
    docker.succeed(&["unpause", "one"]);
    docker.succeed(&["update", "--memory", "64m", "--memory-swap", "64m", "one"]);
    assert!(docker.succeed(&["stats", "--no-stream", "--format", "{{.MemUsage}}", "one"]).ends_with("64MiB"));
    docker.succeed(&["stop", "--time", "30", "one"]);
    assert_eq!(docker.inspect("one", "State.Status"), "exited");
    assert_eq!(docker.inspect("one", "State.ExitCode"), "7");
    docker.succeed(&["start", "one"]);
    wait_until(|| docker.succeed(&["logs", "one"]).matches("up").count() == 2);
    docker.succeed(&["kill", "one"]);
    wait_until(|| docker.inspect("one", "State.Status") == "exited");
    assert_eq!(docker.inspect("one", "State.ExitCode"), "137");
    docker.succeed(&["rm", "one"]);
    assert_eq!(docker.succeed(&["ps", "-aq"]), "");
}

#[test]
fn dockerd_s_options_for_limits_and_confinement_hold() {
    let Some(docker) = Dockerd::start() else { return };
    let file = |v1: &str, v2: &str| format!("cat /sys/fs/cgroup/{v1} 2>/dev/null || cat /sys/fs/cgroup/{v2}");
    let memory = docker.sh(&["--memory", "64m"], &file("memory/memory.limit_in_bytes", "memory.max"));
    assert_eq!(memory.ok(), (64 << 20).to_string());
    let hungry = "x=x; while :; do x=$x$x; done";
    let starved = docker.sh(&["--memory", "16m", "--memory-swap", "16m"], hungry);
    assert_eq!(starved.code, Some(137), "{starved:?}");
    assert_eq!(docker.sh(&["--pids-limit", "33"], &file("pids/pids.max", "pids.max")).ok(), "33");
    let read_only = docker.sh(&["--read-only", "--tmpfs", "/t"], "touch /x; touch /t/x && echo t");
    assert!(read_only.err.contains("Read-only") && read_only.out == "t", "{read_only:?}");
    let caps = "grep CapEff /proc/self/status | while read k v; do echo $v; done";
    assert_eq!(docker.sh(&["--cap-drop", "all"], caps).ok(), "0000000000000000");
    assert_eq!(docker.sh(&["--cap-drop", "all", "--cap-add", "chown"], caps).ok(), "0000000000000001");
    // dockerd's own profile, then one of ours.
    assert_eq!(docker.sh(&[], "grep Seccomp: /proc/self/status").ok(), "Seccomp:\t2");
    let unconfined = docker.sh(&["--security-opt", "seccomp=unconfined"], "grep Seccomp: /proc/self/status");
    assert_eq!(unconfined.ok(), "Seccomp:\t0");
    let profile = docker.path("seccomp.json");
    let text = r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO","errnoRet":95}]}"#;
    fs::write(&profile, text).unwrap();
    let seccomp = docker.sh(&["--security-opt", &format!("seccomp={}", profile.display())], "mkdir /x");
    assert!(seccomp.code != Some(0) && seccomp.err.contains("supported"), "{seccomp:?}");
    let secured = docker.sh(&["--security-opt", "no-new-privileges"], "grep NoNewPrivs /proc/self/status");
    assert_eq!(secured.ok(), "NoNewPrivs:\t1");
    let named = docker.sh(&["--hostname", "given", "--sysctl", "kernel.msgmax=4321"], "hostname; cat /proc/sys/kernel/msgmax");
    assert_eq!(named.ok(), "given\n4321");
    let volume = format!("{}:/v:ro", docker.path("").display());
    let volume = docker.sh(&["--volume", &volume], "ls /v/box.tar; touch /v/x");
    assert!(volume.out == "/v/box.tar" && volume.err.contains("Read-only"), "{volume:?}");
}
