//! Launching a container: from what its directory says of it to a process that executes its command.
//!
//! Who launches it holds its lock from before: its monitor, or the command itself where there is none.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::SystemTime;

use oci_spec::runtime::{BoxBuilder, Spec};
use rustix::fs::{Mode, OFlags};
use rustix::pipe::PipeFlags;
use rustix::pty::OpenptFlags;

use super::prepare;
use super::record::{Config, Phase, Status};
use super::store::Containers;
use crate::erofs::Shared;
use crate::error::{Attempt, Error, Result};
use crate::launch::{Begin, Born, Channel, Guard, begin, caller_size};
use crate::lifecycle::{Directory, Record, process_start_ticks, rfc3339};
use crate::network::attach::{Attached, Request, attach};
use crate::spec::default_spec;
use crate::sys;
use crate::userns::{self, Mapping};
use crate::volume::{Mounting, Volumes};

/// A container that is being launched.
pub(super) struct Launching<'a> {
    pub(super) containers: &'a Containers,
    pub(super) config: &'a Config,
    pub(super) lock: BorrowedFd<'a>,
    pub(super) rootless: Option<Mapping>,
    /// Because of its restart policy.
    pub(super) again: bool,
    /// Of a command that watches the container itself.
    pub(super) guard: Option<&'a Guard>,
}

/// A container that runs.
pub(super) struct Launched {
    pub(super) pidfd: OwnedFd,
    /// Its input and output; `None` if they are those of this process.
    pub(super) ends: Option<Ends>,
    pub(super) layers: Shared,
    pub(super) attached: Attached,
}

/// The monitor's sides of the container's input and output.
pub(super) struct Ends {
    pub(super) out: OwnedFd,
    pub(super) err: OwnedFd,
    /// What keeps the container's input open; if nothing does, `/dev/null`.
    pub(super) input: OwnedFd,
}

impl Launching<'_> {
    /// Nothing of the container runs any more, or ever did.
    pub(super) fn failed(&self, error: &Error) {
        let id = &self.config.id;
        // Each part whatever becomes of the others: what could not be done, the next command does.
        let _ = self.containers.runtime.end(id);
        let _ = self.containers.release_network(self.config, &[]);
        let _ = std::fs::remove_file(self.containers.directory(id).join("state.json"));
        let before = self.containers.status(id).unwrap_or_else(|_| Status::new());
        let phase = if self.again { Phase::Exited } else { Phase::Created };
        let status = Status { phase, exit_code: error.exit_code(), error: error.to_string(), pid: 0, ..before };
        if self.config.auto_remove {
            // Until then it is one that is being started: should this be killed, the next command removes it.
            let _ = self.containers.discard(self.config, true);
        } else {
            let _ = self.containers.save_status(id, &status);
        }
    }

    /// Launches it, and says that it runs. After an error [`Launching::failed`] is for the caller to call.
    pub(super) fn launch(&self) -> Result<Launched> {
        let (containers, config, id, rootless) = (self.containers, self.config, &self.config.id, self.rootless);
        if rootless.is_some() {
            userns::stay(containers.store.root())?;
        }
        let has_volumes = !config.options.volumes.is_empty();
        let mut status = containers.status(id)?;
        let is_first = has_volumes && status.started.is_empty();
        containers.forget_health(config);
        let dir = containers.directory(id);
        let mut options = config.options.clone();
        options.id.clone_from(id);
        options.rootless = rootless;
        let name = &config.name;
        let exposed = &config.image_config.exposed_ports;
        let namespaces = prepare::find_namespaces(&containers.store, &mut options)?;
        let attached = attach(&Request { store: &containers.store, id, name, directory: &dir, options: &options, exposed })?;
        prepare::enter_network(&dir.join("etc"), &attached, &mut options)?;
        let overlay = prepare::overlay(&containers.store, &dir, &config.layers, rootless.is_some(), config.auto_remove);
        let mut layers = Shared::new();
        let root = overlay.mount_by(&mut |path| layers.open(path))?;
        if has_volumes {
            let mounting = Mounting { root: root.as_fd(), fill: is_first, rootless };
            Volumes::of(&containers.store).mount(&mut options.volumes, &mounting)?;
        }
        let mut spec = default_spec(&config.image_config, root.as_fd(), &options)?;
        if config.options.tty {
            take_size(&mut spec);
        }
        let directory = Directory::open(containers.store.root().join("containers").as_path(), id)?;
        let text = serde_json::to_vec(&spec).map_err(std::io::Error::from).attempt(|| "describe a container")?;
        directory.write("config.json", &text)?;
        let mut ends = if self.guard.is_some() { None } else { Some(connect(config)?) };
        let running = begin(Begin {
            id,
            bundle: Path::new(""),
            rootfs: Path::new(""),
            spec: &spec,
            root,
            stdin: config.interactive || ends.is_some(),
            guard: self.guard,
            tied: true,
            new_keyring: true,
            pivot: true,
            preserved: 0,
            relayed: config.options.tty,
            channel: Channel::pipe()?,
            // Known before it is complete: should this process be killed, the next command can end it.
            unit: None,
            born: &mut |born| directory.save(&record(config, &dir, born)),
            hooks: None,
        })?;
        drop(namespaces);
        let (pid, pidfd, master) = running.into_parts();
        if let (Some(master), Some(ends)) = (master, &mut ends) {
            // While one process has it open, a terminal that nobody uses is no terminal that is gone.
            let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
            ends.err = rustix::pty::ioctl_tiocgptpeer(&master, flags).attempt(|| "open the container's terminal")?;
            ends.out = master;
        }
        status.phase = Phase::Running;
        status.pid = pid.as_raw_nonzero().get();
        status.started = rfc3339(SystemTime::now());
        let own = rustix::process::getpid().as_raw_nonzero().get();
        status.monitor = (own, process_start_ticks(own).unwrap_or(0));
        status.endpoints.clone_from(&attached.endpoints);
        status.published.clone_from(&attached.published);
        containers.save_status(id, &status)?;
        containers.tell_begin(config, &attached.endpoints);
        Ok(Launched { pidfd, ends, layers, attached })
    }
}

/// What others find the container's processes by.
fn record(config: &Config, dir: &Path, Born { pid, cgroups, mount }: Born) -> Record {
    Record {
        id: config.id.clone(),
        pid: pid.as_raw_nonzero().get(),
        start_time_ticks: process_start_ticks(pid.as_raw_nonzero().get()).unwrap_or(0),
        bundle: dir.to_owned(),
        rootfs: dir.join("rootfs"),
        created: config.created.clone(),
        owner: rustix::process::getuid().as_raw(),
        annotations: std::collections::HashMap::new(),
        cgroups,
        unit: None,
        mount,
        descriptors: Vec::new(),
    }
}

/// The terminal begins with the size of the caller's: what runs there may look once and never again.
fn take_size(spec: &mut Spec) {
    if let (Some(size), Some(process)) = (caller_size(), spec.process_mut()) {
        process.set_console_size(BoxBuilder::default().height(size.ws_row).width(size.ws_col).build().ok());
    }
}

/// Makes what the container gets as standard input, output and error this process's own, and gives the other
/// ends.
fn connect(config: &Config) -> Result<Ends> {
    let attempted = || "connect the container's input and output";
    let (input, input_end) = if config.interactive && !config.options.tty { pipe()? } else { (null()?, null()?) };
    let (out, out_end) = pipe()?;
    let (err, err_end) = pipe()?;
    for end in [&out, &err, &input_end] {
        rustix::fs::fcntl_setfl(end, OFlags::NONBLOCK).attempt(attempted)?;
    }
    for (fd, number) in [(&input, 0), (&out_end, 1), (&err_end, 2)] {
        sys::place_fd(fd.as_fd(), number, false).attempt(attempted)?;
    }
    Ok(Ends { out, err, input: input_end })
}

pub(super) fn pipe() -> Result<(OwnedFd, OwnedFd)> {
    rustix::pipe::pipe_with(PipeFlags::CLOEXEC).attempt(|| "create a pipe")
}

pub(super) fn null() -> Result<OwnedFd> {
    rustix::fs::open(c"/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).attempt(|| "open /dev/null")
}
