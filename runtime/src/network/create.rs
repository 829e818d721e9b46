//! Making networks and removing them.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr};
use std::time::SystemTime;

use super::{DEFAULT, Definition, Driver, Networks, Subnet, firewall, link, netlink, own, subnet};
use crate::error::{Attempt, Error, Result};
use crate::events::{self, Event};
use crate::files;
use crate::lifecycle::rfc3339;

/// Words that mean something else where a network is named.
const RESERVED: [&str; 5] = [DEFAULT, "default", "host", "none", "container"];

/// Options of a driver, as docker calls them, and what they are to be.
const OPTIONS: [&str; 4] = ["parent", "mtu", "com.docker.network.driver.mtu", "com.docker.network.bridge.name"];

/// The longest name of an interface (`IFNAMSIZ` less the end of the string).
const INTERFACE_LIMIT_BYTES: usize = 15;

/// A network to be made.
#[derive(Debug, Clone)]
pub struct CreateNetwork {
    /// What it is to be called.
    pub name: String,
    /// How its containers are connected.
    pub driver: Driver,
    /// At most one of each family; the pool's next without.
    pub subnets: Vec<Subnet>,
    /// The first address without.
    pub gateway: Option<Ipv4Addr>,
    /// With IPv6 addresses, private ones if none are given.
    pub ipv6: bool,
    /// It leads nowhere.
    pub internal: bool,
    /// The user's own.
    pub labels: BTreeMap<String, String>,
    /// The driver's: `parent`, `mtu`, `com.docker.network.bridge.name`.
    pub options: BTreeMap<String, String>,
    /// By an ordinary user, and for that one's containers.
    pub unprivileged: bool,
}

/// As docker's names of networks, which become names of files here.
pub(super) fn check_name(name: &str) -> Result<()> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    let good = name.starts_with(|c: char| c.is_ascii_alphanumeric()) && name.len() <= 128 && name.chars().all(allowed);
    let why = "it must match [a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}";
    if good && !name.ends_with(".json") { Ok(()) } else { Err(Error::Name { what: "network name", input: name.into(), why }) }
}

impl Networks {
    /// Makes a network. Its bridge comes to be with its first container.
    ///
    /// # Errors
    ///
    /// [`Error::Busy`] when there is one of that name, or when its subnet is in use.
    pub fn create(&self, create: CreateNetwork) -> Result<Definition> {
        check_name(&create.name)?;
        if RESERVED.contains(&create.name.as_str()) {
            return Err(Error::Name {
                what: "network name",
                input: create.name,
                why: "it has a meaning of its own; choose another",
            });
        }
        let _lock = self.lock()?;
        self.make(create)
    }

    /// The default network, made if it is not there yet.
    pub(super) fn default_network(&self) -> Result<Definition> {
        match self.load(DEFAULT) {
            Err(Error::NotFound { .. }) => {}
            other => return other,
        }
        let _lock = self.lock()?;
        match self.load(DEFAULT) {
            Err(Error::NotFound { .. }) => {}
            other => return other,
        }
        self.make(CreateNetwork {
            name: DEFAULT.into(),
            driver: Driver::Bridge,
            subnets: Vec::new(),
            gateway: None,
            ipv6: false,
            internal: false,
            labels: BTreeMap::new(),
            options: BTreeMap::new(),
            unprivileged: false,
        })
    }

    /// Only under the lock.
    fn make(&self, create: CreateNetwork) -> Result<Definition> {
        let what = || format!("network {}", create.name);
        if self.path(&create.name).exists() {
            let why = "there is one of that name; remove it first (`rbox network rm`), or choose another name".into();
            return Err(Error::Busy { what: what(), why });
        }
        check_options(&create).map_err(|why| Error::invalid(what(), why))?;
        let others: Vec<Definition> = self.list()?.into_iter().flatten().collect();
        let id = files::random_hex(32)?;
        let of_family = |v6: bool| {
            let mut fitting = create.subnets.iter().copied().filter(|subnet| subnet.is_v6() == v6);
            match (fitting.next(), fitting.next()) {
                (_, Some(_)) => Err(Error::invalid(what(), "a network has one subnet of IPv4 and one of IPv6 at most")),
                (first, None) => Ok(first),
            }
        };
        let of_others = others.iter().flat_map(|other| std::iter::once(other.subnet).chain(other.subnet6));
        let (own, own6) = (of_family(false)?, of_family(true)?);
        for given in [own, own6].into_iter().flatten() {
            if let Some(other) = others
                .iter()
                .find(|other| other.subnet.overlaps(given) || other.subnet6.is_some_and(|subnet| subnet.overlaps(given)))
            {
                return Err(Error::Busy { what: format!("subnet {given}"), why: format!("network {} has it", other.name) });
            }
        }
        let subnet = match own {
            Some(subnet) => subnet,
            None => {
                let mut taken = link::routes(&netlink::Socket::route()?)?;
                taken.extend(of_others);
                subnet::choose(create.name == DEFAULT, &taken)?
            }
        };
        let subnet6 = match own6 {
            // Forty bits that nobody else has, as RFC 4193 asks for.
            None if create.ipv6 => {
                let hex = |range: std::ops::Range<usize>| u16::from_str_radix(&id[range], 16).unwrap_or(0);
                let first = std::net::Ipv6Addr::new(0xfd00 | hex(0..2), hex(2..6), hex(6..10), 0, 0, 0, 0, 0);
                Some(Subnet::around(first.into(), 64))
            }
            given => given,
        };
        if subnet6.is_some_and(|subnet6| subnet6.last() < subnet.last()) {
            return Err(Error::invalid(
                what(),
                format!("its IPv6 subnet has fewer addresses than {subnet}: give both, of a size"),
            ));
        }
        let gateway = match create.gateway {
            Some(gateway) if !usable(subnet, gateway) => {
                return Err(Error::invalid(what(), format!("gateway {gateway} is no address a host can have in {subnet}")));
            }
            Some(gateway) => gateway,
            None => v4(subnet.nth(1)),
        };
        let interface = match (create.driver, create.options.get("com.docker.network.bridge.name")) {
            (Driver::Bridge, Some(name)) => name.clone(),
            (Driver::Bridge, None) if create.name != DEFAULT => format!("br-{}", &id[..12]),
            (Driver::Bridge, None) => {
                let mark = self.mark();
                if mark.is_empty() { "longshore0".into() } else { format!("ls-{mark}") }
            }
            (Driver::Macvlan | Driver::Ipvlan, _) => create.options.get("parent").cloned().unwrap_or_default(),
        };
        if others.iter().any(|other| create.driver == Driver::Bridge && other.interface == interface) {
            return Err(Error::Busy { what: format!("interface {interface}"), why: "another network has it".into() });
        }
        let is_given = create.options.contains_key("com.docker.network.bridge.name") && !create.unprivileged;
        let borrowed = is_given && netlink::Socket::route()?.index(&interface).is_some();
        let network = Definition {
            id,
            name: create.name,
            created: rfc3339(SystemTime::now()),
            driver: create.driver,
            subnet,
            gateway,
            subnet6,
            internal: create.internal,
            labels: create.labels,
            options: create.options,
            interface,
            unprivileged: create.unprivileged,
            borrowed,
        };
        let attempted = || format!("write {}", self.path(&network.name).display());
        let text = serde_json::to_vec(&network).map_err(std::io::Error::from).attempt(attempted)?;
        match std::fs::create_dir(self.claims(&network.name)) {
            // What a command left that was killed between here and there.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            other => other.attempt(attempted)?,
        }
        files::write_atomically(&self.path(&network.name), &self.directory().join(".new"), &text)?;
        self.tell("create", &network);
        Ok(network)
    }

    /// Removes a network with its bridge. For an ordinary user's this process must be in the user namespace of the store's
    /// processes.
    ///
    /// # Errors
    ///
    /// [`Error::Busy`] while a container that runs is connected to it.
    pub fn remove(&self, network: &Definition) -> Result<()> {
        let what = || format!("network {}", network.name);
        if network.name == DEFAULT {
            return Err(Error::Busy { what: what(), why: "it is the default network, which stays".into() });
        }
        let _lock = self.lock()?;
        self.sweep(&network.name);
        match std::fs::remove_dir(self.claims(&network.name)) {
            Err(error) if error.kind() == ErrorKind::DirectoryNotEmpty => {
                let names: Vec<String> = self.endpoints(network).into_iter().map(|endpoint| endpoint.claim.name).collect();
                let why = format!("by {}; stop them, or `rbox network disconnect` them", names.join(", "));
                return Err(Error::Busy { what: what(), why });
            }
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error).attempt(|| format!("remove {}", what())),
            _ => {}
        }
        std::fs::remove_file(self.path(&network.name)).attempt(|| format!("remove {}", what()))?;
        self.tell("destroy", network);
        if network.unprivileged {
            let namespace = own::find(&self.store)?;
            return namespace.map_or(Ok(()), |own| own.apart(|| link::remove(&netlink::Socket::route()?, &network.interface)));
        }
        if network.is_routed() {
            if !network.borrowed {
                link::remove(&netlink::Socket::route()?, &network.interface)?;
            }
            if firewall::exists(&self.mark())? {
                firewall::rebuild(self)?;
            }
        }
        Ok(())
    }
}

impl Networks {
    /// Adds to the store's events what has happened to a network.
    fn tell(&self, action: &str, network: &Definition) {
        let own = [("name", network.name.as_str()), ("type", network.driver.name())];
        events::record(&self.store, &Event::now(events::NETWORK, action, &network.id, own));
    }
}

/// What of a request makes no sense.
fn check_options(create: &CreateNetwork) -> std::result::Result<(), String> {
    if let Some(option) = create.options.keys().find(|key| !OPTIONS.contains(&key.as_str())) {
        return Err(format!("option {option:?} is not known; there are {}", OPTIONS.join(", ")));
    }
    for (key, value) in &create.options {
        if key.ends_with("mtu") && !value.parse().is_ok_and(|mtu: u32| (68..=65_535).contains(&mtu)) {
            return Err(format!("{key} must be a number from 68 to 65535, not {value:?}"));
        }
        let is_name = key == "parent" || key.ends_with("bridge.name");
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
        if is_name && (value.is_empty() || value.len() > INTERFACE_LIMIT_BYTES || !value.chars().all(allowed)) {
            return Err(format!("{key} must be the name of an interface, not {value:?}"));
        }
    }
    match (create.driver, create.options.contains_key("parent")) {
        (Driver::Macvlan | Driver::Ipvlan, _) if create.unprivileged => {
            Err("only root can put interfaces on the wire of this machine's; an ordinary user's networks are bridges".into())
        }
        (Driver::Bridge, true) => Err("option parent is for macvlan and ipvlan".into()),
        (Driver::Macvlan | Driver::Ipvlan, false) => Err("it needs the interface it is to be on: -o parent=INTERFACE".into()),
        (Driver::Macvlan | Driver::Ipvlan, true) if create.subnets.is_empty() => {
            Err("it needs the addresses of the network its parent is in: --subnet, and --gateway".into())
        }
        _ => Ok(()),
    }
}

/// Whether a host can have this address.
pub(super) fn usable(subnet: Subnet, address: Ipv4Addr) -> bool {
    let address = IpAddr::V4(address);
    subnet.contains(address) && subnet.number(address) != 0 && subnet.number(address) != subnet.last()
}

pub(super) fn v4(address: IpAddr) -> Ipv4Addr {
    match address {
        IpAddr::V4(address) => address,
        IpAddr::V6(_) => Ipv4Addr::UNSPECIFIED,
    }
}
