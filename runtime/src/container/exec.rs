//! A further command in a container that runs.

use std::os::fd::AsFd;

use rustix::fs::{Mode, OFlags};

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
        if !command.stdin {
            let null = rustix::fs::open(c"/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
            sys::place_fd(null.attempt(|| "open /dev/null")?.as_fd(), 0, false).attempt(|| "close standard input")?;
        }
        if let Some(text) = &command.user {
            let path = format!("/proc/{}/root", container.status.pid);
            let root = rustix::fs::open(&path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
                .attempt(|| format!("look up user {text:?} in the container"))?;
            let (uid, gid, groups, home) = resolve_user(text, root.as_fd())?;
            options.user = Some((uid, Some(gid)));
            options.additional_gids = groups;
            options.env.insert(0, format!("HOME={home}"));
        }
        self.runtime.exec(&options)
    }
}
