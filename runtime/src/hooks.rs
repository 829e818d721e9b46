//! Hooks: programs of the configuration's that run when a container comes and goes (runtime-spec
//! config.md, "POSIX-platform Hooks").
//!
//! A hook gets the container's state on its standard input, the environment the configuration gives it
//! and no other, and as long as its timeout says. What it prints is part of the error should it fail.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use oci_spec::runtime::{Hook, Spec};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::MemfdFlags;
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags};

use crate::error::{Attempt, Error, Result};
use crate::warning::warn;

/// How much of what a failed hook printed is repeated.
const OUTPUT_LIMIT_BYTES: u64 = 4096;

/// When hooks run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// While the container is created, in the runtime's namespaces (deprecated by the specification).
    Prestart,
    /// While the container is created, in the runtime's namespaces.
    CreateRuntime,
    /// While the container is created, in its namespaces, before it leaves the host's filesystem.
    CreateContainer,
    /// When it is started, in its namespaces, before its command is executed.
    StartContainer,
    /// When it has been started, in the runtime's namespaces.
    Poststart,
    /// When it has been deleted, in the runtime's namespaces.
    Poststop,
}

impl Kind {
    /// All kinds, in the order they run.
    pub const ALL: [Self; 6] =
        [Self::Prestart, Self::CreateRuntime, Self::CreateContainer, Self::StartContainer, Self::Poststart, Self::Poststop];

    /// The configuration's name for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Prestart => "prestart",
            Self::CreateRuntime => "createRuntime",
            Self::CreateContainer => "createContainer",
            Self::StartContainer => "startContainer",
            Self::Poststart => "poststart",
            Self::Poststop => "poststop",
        }
    }
}

/// The hooks of one kind, in their order.
#[must_use]
pub fn of(spec: &Spec, kind: Kind) -> &[Hook] {
    let Some(hooks) = spec.hooks() else { return &[] };
    let list = match kind {
        #[allow(deprecated, reason = "engines still use them")]
        Kind::Prestart => hooks.prestart(),
        Kind::CreateRuntime => hooks.create_runtime(),
        Kind::CreateContainer => hooks.create_container(),
        Kind::StartContainer => hooks.start_container(),
        Kind::Poststart => hooks.poststart(),
        Kind::Poststop => hooks.poststop(),
    };
    list.as_deref().unwrap_or_default()
}

/// Runs the hooks of one kind, if there are any, one after the other, with `state` (JSON) as each one's standard
/// input, in this process's namespaces. The first that fails is the last.
pub fn run(kind: Kind, spec: &Spec, state: impl FnOnce() -> Result<Vec<u8>>) -> Result<()> {
    let hooks = of(spec, kind);
    if hooks.is_empty() {
        return Ok(());
    }
    let state = state()?;
    hooks.iter().try_for_each(|hook| run_one(kind, hook, &state))
}

/// The same, where one that fails changes nothing: it is warned of, and the next one runs.
pub(crate) fn run_all(kind: Kind, spec: &Spec, state: impl FnOnce() -> Result<Vec<u8>>) {
    let hooks = of(spec, kind);
    if hooks.is_empty() {
        return;
    }
    let run = |state: Vec<u8>| hooks.iter().filter_map(|hook| run_one(kind, hook, &state).err()).collect();
    let failed: Vec<Error> = state().map_or_else(|error| vec![error], run);
    failed.iter().for_each(|error| warn(&error.to_string()));
}

/// Runs one hook.
fn run_one(kind: Kind, hook: &Hook, state: &[u8]) -> Result<()> {
    check(kind, hook)?;
    let mut output = File::from(memory_file(c"longshore-hook-output")?);
    let share = |file: &File| file.try_clone().map(Stdio::from).attempt(|| "duplicate a file descriptor");
    let mut command = Command::new(hook.path());
    let arguments = hook.args().as_deref().unwrap_or_default();
    if let Some((name, rest)) = arguments.split_first() {
        command.arg0(name).args(rest);
    }
    let variables = hook.env().iter().flatten().filter_map(|variable| variable.split_once('='));
    command.env_clear().envs(variables);
    command.stdin(Stdio::from(state_input(state)?)).stdout(share(&output)?).stderr(share(&output)?);
    let mut child = command.spawn().map_err(|error| failure(kind, hook, error))?;
    let status = wait(&mut child, timeout(hook)).map_err(|error| failure(kind, hook, error))?;
    if status.success() {
        return Ok(());
    }
    let mut text = String::new();
    // A hook that failed without a readable word has still failed.
    let _ = output.rewind().and_then(|()| output.take(OUTPUT_LIMIT_BYTES).read_to_string(&mut text));
    let text = text.trim_end();
    let colon = if text.is_empty() { "" } else { ": " };
    Err(failure(kind, hook, std::io::Error::other(format!("{status}{colon}{text}"))))
}

/// The rules a hook has to follow.
pub(crate) fn check(kind: Kind, hook: &Hook) -> Result<()> {
    let broken = if !hook.path().is_absolute() {
        "its path must be absolute"
    } else if hook.timeout().is_some_and(|seconds| seconds <= 0) {
        "its timeout must be greater than zero"
    } else {
        return Ok(());
    };
    Err(Error::invalid(format!("{} hook {:?}", kind.name(), hook.path()), broken))
}

/// How long a hook may take.
pub(crate) fn timeout(hook: &Hook) -> Option<Duration> {
    hook.timeout().and_then(|seconds| u64::try_from(seconds).ok()).map(Duration::from_secs)
}

/// The error of a hook that failed.
pub(crate) fn failure(kind: Kind, hook: &Hook, source: std::io::Error) -> Error {
    Error::Launch { step: format!("{} hook {:?}", kind.name(), hook.path()), source }
}

/// A file in memory that holds the state, to be read from its beginning: a hook that reads none of it
/// holds nobody up.
pub(crate) fn state_input(state: &[u8]) -> Result<OwnedFd> {
    let mut file = File::from(memory_file(c"longshore-hook-state")?);
    file.write_all(state).and_then(|()| file.rewind()).attempt(|| "write the state for a hook")?;
    Ok(file.into())
}

fn memory_file(name: &std::ffi::CStr) -> Result<OwnedFd> {
    rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC).attempt(|| "create a file in memory")
}

fn wait(child: &mut Child, limit: Option<Duration>) -> std::io::Result<ExitStatus> {
    if let Some(limit) = limit {
        let pid = Pid::from_raw(child.id() as i32).ok_or(Errno::CHILD)?;
        let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty())?;
        if !ends_within(&pidfd, limit)? {
            child.kill()?;
            child.wait()?;
            return Err(std::io::Error::other(format!("it took longer than its timeout of {} s", limit.as_secs())));
        }
    }
    child.wait()
}

/// Whether a process ends within `limit`.
pub(crate) fn ends_within(pidfd: &OwnedFd, limit: Duration) -> rustix::io::Result<bool> {
    let end = std::time::Instant::now() + limit;
    loop {
        let left = end.saturating_duration_since(std::time::Instant::now());
        let timeout = Timespec::try_from(left).ok();
        match poll(&mut [PollFd::new(pidfd, PollFlags::IN)], timeout.as_ref()) {
            Ok(0) => return Ok(false),
            Ok(_) => return Ok(true),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}
