//! Addresses in use: one file each, made by `link(2)`, which only one can do.
//!
//! The file is written whole before it gets its name, so nobody reads half of it, and no lock is taken to get an
//! address. Whose container is gone has none any more: such claims are removed under the lock of networks, so
//! that nobody removes what another just made in their place.

use std::fs::File;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};

use super::create::{usable, v4};
use super::link::Mac;
use super::options::parse_mac;
use super::publish::Published;
use super::{Definition, FILE_LIMIT_BYTES, Networks, firewall, unknown};
use crate::error::{Attempt, Error, Result};
use crate::files;

/// What stands in the file of an address: whose it is.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Claim {
    /// The container's ID.
    pub container: String,
    /// What people call it; empty if nobody does.
    pub name: String,
    /// By what other names the network's containers find it.
    pub aliases: Vec<String>,
    /// Its interface in the container.
    pub interface: String,
    /// The hardware address it was given, if it was.
    pub mac: Option<String>,
    /// Ports of this machine that lead to it.
    pub published: Vec<Published>,
}

/// A container's connection to a network.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Endpoint {
    /// The network's name.
    pub network: String,
    /// Its ID.
    pub network_id: String,
    /// Whose it is.
    #[serde(flatten)]
    pub claim: Claim,
    /// The IPv4 address.
    pub address: Ipv4Addr,
    /// How many bits of it are the network's.
    pub prefix: u8,
    /// The router's.
    pub gateway: Ipv4Addr,
    /// The IPv6 address and its network's bits, if the network has some.
    pub address6: Option<(IpAddr, u8)>,
    /// The router's.
    pub gateway6: Option<IpAddr>,
    /// The hardware address.
    pub mac_address: String,
}

impl Endpoint {
    fn new(network: &Definition, claim: Claim, address: Ipv4Addr) -> Self {
        let mac = claim.mac.as_deref().and_then(|text| parse_mac(text).ok()).unwrap_or_else(|| mac_of(address));
        Self {
            network: network.name.clone(),
            network_id: network.id.clone(),
            mac_address: mac.map(|byte| format!("{byte:02x}")).join(":"),
            claim,
            address,
            prefix: network.subnet.prefix(),
            gateway: network.gateway,
            address6: network.address6(address).zip(network.subnet6.map(super::Subnet::prefix)),
            gateway6: network.gateway6(),
        }
    }

    pub(super) fn mac(&self) -> Mac {
        parse_mac(&self.mac_address).unwrap_or_else(|_| mac_of(self.address))
    }
}

/// As docker makes it: who has an address that another had before is found at the same place.
pub(super) fn mac_of(address: Ipv4Addr) -> Mac {
    let [a, b, c, d] = address.octets();
    [0x02, 0x42, a, b, c, d]
}

impl Networks {
    /// Takes an address of `network`: `wanted`, or the first that is free. `scratch` is a directory of the
    /// container's own in the store.
    ///
    /// # Errors
    ///
    /// [`Error::Busy`] when it, or when every one, is in use.
    pub(super) fn claim(&self, network: &Definition, claim: Claim, wanted: Option<Ipv4Addr>, scratch: &Path) -> Result<Endpoint> {
        let file = scratch.join(".claim");
        let attempted = || format!("take an address of network {}", network.name);
        let text = serde_json::to_vec(&claim).map_err(std::io::Error::from).attempt(attempted)?;
        std::fs::write(&file, text).attempt(attempted)?;
        let taken = self.link(network, &file, wanted);
        // Its other name is the address.
        let _ = std::fs::remove_file(&file);
        taken.map(|address| Endpoint::new(network, claim, address))
    }

    fn link(&self, network: &Definition, file: &Path, wanted: Option<Ipv4Addr>) -> Result<Ipv4Addr> {
        if let Some(address) = wanted
            && !usable(network.subnet, address)
        {
            let why = format!("it is no address a container can have in network {}, which has {}", network.name, network.subnet);
            return Err(Error::invalid(format!("address {address}"), why));
        }
        for swept in [false, true] {
            if swept {
                let _lock = self.lock()?;
                self.sweep(&network.name);
            }
            let found = match wanted {
                Some(address) => self.link_one(network, file, address)?.then_some(address),
                None => self.link_first(network, file)?,
            };
            if let Some(address) = found {
                return Ok(address);
            }
        }
        Err(match wanted {
            Some(address) => Error::Busy {
                what: format!("address {address}"),
                why: format!("another container of network {}, or its gateway, has it", network.name),
            },
            None => Error::Busy {
                what: format!("every address of network {} ({})", network.name, network.subnet),
                why: "stop a container, or make a larger network".into(),
            },
        })
    }

    fn link_first(&self, network: &Definition, file: &Path) -> Result<Option<Ipv4Addr>> {
        for number in 1..network.subnet.last() {
            let address = v4(network.subnet.nth(number));
            if self.link_one(network, file, address)? {
                return Ok(Some(address));
            }
        }
        Ok(None)
    }

    fn link_one(&self, network: &Definition, file: &Path, address: Ipv4Addr) -> Result<bool> {
        if address == network.gateway {
            return Ok(false);
        }
        match std::fs::hard_link(file, self.claims(&network.name).join(address.to_string())) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
            Err(error) if error.kind() == ErrorKind::NotFound => Err(unknown(&network.name)),
            Err(error) => Err(error).attempt(|| format!("take address {address} of network {}", network.name)),
        }
    }

    /// Every claim of a network, whoever's, by address.
    fn read_claims(&self, name: &str) -> Vec<(Ipv4Addr, Claim)> {
        let directory = self.claims(name);
        let entries = std::fs::read_dir(&directory).into_iter().flatten().flatten();
        let mut claims: Vec<(Ipv4Addr, Claim)> = entries
            .filter_map(|entry| {
                let address = entry.file_name().to_str()?.parse().ok()?;
                // Gone meanwhile: nobody's. Damaged: nobody's who could be found.
                let bytes = files::read_bounded(&entry.path(), FILE_LIMIT_BYTES).ok()?;
                Some((address, serde_json::from_slice(&bytes).unwrap_or_default()))
            })
            .collect();
        claims.sort_by_key(|(address, _)| *address);
        claims
    }

    /// The connections of a network's containers.
    pub fn endpoints(&self, network: &Definition) -> Vec<Endpoint> {
        let all = self.endpoints_unchecked(network).into_iter();
        all.filter(|endpoint| self.lives(&endpoint.claim.container)).collect()
    }

    /// The same, with those of containers that are gone, which is quicker.
    pub(super) fn endpoints_unchecked(&self, network: &Definition) -> Vec<Endpoint> {
        let claims = self.read_claims(&network.name).into_iter();
        claims.map(|(address, claim)| Endpoint::new(network, claim, address)).collect()
    }

    /// Whether a container runs, or is being started: its monitor or its command holds a lock then.
    fn lives(&self, container: &str) -> bool {
        let held = |path: &Path| {
            let free = |file: File| files::try_lock(&file, FlockOperation::NonBlockingLockShared).unwrap_or(true);
            File::open(path).is_ok_and(|file| !free(file))
        };
        !container.is_empty()
            && (held(&self.store.join("containers").join(container).join("lock"))
                || held(&self.store.join("leases").join(container)))
    }

    /// Removes the claims of containers that are gone, and their ports. Only under the lock.
    pub(super) fn sweep(&self, name: &str) {
        let mut dead = self.read_claims(name);
        dead.retain(|(_, claim)| !self.lives(&claim.container));
        let published = dead.iter().any(|(_, claim)| !claim.published.is_empty());
        // First the ports of all: they must never lead to who has an address next.
        let ports_are_gone = !published
            || firewall::exists(&self.mark()).and_then(|exists| if exists { firewall::rebuild(self) } else { Ok(()) }).is_ok();
        for (address, _) in dead.iter().filter(|(_, claim)| ports_are_gone || claim.published.is_empty()) {
            // One that stays is recognised by who wants it next.
            let _ = std::fs::remove_file(self.claims(name).join(address.to_string()));
        }
    }

    /// Whether anybody has an address of a network.
    pub(super) fn has_claims(&self, name: &str) -> bool {
        std::fs::read_dir(self.claims(name)).is_ok_and(|mut entries| entries.next().is_some())
    }

    /// Calls a container something else in its networks. Only under the lock.
    pub(super) fn rename_claims(&self, endpoints: &[Endpoint], name: &str) -> Result<()> {
        for endpoint in endpoints {
            let path = self.claim_path(endpoint);
            if path.exists() {
                let claim = Claim { name: name.to_owned(), ..endpoint.claim.clone() };
                let text = serde_json::to_vec(&claim).map_err(std::io::Error::from).attempt(|| "name a container anew")?;
                files::write_atomically(&path, &self.directory().join(".new"), &text)?;
            }
        }
        Ok(())
    }

    /// Whether an address is still this container's. Only under the lock, or for a container that lives.
    pub(super) fn is_claimed(&self, endpoint: &Endpoint) -> bool {
        let bytes = files::read_bounded(&self.claim_path(endpoint), FILE_LIMIT_BYTES).unwrap_or_default();
        serde_json::from_slice::<Claim>(&bytes).is_ok_and(|claim| claim.container == endpoint.claim.container)
    }

    /// Gives back one address of a container, whose it still is.
    pub(super) fn give_back(&self, endpoint: &Endpoint) {
        // One that stays is recognised by who wants it next.
        let _ = std::fs::remove_file(self.claim_path(endpoint));
    }

    fn claim_path(&self, endpoint: &Endpoint) -> PathBuf {
        self.claims(&endpoint.network).join(endpoint.address.to_string())
    }
}
