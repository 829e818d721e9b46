//! Networks of containers: bridges with addresses, names and published ports.
//!
//! ```text
//! ROOT/networks/NAME.json          a network: written whole, never changed
//! ROOT/networks/NAME/ADDRESS       one address in use: whose, and by what names it is found
//! ROOT/networks/.lock              held for as long as networks or rules of the firewall change, and no longer
//! ```
//!
//! A container's network namespace is made and filled [before the container](attach), which joins it. Nothing but
//! its processes and its monitor keeps it: when they are gone, however that came, the kernel takes the namespace
//! and the interfaces away, and frees the ports. What is left then is a file, the [claim](claim) of an address,
//! and perhaps elements of a map of the [firewall]: the next command that finds them without a container removes
//! them.
//!
//! **Invariant: the firewall's table can be made anew from what is on disk**, and is, when somebody flushed it.
//!
//! An ordinary user's bridges are in a network namespace [of that user's own](own), where nothing is routed and there is no
//! firewall; each container has [a program](outside) that leads outside. All else is the same.

pub(crate) mod attach;
mod claim;
mod create;
pub(crate) mod dns;
mod etc;
mod firewall;
mod link;
mod namespace;
mod netlink;
mod options;
mod outside;
mod own;
mod pasta;
mod publish;
mod repair;
mod slirp;
mod subnet;
pub(crate) mod wire;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};

pub use attach::{DefaultNetwork, default_network};
pub use claim::{Claim, Endpoint};
pub use create::CreateNetwork;
pub use options::{AddedHost, Attachment, NetworkOptions};
pub(crate) use outside::end;
pub use publish::{Protocol, Published};
pub use subnet::Subnet;

use crate::error::{Attempt, Error, Result};
use crate::files;
use crate::name::Digest;
use crate::store::Store;

/// The network of containers that are told nothing else.
pub const DEFAULT: &str = "bridge";

/// Root's store, if nothing else is said: its interface and rules have plain names.
const ROOTS_STORE: &str = "/var/lib/longshore";

/// The largest description of a network, or claim of an address, that is read back.
const FILE_LIMIT_BYTES: u64 = 1 << 20;

/// How a network's containers are connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Driver {
    /// By a bridge of this machine, which is their router.
    Bridge,
    /// Each by an interface of its own on the wire of one of this machine's.
    Macvlan,
    /// The same, with that interface's hardware address.
    Ipvlan,
}

impl Driver {
    /// As the user writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bridge => "bridge",
            Self::Macvlan => "macvlan",
            Self::Ipvlan => "ipvlan",
        }
    }
}

/// A network.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Definition {
    /// 64 hexadecimal digits.
    pub id: String,
    /// What people call it.
    pub name: String,
    /// When it was made, RFC 3339.
    pub created: String,
    /// How its containers are connected.
    pub driver: Driver,
    /// Its IPv4 addresses.
    pub subnet: Subnet,
    /// The router's.
    pub gateway: Ipv4Addr,
    /// Its IPv6 addresses, if it has any: a container has the number there that it has in [`Self::subnet`].
    pub subnet6: Option<Subnet>,
    /// It leads nowhere.
    pub internal: bool,
    /// The user's own.
    pub labels: BTreeMap<String, String>,
    /// The driver's.
    pub options: BTreeMap<String, String>,
    /// The bridge, or the interface on whose wire the containers are.
    pub interface: String,
    /// An ordinary user made it: its bridge is in a namespace of that user's.
    #[serde(default)]
    pub unprivileged: bool,
    /// Its bridge was there before, and stays when the network goes.
    #[serde(default)]
    pub(super) borrowed: bool,
}

impl Definition {
    /// The IPv6 address that goes with an IPv4 one.
    pub fn address6(&self, address: Ipv4Addr) -> Option<IpAddr> {
        Some(self.subnet6?.nth(self.subnet.number(address.into())))
    }

    /// The router's IPv6 address.
    pub fn gateway6(&self) -> Option<IpAddr> {
        self.address6(self.gateway)
    }

    /// The largest packet, in bytes, if it is not the kernel's choice.
    fn mtu(&self) -> Option<u32> {
        let value = self.options.get("com.docker.network.driver.mtu").or_else(|| self.options.get("mtu"))?;
        value.parse().ok()
    }

    /// Whether this machine is its router, and has rules for it.
    fn is_routed(&self) -> bool {
        self.driver == Driver::Bridge && !self.unprivileged
    }

    /// Whether names are resolved in it.
    fn resolves(&self) -> bool {
        self.name != DEFAULT
    }
}

/// The networks kept in a store.
#[derive(Debug, Clone)]
pub struct Networks {
    store: PathBuf,
}

impl Networks {
    /// Those of `store`.
    pub fn new(store: &Store) -> Self {
        Self::at(store.root())
    }

    pub(crate) fn at(store: &Path) -> Self {
        Self { store: store.to_owned() }
    }

    fn directory(&self) -> PathBuf {
        self.store.join("networks")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory().join(format!("{name}.json"))
    }

    /// Where the claims of a network are.
    fn claims(&self, name: &str) -> PathBuf {
        self.directory().join(name)
    }

    fn lock(&self) -> Result<File> {
        files::make_private_dir(&self.directory())?;
        let file = files::open_lock(&self.directory().join(".lock"))?;
        files::try_lock(&file, FlockOperation::LockExclusive)?;
        Ok(file)
    }

    /// What sets this store's interfaces and rules apart from another's; empty for the default one.
    fn mark(&self) -> String {
        if self.store == Path::new(ROOTS_STORE) {
            return String::new();
        }
        Digest::of(self.store.as_os_str().as_encoded_bytes()).hex()[..8].to_owned()
    }

    /// All networks, by name. One whose file is damaged is an error and does not hide the others.
    pub fn list(&self) -> Result<Vec<Result<Definition>>> {
        let entries = match std::fs::read_dir(self.directory()) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.attempt(|| format!("read {}", self.directory().display()))?,
        };
        let names = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.strip_suffix(".json").map(str::to_owned));
        let mut names: Vec<String> = names.collect();
        names.sort();
        Ok(names.iter().map(|name| self.load(name)).collect())
    }

    fn load(&self, name: &str) -> Result<Definition> {
        let path = self.path(name);
        let bytes = match files::read_bounded(&path, FILE_LIMIT_BYTES) {
            Err(Error::Io { source, .. }) if source.kind() == ErrorKind::NotFound => return Err(unknown(name)),
            other => other?,
        };
        let damaged = |error| Error::invalid(path.display(), format!("{error}; remove this file"));
        serde_json::from_slice(&bytes).map_err(damaged)
    }

    /// The network a user means by `text`: a name, an ID, or the beginning of an ID.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`], and [`Error::Name`] when several IDs begin so. The default network is there only once
    /// it was used.
    pub fn get(&self, text: &str) -> Result<Definition> {
        if create::check_name(text).is_err() {
            return Err(unknown(text));
        }
        match self.load(text) {
            Err(Error::NotFound { .. }) => {}
            other => return other,
        }
        let mut found = self.list()?.into_iter().flatten().filter(|network| network.id.starts_with(text));
        match (found.next(), found.next()) {
            (Some(_), Some(_)) => {
                Err(Error::Name { what: "network ID", input: text.to_owned(), why: "several networks' IDs begin so" })
            }
            (first, _) => first.ok_or_else(|| unknown(text)),
        }
    }
}

fn unknown(text: &str) -> Error {
    Error::NotFound { what: format!("network {text}"), hint: "`rbox network ls` shows those there are".into() }
}
