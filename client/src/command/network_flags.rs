//! The network of a container, as flags of `rrun`.

use std::net::{IpAddr, Ipv4Addr};

use clap::Args;
use longshore_runtime::container::Containers;
use longshore_runtime::network::{self, AddedHost, Attachment, DefaultNetwork, Networks, Published};
use longshore_runtime::spec::{Network, RunOptions};
use longshore_runtime::{Error, Store};

use crate::error::Result;
use crate::stderr::say;

/// Which network a container has if no flag says so.
const VARIABLE: &str = "LONGSHORE_NETWORK";

#[derive(Debug, Args)]
pub(super) struct NetworkFlags {
    /// none, host, container:NAME, bridge, or a network's name; several of the last [default: $LONGSHORE_NETWORK, else bridge, for an ordinary user pasta]
    #[arg(long = "network", alias = "net", value_name = "NETWORK")]
    networks: Vec<String>,
    /// Have a port of this machine lead to one of the container; also ranges of as many ports, 8000-8010:80-90
    #[arg(short, long, value_name = "[[ADDRESS:]PORT:]PORT[/udp]")]
    publish: Vec<String>,
    /// Publish each port the image names, at a free one of this machine
    #[arg(short = 'P', long)]
    publish_all: bool,
    /// A further name by which the network's containers find this one
    #[arg(long, alias = "net-alias", value_name = "NAME")]
    network_alias: Vec<String>,
    /// The container's address in its first network
    #[arg(long, value_name = "ADDRESS")]
    ip: Option<Ipv4Addr>,
    /// The hardware address of its first interface
    #[arg(long, value_name = "MAC")]
    mac_address: Option<String>,
    /// Ask this name server
    #[arg(long, value_name = "ADDRESS")]
    dns: Vec<IpAddr>,
    /// Look names up in this domain, too; . for none
    #[arg(long, value_name = "DOMAIN")]
    dns_search: Vec<String>,
    /// An option of resolv.conf
    #[arg(long, alias = "dns-opt", value_name = "OPTION")]
    dns_option: Vec<String>,
    /// A line for /etc/hosts; host-gateway is this machine's address
    #[arg(long, value_name = "NAME:ADDRESS")]
    add_host: Vec<AddedHost>,
}

impl NetworkFlags {
    pub(super) fn apply(mut self, options: &mut RunOptions, store: &Store) -> Result<()> {
        if self.networks.is_empty() {
            self.networks.extend(std::env::var(VARIABLE).ok().filter(|name| !name.is_empty()));
        }
        options.network = self.network(options.rootless.is_some(), store)?;
        let networking = &mut options.networking;
        if options.network == Network::Networks {
            networking.attachments =
                self.networks.iter().map(|name| Attachment { network: name.clone(), ..Attachment::default() }).collect();
        }
        let given = self.ip.is_some() || self.mac_address.is_some() || !self.network_alias.is_empty();
        match networking.attachments.first_mut() {
            Some(first) => {
                first.aliases = self.network_alias;
                first.address = self.ip;
                first.mac = self.mac_address;
            }
            None if given => {
                let why = "they are for a container with networks of its own, which is not what --network says here";
                return Err(Error::invalid("--ip, --mac-address or --network-alias", why).into());
            }
            None => {}
        }
        let shares = matches!(options.network, Network::Container(_));
        if shares && (self.publish_all || !self.publish.is_empty() || !self.dns.is_empty() || !self.add_host.is_empty()) {
            let why = "the container whose network this is has them: give them to that one";
            return Err(Error::invalid("--publish, --dns or --add-host with --network container:NAME", why).into());
        }
        for text in &self.publish {
            networking.published.extend(Published::parse(text)?);
        }
        networking.publish_all = self.publish_all;
        networking.dns = self.dns;
        networking.dns_search = self.dns_search;
        networking.dns_options = self.dns_option;
        networking.added_hosts = self.add_host;
        Ok(networking.check()?)
    }

    /// What the words say; `self.networks` are names of networks afterwards, if that is what it says.
    fn network(&mut self, rootless: bool, store: &Store) -> Result<Network> {
        let [first, rest @ ..] = &self.networks[..] else { return self.default(rootless) };
        let alone = match first.as_str() {
            "none" => Some(Network::None),
            "host" => Some(Network::Host),
            "bridge" | "default" | "pasta" if rootless => Some(Network::User),
            other => match other.strip_prefix("container:") {
                Some(name) => Some(Network::Container(Containers::open(store)?.get(name)?.config.id)),
                None => None,
            },
        };
        if let Some(network) = alone {
            if !rest.is_empty() {
                return Err(Error::invalid(format!("--network {first}"), "a container with it has no other network").into());
            }
            return Ok(network);
        }
        for name in &mut self.networks {
            match name.as_str() {
                "bridge" | "default" | "pasta" if rootless => {
                    let why = "an ordinary user's container has it alone, or networks with names, which lead outside, too";
                    return Err(Error::invalid(format!("--network {name}"), why).into());
                }
                "bridge" | "default" => network::DEFAULT.clone_into(name),
                // By any part of its ID, too.
                other => *name = Networks::new(store).get(other)?.name,
            }
        }
        Ok(Network::Networks)
    }

    fn default(&mut self, rootless: bool) -> Result<Network> {
        let package = match network::default_network(rootless) {
            DefaultNetwork::User => return Ok(Network::User),
            DefaultNetwork::Bridge => {
                self.networks.push(network::DEFAULT.into());
                return Ok(Network::Networks);
            }
            DefaultNetwork::None(package) => package,
        };
        if self.publish_all || !self.publish.is_empty() {
            let hint = "published ports need it; `apt install` it".into();
            return Err(Error::NotFound { what: format!("package {package}"), hint }.into());
        }
        say(format_args!(
            "warning: the container has no network: that needs the package {package} (apt install {package}); with --network \
             none nothing is said"
        ));
        Ok(Network::None)
    }
}
