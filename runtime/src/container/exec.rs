//! A further command in a container that runs.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{Mode, OFlags};

use super::monitor::HIGH_FD;
use super::record::Phase;
use super::store::{Container, Containers, not_running};
use crate::error::{Attempt, Result};
use crate::launch::Exit;
use crate::lifecycle::ExecOptions;
use crate::spec::resolve_user;
use crate::sys;

/// A command, and what about it is other than the container's own.
#[derive(Debug, Clone, Default)]
pub struct ExecCommand {
    /// The command.
    pub args: Vec<String>,
    /// Variables added, `K=V`.
    pub env: Vec<String>,
    /// The working directory.
    pub workdir: Option<String>,
    /// `user`, `uid`, `user:group`, ...
    pub user: Option<String>,
    /// It reads the caller's standard input, else nothing.
    pub stdin: bool,
    /// A terminal of its own.
    pub tty: bool,
    /// Its end is not waited for.
    pub detach: bool,
}

impl Containers {
    /// Runs a command in a container and, unless detached, waits for its end.
    ///
    /// Call it while this process has one thread, and nothing after it: it has joined a namespace then.
    pub fn exec(&self, container: &Container, command: ExecCommand) -> Result<Option<Exit>> {
        let config = &container.config;
        if container.status.phase != Phase::Running {
            return Err(not_running(config));
        }
        let mut options = ExecOptions {
            id: config.id.clone(),
            args: command.args,
            env: command.env,
            cwd: command.workdir.map(Into::into),
            tty: command.tty,
            detach: command.detach,
            ..ExecOptions::default()
        };
        if let Some(text) = &command.user {
            let path = format!("/proc/{}/root", container.status.pid);
            let root = rustix::fs::open(&path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
                .attempt(|| format!("look up user {text:?} in the container"))?;
            let (uid, gid, groups, home) = resolve_user(text, root.as_fd())?;
            options.user = Some((uid, Some(gid)));
            // A user namespace with a single id denies them.
            let setgroups = std::fs::read_to_string(format!("/proc/{}/setgroups", container.status.pid));
            options.additional_gids = if setgroups.is_ok_and(|word| word.trim() == "deny") { Vec::new() } else { groups };
            options.env.insert(0, format!("HOME={home}"));
        }
        let null = rustix::fs::open(c"/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).attempt(|| "open /dev/null")?;
        let place = |fd: BorrowedFd<'_>, number| sys::place_fd(fd, number, false).attempt(|| "set up standard input and output");
        if !command.stdin || command.detach {
            place(null.as_fd(), 0)?;
        }
        if !command.detach {
            return self.runtime.exec(&options);
        }
        // Nobody waits for what it says; that it could not be started is still said here.
        let stderr = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stderr(), HIGH_FD).attempt(|| "keep standard error")?;
        place(null.as_fd(), 1)?;
        place(null.as_fd(), 2)?;
        let started = self.runtime.exec(&options);
        place(stderr.as_fd(), 2)?;
        started
    }
}
