//! `exec`: a further process in a running container.

use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::Duration;

use oci_spec::runtime::{Capability, Process, Spec};

use super::handover::{Inherited, Receivers, check_terminal, write_pid_file};
use super::state::Status;
use super::{Runtime, not_running};
use crate::error::{Attempt, Error, Result};
use crate::files::read_bounded;
use crate::hooks::ends_within;
use crate::launch::{Exit, Join, Signals, Target, join};
use crate::spec::parse_process;

/// The largest process document.
const PROCESS_LIMIT_BYTES: u64 = 4 << 20;

/// What the caller of `exec` chooses.
#[derive(Debug, Clone, Default)]
pub struct ExecOptions {
    /// The container's name.
    pub id: String,
    /// A process document; without one the process is the container's own with what follows changed.
    pub process: Option<PathBuf>,
    /// The command.
    pub args: Vec<String>,
    /// Variables added to the container's.
    pub env: Vec<String>,
    /// The working directory.
    pub cwd: Option<PathBuf>,
    /// User and group, by number.
    pub user: Option<(u32, Option<u32>)>,
    /// Further groups.
    pub additional_gids: Vec<u32>,
    /// A terminal.
    pub tty: bool,
    /// Capabilities added to the container's.
    pub capabilities: Vec<Capability>,
    /// Nothing can gain privileges.
    pub no_new_privileges: bool,
    /// The AppArmor profile.
    pub apparmor: Option<String>,
    /// The SELinux label.
    pub process_label: Option<String>,
    /// The process's end is not waited for.
    pub detach: bool,
    /// Where the number of the process is written.
    pub pid_file: Option<PathBuf>,
    /// The socket that gets the master side of its terminal.
    pub console_socket: Option<PathBuf>,
    /// The socket that gets a pidfd of it.
    pub pidfd_socket: Option<PathBuf>,
    /// How many descriptors, from 3 up, it inherits.
    pub preserve_fds: u32,
    /// A paused container will do: the process starts when that is resumed.
    pub ignore_paused: bool,
    /// How long it may take before it is killed, if it is waited for.
    pub timeout: Option<Duration>,
}

impl Runtime {
    /// Starts a process in a container and, unless detached, waits for its end.
    ///
    /// [`Error::Exec`] says that the command could not be executed. Call it before this process opens
    /// descriptors or starts threads, and nothing after it: this process has joined a namespace then.
    pub fn exec(&self, options: &ExecOptions) -> Result<Option<Exit>> {
        let inherited = Inherited::take(options.preserve_fds)?;
        let container = self.look_at(&options.id)?;
        let first = container.process()?;
        match (container.status_of(first.as_ref()), options.ignore_paused) {
            (Status::Running | Status::Created, _) | (Status::Paused, true) => {}
            (Status::Paused, false) => {
                return Err(Error::Busy {
                    what: format!("container {:?}", options.id),
                    why: "cannot exec in a paused container; resume it first, or use --ignore-paused".into(),
                });
            }
            (Status::Stopped | Status::Creating, _) => return Err(not_running(&options.id)),
        }
        let first = first.ok_or_else(|| not_running(&options.id))?;
        let spec = container.spec()?;
        let mut process = options.process(&spec)?;
        let variables = inherited.variables();
        if !variables.is_empty() {
            process.set_env(Some([process.env().clone().unwrap_or_default(), variables].concat()));
        }
        let terminal = process.terminal().unwrap_or(false);
        let handed_over = options.console_socket.is_some();
        check_terminal(terminal, options.detach || handed_over, options.console_socket.as_deref())?;
        let receivers = Receivers::connect(options.console_socket.as_deref(), options.pidfd_socket.as_deref())?;
        let signals = if options.detach { None } else { Some(Signals::catch()?) };
        let mut running = join(Join {
            id: container.id(),
            bundle: &container.record.bundle,
            target: Target::open(first.pid, first.pidfd)?,
            spec: &spec,
            process: &process,
            program: None,
            input: None,
            preserved: inherited.count,
            relayed: !options.detach && !handed_over,
        })?;
        let finished = receivers.send(running.master.as_ref().map(AsFd::as_fd), running.pidfd.as_fd()).and_then(|()| {
            let pid = running.pid.as_raw_nonzero().get();
            options.pid_file.as_ref().map_or(Ok(()), |path| write_pid_file(path, pid))
        });
        if let Err(error) = finished {
            running.kill();
            return Err(error);
        }
        if handed_over {
            running.master = None;
        }
        let Some(signals) = signals else {
            running.detach();
            return Ok(None);
        };
        if let Some(limit) = options.timeout
            && !ends_within(&running.pidfd, limit).attempt(|| "wait for a command in a container")?
        {
            running.kill();
            return Ok(Some(Exit::Signal(libc::SIGKILL as u8)));
        }
        running.wait(&signals).map(Some)
    }
}

impl ExecOptions {
    fn process(&self, spec: &Spec) -> Result<Process> {
        let mut process = match &self.process {
            Some(path) => parse_process(&read_bounded(path, PROCESS_LIMIT_BYTES)?)
                .map_err(|error| Error::invalid(format!("{path:?}"), error))?,
            None => self.changed(spec)?,
        };
        if let Some(profile) = &self.apparmor {
            process.set_apparmor_profile(Some(profile.clone()));
        }
        if let Some(label) = &self.process_label {
            process.set_selinux_label(Some(label.clone()));
        }
        // The first process's age before the OOM killer is its own.
        if self.process.is_none() {
            process.set_oom_score_adj(None);
        }
        if process.args().as_deref().unwrap_or_default().is_empty() {
            return Err(Error::invalid("exec", "no command: give one after the container's id, or a document with --process"));
        }
        Ok(process)
    }

    /// The container's own process with what the flags change.
    fn changed(&self, spec: &Spec) -> Result<Process> {
        let mut process =
            spec.process().clone().ok_or_else(|| Error::invalid("configuration", "it has no \"process\": use --process"))?;
        process.set_args(Some(self.args.clone())).set_terminal(Some(self.tty)).set_console_size(None);
        if let Some(cwd) = &self.cwd {
            process.set_cwd(cwd.clone());
        }
        let mut env = process.env().clone().unwrap_or_default();
        // The last of a name is the one that is meant.
        env.extend_from_slice(&self.env);
        process.set_env(Some(env));
        let user = process.user_mut();
        if let Some((uid, gid)) = self.user {
            user.set_uid(uid);
            // The groups were those of another user.
            user.set_additional_gids(None);
            if let Some(gid) = gid {
                user.set_gid(gid);
            }
        }
        if !self.additional_gids.is_empty() {
            let mut gids = user.additional_gids().clone().unwrap_or_default();
            gids.extend(&self.additional_gids);
            user.set_additional_gids(Some(gids));
        }
        if self.no_new_privileges {
            process.set_no_new_privileges(Some(true));
        }
        self.set_capabilities(&mut process);
        Ok(process)
    }

    /// Added ones are bounding, effective and permitted; none is inheritable (CVE-2022-29162).
    fn set_capabilities(&self, process: &mut Process) {
        if process.capabilities().is_none() && self.capabilities.is_empty() {
            return;
        }
        let mut sets = process.capabilities().clone().unwrap_or_default();
        let added = |set: &Option<oci_spec::runtime::Capabilities>| {
            let mut set = set.clone().unwrap_or_default();
            set.extend(&self.capabilities);
            Some(set)
        };
        let (bounding, effective, permitted) = (added(sets.bounding()), added(sets.effective()), added(sets.permitted()));
        sets.set_bounding(bounding).set_effective(effective).set_permitted(permitted);
        sets.set_inheritable(None).set_ambient(None);
        process.set_capabilities(Some(sets));
    }
}
