//! Containers and networks: connected while they run or before, and what they had given back.

use rustix::fs::FlockOperation;

use super::record::{Config, Phase, Status};
use super::store::{Container, Containers, save};
use crate::error::{Error, Result};
use crate::network::wire::Connect;
use crate::network::{self, Attachment, Definition, Endpoint, Networks};
use crate::spec::Network;

impl Containers {
    /// The networks of the same store.
    pub fn networks(&self) -> Networks {
        Networks::new(&self.store)
    }

    /// Gives back what a container that has ended had of networks. `known` are its connections; without any they
    /// are looked for.
    pub(super) fn release_network(&self, config: &Config, known: &[Endpoint]) -> Result<()> {
        match config.options.network {
            Network::None | Network::Host | Network::Container(_) => return Ok(()),
            Network::Networks | Network::User => network::end(&self.directory(&config.id)),
        }
        match config.options.network {
            Network::Networks if known.is_empty() => self.networks().release(&config.id),
            Network::Networks => self.networks().release_endpoints(known),
            _ => Ok(()),
        }
    }

    /// Connects a container to a network, at once if it runs. For an ordinary user's this process must be in the user
    /// namespace of [`crate::userns::enter_shared`].
    ///
    /// # Errors
    ///
    /// [`Error::Busy`] when it is connected already, or has no networks of its own.
    pub fn connect(&self, container: &Container, attachment: &Attachment) -> Result<()> {
        let busy =
            |why: &str| Error::Busy { what: format!("the network of container {}", container.config.name), why: why.into() };
        if container.config.options.network != Network::Networks {
            return Err(busy("it was made with a --network that is none of its own; make it anew"));
        }
        let _lock = self.store.lock(FlockOperation::LockExclusive)?;
        let mut config = self.config(&container.config.id)?;
        let attachments = &mut config.options.networking.attachments;
        if attachments.iter().any(|one| one.network == attachment.network) {
            return Err(busy(&format!("it is connected to network {} already", attachment.network)));
        }
        attachments.push(attachment.clone());
        config.options.networking.check()?;
        let (id, directory) = (&config.id, self.directory(&config.id));
        let mut status = self.status(id)?;
        if status.phase == Phase::Starting {
            return Err(busy("it is just being started; try again"));
        }
        if status.phase != Phase::Running {
            self.networks().get(&attachment.network)?;
            return save(&directory, "container.json", &config);
        }
        let used = status.endpoints.iter().map(|endpoint| endpoint.claim.interface.clone()).collect();
        let namespace = &self.namespace(&config, "net")?;
        let connect = Connect { id, name: &config.name, namespace, used, directory: &directory, attachment };
        let endpoint = self.networks().connect(&connect)?;
        self.tell_network("connect", &config, std::slice::from_ref(&endpoint));
        status.endpoints.push(endpoint);
        save(&directory, "container.json", &config)?;
        self.save_running(id, &status)
    }

    /// Saves what has changed of a container that runs, unless it has ended since.
    fn save_running(&self, id: &str, status: &Status) -> Result<()> {
        if self.status(id)?.phase == Phase::Running { self.save_status(id, status) } else { Ok(()) }
    }

    /// Takes a container out of a network, at once if it runs; as [`Containers::connect`].
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`] when it is not in it.
    pub fn disconnect(&self, container: &Container, network: &Definition) -> Result<()> {
        let _lock = self.store.lock(FlockOperation::LockExclusive)?;
        let mut config = self.config(&container.config.id)?;
        let attachments = &mut config.options.networking.attachments;
        let before = attachments.len();
        attachments.retain(|one| one.network != network.name);
        if attachments.len() == before {
            let what = format!("container {} in network {}", container.config.name, network.name);
            return Err(Error::NotFound { what, hint: "`rbox network inspect` shows who is connected".into() });
        }
        let mut status = self.status(&config.id)?;
        let left = status.endpoints.iter().position(|endpoint| endpoint.network == network.name);
        if let (Phase::Running, Some(index)) = (status.phase, left) {
            let endpoint = status.endpoints.remove(index);
            self.networks().disconnect(&self.namespace(&config, "net")?, &endpoint, network.unprivileged)?;
            self.tell_network("disconnect", &config, std::slice::from_ref(&endpoint));
            let leads_outside = |other: &Endpoint| self.networks().get(&other.network).is_ok_and(|other| !other.internal);
            if network.unprivileged && !status.endpoints.iter().any(leads_outside) {
                network::end(&self.directory(&config.id));
                status.published.clear();
            }
            if !endpoint.claim.published.is_empty() {
                status.published.clear();
            }
            self.save_running(&config.id, &status)?;
        }
        save(&self.directory(&config.id), "container.json", &config)
    }
}
