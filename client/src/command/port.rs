//! `rbox port`, and published ports as others show them

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::ExitCode;

use clap::Args;
use longshore_runtime::Error;
use longshore_runtime::container::Container;
use longshore_runtime::network::{Protocol, Published};

use super::{Global, print};
use crate::error::Result;

/// Show which ports of this machine lead to a container
#[derive(Debug, Args)]
pub(super) struct Port {
    /// Its name or ID
    container: String,
    /// Only those that lead to this one
    #[arg(value_name = "PORT[/PROTOCOL]")]
    port: Option<String>,
}

impl Port {
    pub(super) fn execute(self, global: &Global) -> Result<ExitCode> {
        let container = global.containers()?.get(&self.container)?;
        let wanted = self.port.as_deref().map(Published::parse_port).transpose()?;
        let mut published = published(&container);
        if let Some((port, protocol)) = wanted {
            published.retain(|one| (one.port, one.protocol) == (port, protocol));
            if published.is_empty() {
                let what = format!("public port {port}/{protocol} of container {}", container.config.name);
                return Err(Error::NotFound { what, hint: "`rbox port` without a port shows those there are".into() }.into());
            }
        }
        print(|out| {
            published.iter().try_for_each(|one| match wanted {
                Some(_) => writeln!(out, "{}", address(one)),
                None => writeln!(out, "{}/{} -> {}", one.port, one.protocol, address(one)),
            })
        })?;
        Ok(ExitCode::SUCCESS)
    }
}

/// The ports of a container that runs, in order; those of all addresses once for each family it has.
pub(super) fn published(container: &Container) -> Vec<Published> {
    let status = &container.status;
    let has_v6 = status.endpoints.first().is_some_and(|endpoint| endpoint.address6.is_some());
    let mut list = Vec::new();
    for one in &status.published {
        list.push(Published { host: Some(one.host.unwrap_or(Ipv4Addr::UNSPECIFIED.into())), ..*one });
        if has_v6 && one.host.is_none() {
            list.push(Published { host: Some(Ipv6Addr::UNSPECIFIED.into()), ..*one });
        }
    }
    list.sort();
    list
}

/// `0.0.0.0:8080`
fn address(one: &Published) -> SocketAddr {
    SocketAddr::new(one.host.unwrap_or(Ipv4Addr::UNSPECIFIED.into()), one.host_port)
}

/// docker's column: `0.0.0.0:8080->80/tcp, 443/tcp`, with neighbours as ranges.
pub(super) fn column(container: &Container) -> String {
    let published = published(container);
    let mut ranges: Vec<(Published, u16)> = Vec::new();
    let mut sorted = published.clone();
    sorted.sort_by_key(|one| (one.protocol, one.host, one.port));
    for one in sorted {
        match ranges.last_mut() {
            Some((first, more))
                if (first.protocol, first.host) == (one.protocol, one.host)
                    && first.port.checked_add(*more + 1) == Some(one.port)
                    && first.host_port.checked_add(*more + 1) == Some(one.host_port) =>
            {
                *more += 1;
            }
            _ => ranges.push((one, 0)),
        }
    }
    let range = |first: u16, more: u16| if more == 0 { first.to_string() } else { format!("{first}-{}", first + more) };
    let host = |host: Option<IpAddr>| match host {
        Some(IpAddr::V6(address)) => format!("[{address}]"),
        other => other.unwrap_or(Ipv4Addr::UNSPECIFIED.into()).to_string(),
    };
    let mut words: Vec<String> = ranges
        .iter()
        .map(|(one, more)| {
            format!("{}:{}->{}/{}", host(one.host), range(one.host_port, *more), range(one.port, *more), one.protocol)
        })
        .collect();
    if container.status.pid != 0 {
        let only_exposed =
            exposed(container).into_iter().filter(|own| !published.iter().any(|one| (one.port, one.protocol) == *own));
        words.extend(only_exposed.map(|(port, protocol)| format!("{port}/{protocol}")));
    }
    words.join(", ")
}

/// The ports the image names; what is none is left out.
pub(super) fn exposed(container: &Container) -> Vec<(u16, Protocol)> {
    let mut list: Vec<_> =
        container.config.image_config.exposed_ports.keys().filter_map(|text| Published::parse_port(text).ok()).collect();
    list.sort_unstable();
    list
}
