//! `start`: the process of a created container executes its command.

use oci_spec::runtime::{Hook, Process, Spec};

use super::create::{hook_state, pid_inside, poststart};
use super::helper::apart;
use super::state::{Container, Status};
use super::{Runtime, not_running};
use crate::error::{Attempt, Error, Result};
use crate::hooks::{self, Kind};
use crate::launch::{Join, StartFifos, Target, exec_error, join};

impl Runtime {
    /// Starts a container that was created (runtime-spec runtime.md, "Start").
    ///
    /// [`Error::Exec`] says that the command could not be executed: the container has ended then.
    pub fn start(&self, id: &str) -> Result<()> {
        let container = self.take(id)?;
        match container.status()? {
            Status::Created => {}
            Status::Stopped => {
                return Err(Error::Busy {
                    what: format!("container {id:?}"),
                    why: "it has ended and cannot be started again".into(),
                });
            }
            status => {
                let why = format!("it is {}: only a created container can be started", status.name());
                return Err(Error::Busy { what: format!("container {id:?}"), why });
            }
        }
        let spec = container.spec()?;
        self.release(&container, &spec)
    }

    /// Runs the hooks and lets the process go. Should a hook fail, the container is ended.
    pub(super) fn release(&self, container: &Container, spec: &Spec) -> Result<()> {
        let released = self.start_hooks(container, spec).and_then(|()| match StartFifos::start(container.directory.fd())? {
            Some(errno) => Err(exec_error(&command(spec), errno)),
            None => Ok(()),
        });
        let started = released.and_then(|()| poststart(&container.record, spec));
        match started {
            // The command is not there: the process has ended by itself.
            Err(Error::Exec { .. }) | Ok(()) => started,
            Err(error) => {
                // runtime.md, steps 7 and 9: the container is ended and destroyed.
                self.destroy(container, spec)?;
                Err(error)
            }
        }
    }

    fn start_hooks(&self, container: &Container, spec: &Spec) -> Result<()> {
        let list = hooks::of(spec, Kind::StartContainer);
        if list.is_empty() {
            return Ok(());
        }
        let state = hook_state(&container.record, Status::Created, pid_inside(container.record.pid))?;
        list.iter().try_for_each(|hook| apart("run a startContainer hook", &mut || run_inside(container, spec, hook, &state)))
    }
}

/// A hook of the container's own, in its namespaces: with the privileges of the container's process and
/// no others, because its program comes from the image.
fn run_inside(container: &Container, spec: &Spec, hook: &Hook, state: &[u8]) -> Result<()> {
    let failure = |source| hooks::failure(Kind::StartContainer, hook, source);
    let target = container.process()?.ok_or_else(|| not_running(container.id()))?;
    let mut process: Process = spec.process().clone().ok_or_else(|| Error::invalid("configuration", "it has no \"process\""))?;
    let arguments = hook.args().clone().filter(|arguments| !arguments.is_empty());
    let name = || vec![hook.path().to_string_lossy().into_owned()];
    process.set_args(Some(arguments.unwrap_or_else(name)));
    if let Some(variables) = hook.env() {
        process.set_env(Some(variables.clone()));
    }
    process.set_terminal(Some(false)).set_cwd("/".into());
    let running = join(Join {
        id: container.id(),
        bundle: &container.record.bundle,
        target: Target::open(target.pid, target.pidfd)?,
        spec,
        process: &process,
        program: Some(hook.path()),
        input: Some(hooks::state_input(state)?),
        preserved: 0,
        relayed: false,
    })?;
    if let Some(limit) = hooks::timeout(hook)
        && !hooks::ends_within(&running.pidfd, limit).attempt(|| "wait for a hook")?
    {
        running.kill();
        return Err(failure(std::io::Error::other(format!("it took longer than its timeout of {} s", limit.as_secs()))));
    }
    match running.reap()?.code() {
        0 => Ok(()),
        code => Err(failure(std::io::Error::other(format!("exit status {code}")))),
    }
}

fn command(spec: &Spec) -> String {
    let arguments = spec.process().as_ref().and_then(|process| process.args().clone());
    arguments.unwrap_or_default().into_iter().next().unwrap_or_default()
}
