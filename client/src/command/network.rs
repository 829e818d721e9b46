//! `rbox network`

use std::collections::BTreeMap;
use std::io::Write;
use std::net::Ipv4Addr;
use std::process::ExitCode;

use clap::{Args, Subcommand, ValueEnum};
use longshore_runtime::Error;
use longshore_runtime::container::Containers;
use longshore_runtime::name::Digest;
use longshore_runtime::network::{Attachment, CreateNetwork, DEFAULT, Definition, Driver, Networks, Subnet};
use serde_json::{Map, Value, json};

use super::format::{DocumentFormat, List, ListFormat};
use super::inspect_network::endpoint_id;
use super::label::{self, Wanted};
use super::ps::ID_DIGITS;
use super::{Global, Own, for_each, print};
use crate::error::Result;
use crate::stderr::say;
use crate::text::{self, printable};

/// Networks of containers
#[derive(Debug, Args)]
pub(super) struct Network {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Create(Box<Create>),
    #[command(visible_alias = "list")]
    Ls(Ls),
    Inspect(Inspect),
    #[command(visible_alias = "remove")]
    Rm(Rm),
    Connect(Connect),
    Disconnect(Disconnect),
    /// Remove all networks that no container uses or was made for
    Prune(super::prune::Prune),
}

/// Make a network
#[derive(Debug, Args)]
struct Create {
    /// How its containers are connected
    #[arg(short, long, value_enum, default_value_t)]
    driver: DriverFlag,
    /// Its addresses, 10.5.0.0/24; a second one for IPv6 [default: one of 10.89.0.0/16 and up that is free]
    #[arg(long, value_name = "ADDRESS/BITS")]
    subnet: Vec<Subnet>,
    /// The router's address [default: the first]
    #[arg(long, value_name = "ADDRESS")]
    gateway: Option<Ipv4Addr>,
    /// With IPv6 addresses
    #[arg(long)]
    ipv6: bool,
    /// It leads to nowhere but its own containers
    #[arg(long)]
    internal: bool,
    /// Say something of it
    #[arg(long = "label", value_name = "NAME[=VALUE]", value_parser = label::parse)]
    labels: Vec<(String, String)>,
    /// parent=INTERFACE for macvlan and ipvlan, mtu=BYTES, com.docker.network.bridge.name=NAME
    #[arg(short, long = "opt", value_name = "NAME=VALUE")]
    options: Vec<String>,
    /// What it is to be called
    name: String,
}

#[derive(Debug, Clone, Copy, Default, ValueEnum)]
enum DriverFlag {
    /// By a bridge of this machine, which is their router
    #[default]
    Bridge,
    /// Each by an interface of its own on the wire of one of this machine's
    Macvlan,
    /// The same, with that interface's hardware address
    Ipvlan,
}

/// List networks
#[derive(Debug, Args)]
struct Ls {
    /// Only those that fit: name=, id=, driver=, label=NAME[=VALUE], scope=, type=custom or builtin, or dangling=true for
    /// those without containers; of one kind any (but all labels), of several all
    #[arg(short, long, value_name = "KIND=VALUE", value_parser = Filter::parse)]
    filter: Vec<Filter>,
    #[command(flatten)]
    format: ListFormat,
    /// Do not shorten IDs
    #[arg(long)]
    no_trunc: bool,
    /// Print only IDs
    #[arg(short, long)]
    quiet: bool,
}

/// Remove networks no container uses
#[derive(Debug, Args)]
struct Rm {
    /// One that is not there is no error
    #[arg(short, long)]
    force: bool,
    #[command(flatten)]
    names: Names,
}

#[derive(Debug, Args)]
struct Names {
    /// Names or IDs
    #[arg(value_name = "NETWORK", required = true)]
    networks: Vec<String>,
}

/// Show everything about networks, as JSON
#[derive(Debug, Args)]
struct Inspect {
    #[command(flatten)]
    format: DocumentFormat,
    #[command(flatten)]
    names: Names,
}

/// Connect a container to a network, whether it runs or not
#[derive(Debug, Args)]
struct Connect {
    /// Its address there
    #[arg(long, value_name = "ADDRESS")]
    ip: Option<Ipv4Addr>,
    /// A further name by which the network's containers find it
    #[arg(long, value_name = "NAME")]
    alias: Vec<String>,
    /// The network
    network: String,
    /// The container
    container: String,
}

/// Take a container out of a network, whether it runs or not
#[derive(Debug, Args)]
struct Disconnect {
    /// As docker's; nothing needs it
    #[arg(short, long)]
    force: bool,
    /// The network
    network: String,
    /// The container
    container: String,
}

#[derive(Debug, Clone)]
enum Filter {
    Name(String),
    Id(String),
    Driver(String),
    Label(Wanted),
    Scope(String),
    /// One that somebody made.
    Custom(bool),
    /// Without containers, and not docker's own.
    Dangling(bool),
}

impl Filter {
    fn parse(text: &str) -> std::result::Result<Self, String> {
        let (kind, value) = text.split_once('=').ok_or("KIND=VALUE")?;
        let value = value.to_owned();
        Ok(match kind {
            "name" => Self::Name(value),
            "id" => Self::Id(value),
            "driver" => Self::Driver(value),
            "label" => Self::Label(Wanted::parse(&value, true)?),
            "scope" => Self::Scope(value),
            "type" => Self::Custom(match value.as_str() {
                "custom" => true,
                "builtin" => false,
                _ => return Err("a type is custom or builtin".into()),
            }),
            "dangling" => Self::Dangling(match value.as_str() {
                "true" | "1" => true,
                "false" | "0" => false,
                _ => return Err("dangling is true or false".into()),
            }),
            _ => return Err("the kinds are name, id, driver, label, scope, type and dangling".into()),
        })
    }

    fn fits(&self, row: &Row) -> bool {
        match self {
            Self::Name(part) => row.name.contains(part.as_str()),
            Self::Id(part) => row.id.contains(part.as_str()),
            Self::Driver(driver) => row.driver == *driver,
            Self::Label(wanted) => wanted.fits(|name| row.labels.get(name).map(String::as_str)),
            Self::Scope(scope) => scope == SCOPE,
            Self::Custom(custom) => row.is_custom() == *custom,
            Self::Dangling(dangling) => (row.is_custom() && !row.used) == *dangling,
        }
    }
}

/// docker's word for what is of this machine alone.
const SCOPE: &str = "local";

/// docker's fields and their headings.
const HEADINGS: [(&str, &str); 9] = [
    ("CreatedAt", "CREATED AT"),
    ("Driver", "DRIVER"),
    ("ID", "NETWORK ID"),
    ("IPv4", "IPV4"),
    ("IPv6", "IPV6"),
    ("Internal", "INTERNAL"),
    ("Labels", "LABELS"),
    ("Name", "NAME"),
    ("Scope", "SCOPE"),
];

/// A network as it is listed; two of them are none that were made.
struct Row {
    id: String,
    name: String,
    driver: &'static str,
    created: String,
    /// Those that nobody made have no addresses of their own.
    ipv4: bool,
    ipv6: bool,
    internal: bool,
    labels: BTreeMap<String, String>,
    /// A container that runs is in it.
    used: bool,
}

impl Row {
    fn is_custom(&self) -> bool {
        ![DEFAULT, "host", "none"].contains(&self.name.as_str())
    }
}

impl Network {
    pub(super) fn execute(self, global: &Global) -> Result<ExitCode> {
        match self.verb {
            Verb::Create(verb) => verb.execute(&Networks::new(&global.store()?)),
            Verb::Ls(verb) => verb.execute(&Networks::new(&global.store()?)),
            Verb::Inspect(Inspect { format, names }) => {
                let networks = Networks::new(&global.store()?);
                format.print(&names.networks, |name| Ok(describe(&networks, &networks.get(name)?)))
            }
            Verb::Rm(Rm { force, names }) => {
                let networks = Networks::new(&global.own_store()?.store);
                for_each(names.networks, |name| {
                    match networks.get(&name).and_then(|network| networks.remove(&network)) {
                        Err(Error::NotFound { .. }) if force => {}
                        other => other?,
                    }
                    Ok(name)
                })
            }
            Verb::Connect(verb) => verb.execute(global),
            Verb::Disconnect(Disconnect { network, container, .. }) => {
                let containers = Containers::open(&global.own_store()?.store)?;
                let network = containers.networks().get(&network)?;
                containers.disconnect(&containers.get(&container)?, &network)?;
                Ok(ExitCode::SUCCESS)
            }
            Verb::Prune(prune) => prune.networks(global),
        }
    }
}

impl Create {
    fn execute(self, networks: &Networks) -> Result<ExitCode> {
        let mut options = BTreeMap::new();
        for option in &self.options {
            let invalid = || Error::invalid(format!("option {option:?}"), "it must be NAME=VALUE");
            let (name, value) = option.split_once('=').ok_or_else(invalid)?;
            options.insert(name.to_owned(), value.to_owned());
        }
        let made = networks.create(CreateNetwork {
            name: self.name,
            driver: match self.driver {
                DriverFlag::Bridge => Driver::Bridge,
                DriverFlag::Macvlan => Driver::Macvlan,
                DriverFlag::Ipvlan => Driver::Ipvlan,
            },
            subnets: self.subnet,
            gateway: self.gateway,
            ipv6: self.ipv6,
            internal: self.internal,
            labels: self.labels.into_iter().collect(),
            options,
            unprivileged: !rustix::process::geteuid().is_root(),
        })?;
        print(|out| writeln!(out, "{}", made.id))?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Those that were made; what is damaged is said and hides nothing.
fn made(networks: &Networks) -> Result<Vec<Definition>> {
    let mut list = Vec::new();
    for network in networks.list()? {
        match network {
            Ok(network) => list.push(network),
            Err(e) => say(format_args!("rbox: skipped a damaged network: {}", printable(&e.to_string()))),
        }
    }
    Ok(list)
}

impl Ls {
    fn execute(self, networks: &Networks) -> Result<ExitCode> {
        let asked = self.filter.iter().any(|filter| matches!(filter, Filter::Dangling(_)));
        let mut rows: Vec<Row> = made(networks)?
            .into_iter()
            .map(|network| Row {
                used: asked && !networks.endpoints(&network).is_empty(),
                driver: network.driver.name(),
                ipv4: true,
                ipv6: network.subnet6.is_some(),
                id: network.id,
                name: network.name,
                created: network.created,
                internal: network.internal,
                labels: network.labels,
            })
            .collect();
        // What docker lists, too, though nobody can make or remove it.
        rows.extend([("host", "host"), ("none", "null")].map(|(name, driver)| Row {
            id: Digest::of(name.as_bytes()).hex().to_owned(),
            name: name.into(),
            driver,
            created: String::new(),
            ipv4: false,
            ipv6: false,
            internal: false,
            used: true,
            labels: BTreeMap::new(),
        }));
        rows.sort_by(|a, b| a.name.cmp(&b.name));
        rows.retain(|row| label::all_fit(&self.filter, |one| matches!(one, Filter::Label(_)), |one| one.fits(row)));
        let default = if self.quiet { "{{.ID}}" } else { "table {{.ID}}\t{{.Name}}\t{{.Driver}}\t{{.Scope}}" };
        self.format.print(&List { headings: &HEADINGS, default }, rows.iter().map(|row| self.row(row)))
    }

    /// docker's keys.
    fn row(&self, row: &Row) -> Value {
        json!({
            "CreatedAt": text::date(&row.created),
            "Driver": row.driver,
            "ID": if self.no_trunc { &row.id } else { &row.id[..ID_DIGITS] },
            "IPv4": row.ipv4.to_string(),
            "IPv6": row.ipv6.to_string(),
            "Internal": row.internal.to_string(),
            "Label": row.labels,
            "Labels": label::joined(&row.labels, ","),
            "Name": row.name,
            "Scope": SCOPE,
        })
    }
}

/// docker's keys.
pub(super) fn describe(networks: &Networks, network: &Definition) -> Value {
    let mut config = vec![json!({ "Subnet": network.subnet, "Gateway": network.gateway })];
    config.extend(network.subnet6.map(|subnet| json!({ "Subnet": subnet, "Gateway": network.gateway6() })));
    let containers: Map<String, Value> = networks
        .endpoints(network)
        .into_iter()
        .map(|endpoint| {
            let address6 = endpoint.address6.map_or_else(String::new, |(address, prefix)| format!("{address}/{prefix}"));
            let value = json!({
                "Name": endpoint.claim.name,
                "EndpointID": endpoint_id(&endpoint),
                "MacAddress": endpoint.mac_address,
                "IPv4Address": format!("{}/{}", endpoint.address, endpoint.prefix),
                "IPv6Address": address6,
            });
            (endpoint.claim.container, value)
        })
        .collect();
    json!({
        "Name": network.name,
        "Id": network.id,
        "Created": network.created,
        "Scope": "local",
        "Driver": network.driver.name(),
        "EnableIPv4": true,
        "EnableIPv6": network.subnet6.is_some(),
        "IPAM": { "Driver": "default", "Options": {}, "Config": config },
        "Internal": network.internal,
        "Attachable": false,
        "Ingress": false,
        "ConfigFrom": { "Network": "" },
        "ConfigOnly": false,
        "Containers": containers,
        "Options": network.options,
        "Labels": network.labels,
    })
}

impl Connect {
    fn execute(self, global: &Global) -> Result<ExitCode> {
        let Own { store, rootless, .. } = global.own_store()?;
        let containers = Containers::open(&store)?;
        let network = match self.network.as_str() {
            // It may not be there yet.
            DEFAULT if rootless.is_none() => DEFAULT.to_owned(),
            name => containers.networks().get(name)?.name,
        };
        let attachment = Attachment { network, aliases: self.alias, address: self.ip, mac: None };
        containers.connect(&containers.get(&self.container)?, &attachment)?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Removes the networks that fit and that no container has. Gives their names.
pub(super) fn remove_unused(containers: &Containers, wanted: impl Fn(&Definition) -> bool) -> Result<Vec<String>> {
    let networks = containers.networks();
    let kept: Vec<String> = containers
        .list()?
        .into_iter()
        .flatten()
        .flat_map(|container| container.config.options.networking.attachments)
        .map(|attachment| attachment.network)
        .collect();
    let unused = |network: &Definition| network.name != DEFAULT && !kept.contains(&network.name);
    let mut removed = Vec::new();
    for network in made(&networks)?.into_iter().filter(|network| unused(network) && wanted(network)) {
        match networks.remove(&network) {
            Ok(()) => removed.push(network.name),
            // A container that was made this moment has it.
            Err(Error::Busy { .. }) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(removed)
}
