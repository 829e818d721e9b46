//! dockerd, to compare with.
//!
//! It takes a hybrid host for cgroup v2, and changes the network: so it has a mount and a network namespace of its own.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use rustix::process::Signal;

use super::common::needs::{installed, root};
use super::common::wait_until;
use super::fixture::send;
use super::tools::stderr;

pub(super) struct Dockerd {
    directory: tempfile::TempDir,
    daemon: Child,
}

impl Dockerd {
    /// A daemon with the image of a layout under the name `image`; `None` where it cannot be.
    pub(super) fn start(layout: &str, image: &str) -> Option<Self> {
        if !root() || !["dockerd", "docker", "containerd", "unshare", "ip", "skopeo"].into_iter().all(installed) {
            return None;
        }
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name).display().to_string();
        let enter =
            "umount /sys/fs/cgroup/unified 2>/dev/null; mount -t tmpfs tmpfs /run && ip link set lo up; exec dockerd \"$@\"";
        let mut command = Command::new("unshare");
        command.args(["--mount", "--net", "sh", "-c", enter, "dockerd"]);
        command.args(["--exec-opt", "native.cgroupdriver=cgroupfs", "--storage-driver", "overlay2"]);
        command.args(["--iptables=false", "--ip6tables=false", "--log-level", "error"]);
        command.args(["--data-root", &path("data"), "--exec-root", &path("exec"), "--pidfile", &path("pid")]);
        command.args(["--host", &format!("unix://{}", path("sock")), "--config-file", &path("none.json")]);
        std::fs::write(path("none.json"), "{}").unwrap();
        let log = std::fs::File::create(path("log")).unwrap();
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let dockerd = Self { daemon: command.spawn().unwrap(), directory };
        wait_until("dockerd answers", || dockerd.command(&["version"]).output().unwrap().status.success());
        let archive = format!("docker-archive:{}:{image}", dockerd.path("image.tar").display());
        let args = ["copy", "-q", "--insecure-policy", &format!("oci:{layout}"), &archive];
        let copied = Command::new("skopeo").args(args).output().unwrap();
        assert!(copied.status.success(), "{}", stderr(&copied));
        dockerd.succeed(&["load", "-q", "-i", dockerd.path("image.tar").to_str().unwrap()]);
        Some(dockerd)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("docker");
        command.env("DOCKER_CONFIG", self.path("client")).arg("--host").arg(format!("unix://{}", self.path("sock").display()));
        command.args(args).stdin(Stdio::null());
        command
    }

    /// What `docker` prints.
    #[track_caller]
    pub(super) fn succeed(&self, args: &[&str]) -> String {
        let output = self.command(args).output().unwrap();
        assert!(output.status.success(), "docker {args:?}: {}", stderr(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    /// What `docker` says of what cannot be done.
    #[track_caller]
    pub(super) fn fail(&self, args: &[&str]) -> String {
        let output = self.command(args).output().unwrap();
        assert!(!output.status.success(), "docker {args:?}");
        stderr(&output)
    }
}

impl Drop for Dockerd {
    fn drop(&mut self) {
        let containers = self.command(&["ps", "-aq"]).output().map(|output| output.stdout).unwrap_or_default();
        for container in String::from_utf8_lossy(&containers).lines() {
            let _ = self.command(&["rm", "--force", container]).output();
        }
        // It ends its containerd; killed it would leave that behind.
        send(self.daemon.id(), Signal::TERM);
        let _ = self.daemon.wait();
        if std::thread::panicking() {
            eprintln!("dockerd: {}", std::fs::read_to_string(self.path("log")).unwrap_or_default());
        }
    }
}
