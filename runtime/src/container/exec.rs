//! A further command in a container that runs.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};

use super::launching::pipe;
use super::monitor::HIGH_FD;
use super::record::{Config, Phase};
use super::store::{Container, Containers, not_running};
use crate::error::{Attempt, Result};
use crate::files;
use crate::launch::{Exit, reap};
use crate::lifecycle::ExecOptions;
use crate::spec::{all_capabilities, resolve_user};
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
    /// It has all capabilities.
    pub privileged: bool,
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
            capabilities: if command.privileged { all_capabilities()? } else { Vec::new() },
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
        let id = files::random_hex(32)?;
        let words = options.args.join(" ");
        for action in ["exec_create", "exec_start"] {
            self.tell(&format!("{action}: {words}"), config, &[("execID", &id)]);
        }
        if !command.detach {
            let herald = Herald::start(self, config, &id);
            let exit = self.runtime.exec(&options);
            let code = exit.as_ref().map_or_else(crate::Error::exit_code, |exit| exit.map_or(0, Exit::code));
            herald.into_iter().for_each(|herald| herald.tell(code));
            return exit;
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

/// Tells of a command's end: a copy of this process that stays where the store is, which this one leaves for the
/// container. Nothing of the host that it had open for that could be found in there.
struct Herald {
    pidfd: OwnedFd,
    code: OwnedFd,
}

impl Herald {
    /// `None` if that is not possible: then the end is not told of.
    fn start(containers: &Containers, config: &Config, id: &str) -> Option<Self> {
        let (told, code) = pipe().ok()?;
        let (_, pidfd) = sys::spawn(0, None, &mut || u8::from(wait_and_tell(containers, config, id, &told).is_err())).ok()?;
        Some(Self { pidfd, code })
    }

    fn tell(self, code: u8) {
        let _ = rustix::io::write(&self.code, &[code]);
        drop(self.code);
        // Who waits for the command finds it told.
        let _ = reap(&self.pidfd);
    }
}

fn wait_and_tell(containers: &Containers, config: &Config, id: &str, told: &OwnedFd) -> rustix::io::Result<()> {
    // They are for the command.
    sys::block_signals(&[libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM, libc::SIGTSTP, libc::SIGTTOU])?;
    let told = rustix::io::fcntl_dupfd_cloexec(told, HIGH_FD)?;
    sys::place_fd(told.as_fd(), 3, true)?;
    // Above all the end that is written to: else this process would wait for itself.
    sys::close_from(4)?;
    let mut code = [0];
    if rustix::io::read(sys::borrow_fd(3), &mut code)? > 0 {
        containers.tell("exec_die", config, &[("execID", id), ("exitCode", &code[0].to_string())]);
    }
    Ok(())
}
