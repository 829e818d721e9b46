//! A container for a test: a bundle, a state directory of its own, and `roci` called on both.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use crate::bundle::{Bundle, ROCI, Run};
use crate::needs::root;

/// A container whose command goes on until it is told to end, saying `up` first.
pub(crate) const SERVICE: &str = "trap 'exit 7' TERM; echo up; while :; do sleep 0.02; done";

pub(crate) struct Container {
    pub(crate) bundle: Bundle,
    pub(crate) state: TempDir,
}

impl Container {
    /// `None` where the test cannot run.
    pub(crate) fn sh(script: &str) -> Option<Self> {
        let bundle = Bundle::sh(script)?;
        root().then(|| Self { bundle, state: tempfile::tempdir().unwrap() })
    }

    /// One that was created and started, and has said `up`.
    pub(crate) fn service() -> Option<Self> {
        let container = Self::sh(SERVICE)?;
        container.write(|_| {});
        container.create(&[]).ok();
        container.roci(&["start", container.id()]).ok();
        wait_until(|| container.out() == "up");
        Some(container)
    }

    pub(crate) fn id(&self) -> &str {
        &self.bundle.id
    }

    pub(crate) fn write(&self, edit: impl FnOnce(&mut Value)) {
        self.bundle.write(edit);
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.bundle.directory.path().join(name)
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(ROCI);
        command.arg("--root").arg(self.state.path()).args(args).stdin(Stdio::null());
        command
    }

    /// A verb whose output is all its own.
    pub(crate) fn roci(&self, args: &[&str]) -> Run {
        Run::of(self.command(args).output().unwrap())
    }

    /// `create`, with the container's output in a file: it may outlive the command.
    pub(crate) fn create(&self, flags: &[&str]) -> Run {
        self.bring_up("create", flags)
    }

    /// `create` or `run --detach`.
    pub(crate) fn bring_up(&self, verb: &str, flags: &[&str]) -> Run {
        let file = |name: &str| File::create(self.file(name)).unwrap();
        let mut command = self.command(&[verb]);
        command.args(flags).arg("--bundle").arg(self.bundle.directory.path()).arg(self.id());
        let status = command.stdout(file("out")).stderr(file("err")).status().unwrap();
        Run { code: status.code(), out: self.out(), err: self.err() }
    }

    pub(crate) fn out(&self) -> String {
        fs::read_to_string(self.file("out")).unwrap_or_default().trim_end().to_owned()
    }

    pub(crate) fn err(&self) -> String {
        fs::read_to_string(self.file("err")).unwrap_or_default().trim_end().to_owned()
    }

    pub(crate) fn state(&self) -> Value {
        serde_json::from_str(&self.roci(&["state", self.id()]).ok()).unwrap()
    }

    pub(crate) fn status(&self) -> String {
        self.state()["status"].as_str().unwrap().to_owned()
    }

    pub(crate) fn pid(&self) -> i32 {
        self.state()["pid"].as_i64().unwrap() as i32
    }

    pub(crate) fn exec(&self, args: &[&str]) -> Run {
        self.roci(&[&["exec", self.id()], args].concat())
    }

    /// Whether nothing of it is left: state, cgroups.
    pub(crate) fn is_gone(&self) -> bool {
        !self.state.path().join(self.id()).exists() && self.bundle.cgroups().iter().all(|path| !path.exists())
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let _ = self.command(&["delete", "--force", self.id()]).output();
    }
}

/// Yields until it is so, for a minute at most: the machine may be slow.
#[track_caller]
pub(crate) fn wait_until(mut done: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(60);
    while !done() {
        assert!(Instant::now() < end, "it did not happen within a minute");
        std::thread::yield_now();
    }
}

/// Makes a tar archive of a directory, as engines import it.
pub(crate) fn pack(directory: &std::path::Path, archive: &std::path::Path) {
    let tar = Command::new("tar").arg("-C").arg(directory).arg("-cf").arg(archive).arg(".").status().unwrap();
    assert!(tar.success());
}
