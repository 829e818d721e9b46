//! `create` and `run`: a container from a bundle.

use std::cell::Cell;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use oci_spec::runtime::Spec;
use rustix::process::Pid;

use super::Runtime;
use super::bundle::Bundle;
use super::handover::{Inherited, Receivers, check_terminal, write_pid_file};
use super::helper::{apart, enter_namespaces};
use super::state::{Container, Directory, Record, Status};
use crate::cgroup::{Member, Unit};
use crate::error::{Attempt, Error, Result};
use crate::hooks::{self, Kind};
use crate::launch::{Begin, Born, Channel, Exit, Guard, HostMount, Rootfs, Running, Signals, StartFifos, begin, remove_tree};

/// What the caller of `create` and `run` chooses.
#[derive(Debug, Clone, Default)]
pub struct CreateOptions {
    /// The container's name.
    pub id: String,
    /// The bundle.
    pub bundle: PathBuf,
    /// Where the number of its first process is written.
    pub pid_file: Option<PathBuf>,
    /// The socket that gets the master side of its terminal.
    pub console_socket: Option<PathBuf>,
    /// The socket that gets a pidfd of its first process.
    pub pidfd_socket: Option<PathBuf>,
    /// How many descriptors, from 3 up, the container inherits.
    pub preserve_fds: u32,
    /// The root filesystem is entered by `chroot`.
    pub no_pivot: bool,
    /// The container keeps the caller's session keyring.
    pub no_new_keyring: bool,
}

/// A container in the making.
struct Making<'a, 'g> {
    runtime: &'a Runtime,
    options: &'a CreateOptions,
    bundle: Bundle,
    directory: Directory,
    inherited: Inherited,
    guard: Option<&'g Guard>,
    /// It ends with this process.
    tied: bool,
    unit: Option<Unit>,
    /// Its root filesystem, once it may be in the host's mount namespace.
    mount: Cell<Option<HostMount>>,
}

impl Runtime {
    /// Makes a container whose process waits to be started (runtime-spec runtime.md, "Create").
    ///
    /// Call it before this process opens descriptors or starts threads.
    pub fn create(&self, options: &CreateOptions) -> Result<()> {
        let inherited = Inherited::take(options.preserve_fds)?;
        let bundle = Bundle::read(&options.bundle)?.enter()?;
        check_terminal(has_terminal(&bundle.spec), true, options.console_socket.as_deref())?;
        let receivers = Receivers::connect(options.console_socket.as_deref(), options.pidfd_socket.as_deref())?;
        let unit = self.unit(&options.id, &bundle.spec)?;
        let directory = Directory::create(&self.root, &options.id)?;
        let mount = Cell::default();
        let making = Making { runtime: self, options, bundle, directory, inherited, guard: None, tied: false, unit, mount };
        making.wait_to_be_started(&receivers).map(drop)
    }

    /// Makes a container, starts it and, unless `detach`, waits for its end and removes it, unless `keep`.
    ///
    /// [`Error::Exec`] says that the command could not be executed. Call it before this process opens
    /// descriptors or starts threads.
    pub fn run(&self, options: &CreateOptions, detach: bool, keep: bool) -> Result<Option<Exit>> {
        let inherited = Inherited::take(options.preserve_fds)?;
        let bundle = Bundle::read(&options.bundle)?.enter()?;
        check_terminal(has_terminal(&bundle.spec), detach, options.console_socket.as_deref())?;
        let receivers = Receivers::connect(options.console_socket.as_deref(), options.pidfd_socket.as_deref())?;
        let unit = self.unit(&options.id, &bundle.spec)?;
        let directory = Directory::create(&self.root, &options.id)?;
        let state = directory.path().to_owned();
        let mount = Cell::default();
        let making = Making { runtime: self, options, bundle, directory, inherited, guard: None, tied: false, unit, mount };
        if detach {
            return making.in_background(&receivers).map(|()| None);
        }
        let guard = Guard::start(&mut || keep || remove_tree(&state).is_ok())?;
        let ended = Making { guard: Some(&guard), tied: true, ..making }.in_foreground(&receivers, keep);
        guard.dismiss();
        ended.map(Some)
    }
}

impl<'g> Making<'_, 'g> {
    /// `create`.
    fn wait_to_be_started(self, receivers: &Receivers) -> Result<Container> {
        let channel = self.or_remove(StartFifos::make(self.directory.fd()))?;
        let (running, record) = self.bring_up(channel, false).map_err(|error| self.never_was(error))?;
        match self.hand_over(&running, receivers).and_then(|()| StartFifos::complete(self.directory.fd())) {
            Ok(()) => {
                running.detach();
                Ok(Container { directory: self.directory, record })
            }
            Err(error) => Err(self.give_up(running, error)),
        }
    }

    /// `run --detach`.
    fn in_background(self, receivers: &Receivers) -> Result<()> {
        if self.starts_in_two_steps() {
            let (runtime, spec) = (self.runtime, self.bundle.spec.clone());
            let container = self.wait_to_be_started(receivers)?;
            return runtime.release(&container, &spec).inspect_err(|_| drop(runtime.destroy(&container, &spec)));
        }
        let channel = self.or_remove(Channel::pipe())?;
        let (running, record) = self.bring_up(channel, false).map_err(|error| self.never_was(error))?;
        match self.hand_over(&running, receivers).and_then(|()| poststart(&record, &self.bundle.spec)) {
            Ok(()) => {
                running.detach();
                Ok(())
            }
            Err(error) => Err(self.give_up(running, error)),
        }
    }

    /// `run`: the container's end is waited for here.
    fn in_foreground(self, receivers: &Receivers, keep: bool) -> Result<Exit> {
        let signals = self.or_remove(Signals::catch())?;
        let two_steps = self.starts_in_two_steps();
        let channel = self.or_remove(if two_steps { StartFifos::make(self.directory.fd()) } else { Channel::pipe() })?;
        let (running, record) = self.bring_up(channel, true).map_err(|error| self.never_was(error))?;
        let started = self.hand_over(&running, receivers).and_then(|()| {
            if two_steps {
                StartFifos::complete(self.directory.fd())?;
                let container = Container { directory: Directory::open(&self.runtime.root, self.directory.id())?, record };
                return self.runtime.release(&container, &self.bundle.spec);
            }
            poststart(&record, &self.bundle.spec)
        });
        if let Err(error) = started.and_then(|()| self.directory.unlock()) {
            return Err(self.give_up(running, error));
        }
        let ended = running.wait(&signals);
        if !keep {
            self.directory.lock()?;
            self.detach_root()?;
            self.directory.remove()?;
            self.after_end();
        }
        ended
    }

    /// `startContainer` hooks run between the process's being ready and the command.
    fn starts_in_two_steps(&self) -> bool {
        !hooks::of(&self.bundle.spec, Kind::StartContainer).is_empty()
    }

    /// The process in its place, and what others find it by.
    fn bring_up(&self, channel: Channel, relayed: bool) -> Result<(Running<'g>, Record)> {
        let bundle = &self.bundle;
        for kind in Kind::ALL {
            hooks::of(&bundle.spec, kind).iter().try_for_each(|hook| hooks::check(kind, hook))?;
        }
        let mut spec = bundle.spec.clone();
        if let Some(process) = spec.process_mut()
            && self.inherited.listening > 0
        {
            let mut variables = process.env().clone().unwrap_or_default();
            variables.extend(self.inherited.variables());
            process.set_env(Some(variables));
        }
        let root = Rootfs::Directory(bundle.rootfs.clone()).mount()?;
        self.directory.write("config.json", &bundle.text)?;
        let mut run_hooks = |pid: Pid, pidfd: std::os::fd::BorrowedFd<'_>| self.while_creating(pid, pidfd);
        let early = [Kind::Prestart, Kind::CreateRuntime, Kind::CreateContainer];
        let hooked = early.iter().any(|kind| !hooks::of(&bundle.spec, *kind).is_empty());
        let mut saved = None;
        let running = begin(Begin {
            id: &self.options.id,
            bundle: &bundle.path,
            rootfs: &bundle.rootfs,
            spec: &spec,
            root,
            stdin: true,
            guard: self.guard,
            tied: self.tied,
            new_keyring: !self.options.no_new_keyring,
            pivot: !self.options.no_pivot,
            preserved: self.inherited.count,
            relayed,
            channel,
            unit: self.unit.clone(),
            // Known before it is complete: should this process be killed, the container can be deleted.
            born: &mut |Born { pid, cgroups, mount }| {
                self.mount.set(mount);
                self.directory.save(saved.insert(self.record(pid.as_raw_nonzero().get(), cgroups)))
            },
            hooks: if hooked { Some(&mut run_hooks) } else { None },
        })?;
        let record = saved.ok_or_else(|| Error::invalid("container", "it has no process"))?;
        Ok((running, record))
    }

    fn record(&self, pid: i32, cgroups: Vec<Member>) -> Record {
        Record { mount: self.mount.get(), ..self.bundle.record(&self.options.id, pid, cgroups, self.unit.clone()) }
    }

    /// Gives the caller what it wants of the process.
    fn hand_over(&self, running: &Running<'_>, receivers: &Receivers) -> Result<()> {
        receivers.send(running.master.as_ref().map(AsFd::as_fd), running.pidfd.as_fd())?;
        self.options.pid_file.as_ref().map_or(Ok(()), |path| write_pid_file(path, running.pid.as_raw_nonzero().get()))
    }

    /// The hooks that run while the process stands before the host's filesystem.
    fn while_creating(&self, pid: Pid, pidfd: std::os::fd::BorrowedFd<'_>) -> Result<()> {
        let spec = &self.bundle.spec;
        let record = self.record(pid.as_raw_nonzero().get(), Vec::new());
        hooks_of_creation(&record, spec)?;
        if hooks::of(spec, Kind::CreateContainer).is_empty() {
            return Ok(());
        }
        let pid = pid_inside(record.pid);
        apart("run the createContainer hooks", &mut || {
            enter_namespaces(pidfd)?;
            // As with runc: a hook that adds to the container does so by relative paths.
            let rootfs = &self.bundle.rootfs;
            rustix::process::chdir(rootfs).attempt(|| format!("enter {rootfs:?} for the createContainer hooks"))?;
            hooks::run(Kind::CreateContainer, spec, || hook_state(&record, Status::Creating, pid))
        })
    }

    fn after_end(&self) {
        hooks::run_all(Kind::Poststop, &self.bundle.spec, || hook_state(&self.record(0, Vec::new()), Status::Stopped, 0));
    }

    /// Ends a container that did not come to be.
    fn give_up(&self, running: Running<'_>, error: Error) -> Error {
        running.kill();
        self.remove();
        self.after_end();
        error
    }

    /// The same where there was a process for a moment at most.
    fn never_was(&self, error: Error) -> Error {
        let born = self.directory.has("state.json");
        self.remove();
        if born {
            self.after_end();
        }
        error
    }

    fn or_remove<T>(&self, result: Result<T>) -> Result<T> {
        result.inspect_err(|_| self.remove())
    }

    fn remove(&self) {
        // What stopped the creation is what is reported.
        let _ = self.detach_root().and_then(|()| self.directory.remove());
    }

    fn detach_root(&self) -> Result<()> {
        self.mount.get().map_or(Ok(()), |mount| mount.detach(&self.bundle.rootfs))
    }
}

pub(super) fn has_terminal(spec: &Spec) -> bool {
    spec.process().as_ref().and_then(oci_spec::runtime::Process::terminal).unwrap_or(false)
}

/// Runs the hooks that come first, in this process's namespaces.
pub(super) fn hooks_of_creation(record: &Record, spec: &Spec) -> Result<()> {
    // Older than the word "creating": who wrote a prestart hook expects the one there was before.
    for (kind, status) in [(Kind::Prestart, Status::Created), (Kind::CreateRuntime, Status::Creating)] {
        hooks::run(kind, spec, || hook_state(record, status, record.pid))?;
    }
    Ok(())
}

/// Runs the hooks of a container whose command is executed. That one failed ends the container since version 1.2.1
/// of the specification; before, it was to go on "as if the hook had succeeded".
pub(super) fn poststart(record: &Record, spec: &Spec) -> Result<()> {
    let state = || hook_state(record, Status::Running, record.pid);
    if is_older(spec.version(), [1, 2, 1]) {
        hooks::run_all(Kind::Poststart, spec, state);
        return Ok(());
    }
    hooks::run(Kind::Poststart, spec, state)
}

/// Whether a version as `ociVersion` has it, what stands behind its numbers aside, comes before `other`.
fn is_older(version: &str, other: [u32; 3]) -> bool {
    let numbers = version.split(['-', '+']).next().unwrap_or_default();
    let mut own = [0; 3];
    own.iter_mut().zip(numbers.split('.')).for_each(|(own, number)| *own = number.parse().unwrap_or(0));
    own < other
}

/// The state as hooks get it.
pub(super) fn hook_state(record: &Record, status: Status, pid: i32) -> Result<Vec<u8>> {
    let state = record.state(status, pid);
    serde_json::to_vec(&state).map_err(|error| Error::invalid("container state", error))
}

/// A process's number in its own pid namespace.
pub(super) fn pid_inside(pid: i32) -> i32 {
    let status = std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("status")).unwrap_or_default();
    let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
    numbers.and_then(|numbers| numbers.split_ascii_whitespace().last()?.parse().ok()).unwrap_or(pid)
}
