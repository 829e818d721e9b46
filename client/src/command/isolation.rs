//! How far a container is kept apart from this machine, as flags of `rrun` and `rbox create`.

use clap::{Args, ValueEnum};
use longshore_runtime::Error;
use longshore_runtime::container::Containers;
use longshore_runtime::spec::{Device, Isolation, NamespaceMode};
use longshore_runtime::userns::Mapping;

use crate::error::Result;

#[derive(Debug, Args)]
pub(super) struct IsolationFlags {
    /// A small first process that passes signals on to the command and reaps orphans
    #[arg(long)]
    init: bool,
    /// All capabilities and devices, and nothing of the kernel hidden: whoever is in there is root here
    #[arg(long)]
    privileged: bool,
    /// A device of this machine
    #[arg(long = "device", value_name = "HOST[:CONTAINER[:rwm]]")]
    devices: Vec<Device>,
    /// Whose processes it sees: private, host or container:NAME
    #[arg(long, value_name = "MODE", default_value = "private")]
    pid: NamespaceMode,
    /// Whose System V and POSIX queues, semaphores and shared memory: private, host or container:NAME (without /dev/shm)
    #[arg(long, value_name = "MODE", default_value = "private")]
    ipc: NamespaceMode,
    /// Whose host name: private, host or container:NAME
    #[arg(long, value_name = "MODE", default_value = "private")]
    uts: NamespaceMode,
    /// Whose user ids: this machine's, which is always so for root
    #[arg(long, value_enum, value_name = "MODE")]
    userns: Option<UserNamespace>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum UserNamespace {
    Host,
}

impl IsolationFlags {
    /// The same with the IDs of the containers that are named.
    pub(super) fn isolation(
        self,
        containers: impl FnOnce() -> Result<Containers>,
        rootless: Option<Mapping>,
    ) -> Result<Isolation> {
        if self.userns.is_some() && rootless.is_some() {
            let why = "an ordinary user's containers have a user namespace of their own: leave it out";
            return Err(Error::invalid("--userns host", why).into());
        }
        let (init, privileged, devices) = (self.init, self.privileged, self.devices);
        let mut isolation = Isolation { init, privileged, devices, pid: self.pid, ipc: self.ipc, uts: self.uts };
        let named = isolation.modes().into_iter().filter_map(|(_, mode)| match mode {
            NamespaceMode::Container(name) => Some(name),
            _ => None,
        });
        let named: Vec<&mut String> = named.collect();
        if !named.is_empty() {
            let containers = containers()?;
            for name in named {
                *name = containers.get(name)?.config.id;
            }
        }
        Ok(isolation)
    }
}
