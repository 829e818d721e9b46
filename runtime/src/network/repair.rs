//! What others took away, and what was left behind, found by who looks next.

use super::claim::Endpoint;
use super::netlink::Socket;
use super::{Definition, Networks, firewall};
use crate::error::Result;
use crate::warning::warn;

impl Networks {
    /// Makes the firewall's table anew if somebody flushed it while a container runs that needs it. Where there
    /// are no networks it costs nothing. That it cannot be done is a warning: who asked wanted something else.
    pub(crate) fn repair(&self) {
        if !self.directory().exists() || !rustix::process::geteuid().is_root() {
            return;
        }
        if let Err(error) = self.rebuild_if_flushed() {
            warn(&format!("published ports may not work: {error}"));
        }
    }

    fn rebuild_if_flushed(&self) -> Result<()> {
        let used = |network: &Definition| network.is_routed() && self.has_claims(&network.name);
        if !self.list()?.into_iter().flatten().any(|network| used(&network)) || firewall::exists(&self.mark())? {
            return Ok(());
        }
        let _lock = self.lock()?;
        let list: Vec<_> = self.list()?.into_iter().flatten().collect();
        list.iter().for_each(|network| self.sweep(&network.name));
        // After a restart of the machine, or in another network namespace, there is nothing to be repaired.
        let socket = Socket::route()?;
        let up = |network: &Definition| socket.index(&network.interface).is_some() && !self.endpoints(network).is_empty();
        if list.iter().any(up) && !firewall::exists(&self.mark())? {
            firewall::rebuild(self)?;
        }
        Ok(())
    }

    /// Gives back what a container that has ended had: its addresses, and its ports.
    pub(crate) fn release(&self, container: &str) -> Result<()> {
        if !self.directory().exists() {
            return Ok(());
        }
        let all = self.list()?.into_iter().flatten();
        let own: Vec<Endpoint> = all
            .flat_map(|network| self.endpoints_unchecked(&network))
            .filter(|endpoint| endpoint.claim.container == container)
            .collect();
        self.release_endpoints(&own)
    }

    /// The same where it is known what that was.
    pub(crate) fn release_endpoints(&self, endpoints: &[Endpoint]) -> Result<()> {
        if endpoints.is_empty() {
            return Ok(());
        }
        let _lock = self.lock()?;
        let mut unpublished = Ok(());
        for endpoint in endpoints {
            // Each part whatever becomes of the others. What is another's by now had its ports removed by that.
            if !self.is_claimed(endpoint) {
                continue;
            }
            // First the ports: they must never lead to who has the address next.
            let ports = if endpoint.claim.published.is_empty() { Ok(()) } else { firewall::unpublish(self, endpoint) };
            match ports {
                Ok(()) => self.give_back(endpoint),
                failed => unpublished = unpublished.and(failed),
            }
        }
        unpublished
    }

    /// The containers of a network are told that one of them is called something else now.
    pub(crate) fn rename(&self, container: &str, name: &str) -> Result<()> {
        if !self.directory().exists() {
            return Ok(());
        }
        let _lock = self.lock()?;
        for network in self.list()?.into_iter().flatten() {
            let endpoints = self.endpoints_unchecked(&network).into_iter();
            let own: Vec<Endpoint> = endpoints.filter(|endpoint| endpoint.claim.container == container).collect();
            self.rename_claims(&own, name)?;
        }
        Ok(())
    }
}
