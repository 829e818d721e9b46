//! containerd's shim, unchanged, with `roci` in runc's place.
//!
//! containerd looks at the host's cgroups by itself and takes a hybrid host for cgroup2: so it runs in a
//! mount namespace of its own without that hierarchy. Its shims stay in it too.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use crate::bundle::{Bundle, ROCI, Run};
use crate::container::wait_until;
use crate::needs::{installed, root};

struct Containerd {
    directory: tempfile::TempDir,
    daemon: Child,
}

impl Containerd {
    fn start() -> Option<Self> {
        if !root() || !["containerd", "ctr", "unshare", "nsenter"].into_iter().all(installed) {
            return None;
        }
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name).display().to_string();
        let config = format!(
            "version = 2\nroot = {:?}\nstate = {:?}\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n[grpc]\naddress = {:?}\n",
            path("root"),
            path("state"),
            path("sock"),
        );
        fs::write(path("config.toml"), config).unwrap();
        let enter = "umount /sys/fs/cgroup/unified 2>/dev/null; exec containerd --config $0 --log-level error";
        let log = fs::File::create(path("log")).unwrap();
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", enter, &path("config.toml")]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let daemon = command.spawn().unwrap();
        let containerd = Self { directory, daemon };
        wait_until(|| containerd.ctr(&["version"]).code == Some(0));
        Some(containerd)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command.arg("--target").arg(self.daemon.id().to_string()).args(["--mount", "ctr", "--address"]).arg(self.path("sock"));
        command.args(args).stdin(Stdio::null());
        command
    }

    fn ctr(&self, args: &[&str]) -> Run {
        Run::of(self.command(args).output().unwrap())
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        let log = fs::read_to_string(self.path("log")).unwrap_or_default();
        if std::thread::panicking() {
            eprintln!("containerd: {log}");
        }
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}

#[test]
fn containerd_runs_executes_signals_and_removes() {
    let Some(bundle) = Bundle::sh("true") else { return };
    let Some(containerd) = Containerd::start() else { return };
    let rootfs = bundle.root().display().to_string();
    let options = ["run", "--rm", "--runc-binary", ROCI, "--rootfs", &rootfs];
    let run = |id: &str, script: &str| containerd.ctr(&[&options[..], &[id, "/bin/sh", "-c", script]].concat());
    assert_eq!(run("one", "echo inside; id -u").ok(), "inside\n0");
    assert_eq!(run("two", "exit 42").code, Some(42));
    let missing = containerd.ctr(&[&options[..], &["three", "no-such-command"]].concat());
    assert!(missing.code != Some(0) && missing.err.contains("no-such-command"), "{missing:?}");

    let script = "trap 'exit 7' TERM; while :; do sleep 0.05; done";
    let detached = ["run", "--detach", "--runc-binary", ROCI, "--rootfs", &rootfs, "service", "/bin/sh", "-c", script];
    containerd.ctr(&detached).ok();
    let task = |args: &[&str]| containerd.ctr(&[&["task"], args].concat());
    assert!(task(&["ls"]).ok().contains("RUNNING"));
    assert_eq!(task(&["exec", "--exec-id", "e1", "service", "/bin/sh", "-c", "echo further; id -u"]).ok(), "further\n0");
    assert_eq!(task(&["exec", "--exec-id", "e2", "service", "/bin/sh", "-c", "exit 9"]).code, Some(9));
    assert!(task(&["ps", "service"]).ok().lines().count() >= 2);
    task(&["pause", "service"]).ok();
    assert!(task(&["ls"]).ok().contains("PAUSED"));
    task(&["resume", "service"]).ok();
    assert_eq!(task(&["metrics", "service"]).code, Some(0));
    task(&["kill", "--signal", "TERM", "service"]).ok();
    wait_until(|| task(&["ls"]).ok().contains("STOPPED"));
    let removed = task(&["rm", "service"]);
    assert!(removed.code == Some(0) && removed.err.contains("code 7"), "{removed:?}");
    containerd.ctr(&["containers", "rm", "service"]).ok();
    assert_eq!(task(&["ls", "-q"]).ok(), "");
}
