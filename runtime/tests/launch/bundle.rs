//! A bundle with a small root filesystem: busybox and nothing else.

// Each test program uses its part of this.
#![allow(dead_code)]

use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use longshore_runtime::spec::{RunOptions, default_spec};
use rustix::pty::OpenptFlags;
use serde_json::Value;
use tempfile::TempDir;

pub(crate) const ROCI: &str = env!("CARGO_BIN_EXE_roci");

const APPLETS: &[&str] = &[
    "cat", "chmod", "chrt", "cp", "cut", "dd", "df", "echo", "env", "false", "grep", "head", "hostname", "id", "ionice", "ip",
    "kill", "ln", "ls", "mkdir", "mknod", "mount", "ps", "pwd", "readlink", "rm", "rmdir", "sh", "sleep", "stat", "stty",
    "touch", "true", "tty", "umask", "umount", "uname", "unshare", "wc",
];

pub(crate) struct Bundle {
    pub(crate) directory: TempDir,
    pub(crate) id: String,
    pub(crate) options: RunOptions,
}

impl Bundle {
    /// A bundle that runs `script` with `sh -c`; `None` if busybox is not installed.
    pub(crate) fn sh(script: &str) -> Option<Self> {
        Self::new(&["sh", "-c", script])
    }

    pub(crate) fn new(args: &[&str]) -> Option<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        if !crate::needs::required(Path::new("/bin/busybox").exists(), "/bin/busybox, linked statically") {
            return None;
        }
        let directory = tempfile::Builder::new().permissions(fs::Permissions::from_mode(0o755)).tempdir().unwrap();
        let root = directory.path().join("rootfs");
        for sub in ["bin", "etc", "tmp"] {
            fs::create_dir_all(root.join(sub)).unwrap();
        }
        fs::copy("/bin/busybox", root.join("bin/busybox")).unwrap();
        for applet in APPLETS {
            symlink("busybox", root.join("bin").join(applet)).unwrap();
        }
        let id = format!("test-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let args = args.iter().map(|&argument| argument.to_owned()).collect();
        let options = RunOptions { id: id.clone(), args, ..RunOptions::default() };
        Some(Self { directory, id, options })
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.directory.path().join("rootfs")
    }

    /// Writes `config.json`, changed by `edit`.
    pub(crate) fn write(&self, edit: impl FnOnce(&mut Value)) {
        let spec = default_spec(
            &longshore_runtime::image::ContainerConfig::default(),
            File::open(self.root()).unwrap().as_fd(),
            &self.options,
        )
        .unwrap();
        let mut value = serde_json::to_value(&spec).unwrap();
        edit(&mut value);
        fs::write(self.directory.path().join("config.json"), value.to_string()).unwrap();
    }

    /// `roci run` of the bundle as it was written.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(ROCI);
        command.args(["run", "--bundle"]).arg(self.directory.path()).arg(&self.id).stdin(Stdio::null());
        command
    }

    pub(crate) fn run(&self) -> Run {
        self.run_edited(|_| {})
    }

    pub(crate) fn run_edited(&self, edit: impl FnOnce(&mut Value)) -> Run {
        self.write(edit);
        Run::of(self.command().output().unwrap())
    }

    /// Where the container's cgroup may be, on any host.
    pub(crate) fn cgroups(&self) -> Vec<PathBuf> {
        let name = format!("longshore-{}", self.id);
        let hierarchies = fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten().map(|entry| entry.path());
        hierarchies.chain([PathBuf::from("/sys/fs/cgroup")]).map(|path| path.join(&name)).collect()
    }
}

#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Run {
    pub(crate) fn of(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).trim_end().to_owned();
        Self { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    }

    #[track_caller]
    pub(crate) fn ok(self) -> String {
        assert_eq!((self.code, self.err.as_str()), (Some(0), ""), "{}", self.out);
        self.out
    }
}

/// A terminal: its master side, and the one programs have.
pub(crate) fn open_terminal() -> (File, OwnedFd) {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let master = rustix::pty::openpt(flags).unwrap();
    rustix::pty::grantpt(&master).unwrap();
    rustix::pty::unlockpt(&master).unwrap();
    let slave = rustix::pty::ioctl_tiocgptpeer(&master, flags).unwrap();
    (master.into(), slave)
}

/// Reads from the terminal until `text` has been seen.
pub(crate) fn read_until(master: &mut File, text: &str) -> String {
    let mut seen = String::new();
    let mut buffer = [0; 1024];
    while !seen.contains(text) {
        match master.read(&mut buffer) {
            Ok(length) => seen.push_str(&String::from_utf8_lossy(&buffer[..length])),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => panic!("{error} after {seen:?}"),
        }
    }
    seen
}
