//! `rbox ps --filter`

use longshore_runtime::Error;
use longshore_runtime::container::{Containers, HealthStatus, Phase};
use longshore_runtime::network::{Endpoint, Protocol, Published};

use super::inspect_network::networks;
use super::label::{Wanted, all_fit};
use super::port;
use super::ps::{ID_DIGITS, Row, mounted, state};
use crate::error::Result;

/// What can be asked for.
const KINDS: &str = "id, name, status, exited, ancestor, network, label, health, volume, publish, expose, before and since";

/// What containers are to be like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Filter {
    Id(String),
    Name(String),
    Status(String),
    Exited(u8),
    Ancestor(String),
    Network(String),
    Label(Wanted),
    Health(String),
    /// A volume's name, or a path on either side.
    Volume(String),
    /// On this machine, or in the container; docker takes both for one kind.
    Port {
        published: bool,
        first: u16,
        last: u16,
        protocol: Protocol,
    },
    /// Made before this one was: a container's name, then that time.
    Before(String),
    Since(String),
}

impl Filter {
    pub(super) fn parse(text: &str) -> std::result::Result<Self, String> {
        let (kind, value) = text.split_once('=').ok_or("KIND=VALUE")?;
        let value = value.to_owned();
        const STATES: [&str; 7] = ["created", "restarting", "running", "removing", "paused", "exited", "dead"];
        Ok(match kind {
            "id" => Self::Id(value),
            "name" => Self::Name(value),
            "status" if STATES.contains(&value.as_str()) => Self::Status(value),
            "status" => return Err(format!("a status is one of {}", STATES.join(", "))),
            "exited" => Self::Exited(value.parse().map_err(|_| "an exit code is a number from 0 to 255")?),
            "ancestor" => Self::Ancestor(value),
            "network" => Self::Network(value),
            "label" => Self::Label(Wanted::parse(&value, true)?),
            "health" if ["none", "starting", "healthy", "unhealthy"].contains(&value.as_str()) => Self::Health(value),
            "health" => return Err("a health is one of none, starting, healthy, unhealthy".into()),
            "volume" => Self::Volume(value),
            "publish" | "expose" => {
                let invalid = || "a port is 80, 80/udp or 8000-8010/tcp";
                let (ports, protocol) = value.split_once('/').unwrap_or((&value, "tcp"));
                let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
                let (first, protocol) = Published::parse_port(&format!("{first}/{protocol}")).map_err(|_| invalid())?;
                let last = last.parse().ok().filter(|last| *last >= first).ok_or_else(invalid)?;
                Self::Port { published: kind == "publish", first, last, protocol }
            }
            "before" => Self::Before(value),
            "since" => Self::Since(value),
            _ => return Err(format!("the kinds are {KINDS}")),
        })
    }

    /// With the times of the containers that it names.
    pub(super) fn resolved(self, containers: &Containers) -> Result<Self> {
        let created = |name: &str| Ok::<_, Error>(containers.get(name)?.config.created);
        Ok(match self {
            Self::Before(name) => Self::Before(created(&name)?),
            Self::Since(name) => Self::Since(created(&name)?),
            other => other,
        })
    }

    /// Whether it asks for those that do not run, too.
    pub(super) fn is_about_all(&self) -> bool {
        matches!(self, Self::Status(_) | Self::Exited(_))
    }

    pub(super) fn fits(&self, Row { container, paused, health }: &Row) -> bool {
        let config = &container.config;
        match self {
            Self::Label(wanted) => wanted.fits(|name| config.labels().get(name).copied()),
            Self::Health(wanted) => health.map_or("none", HealthStatus::name) == wanted,
            Self::Id(part) => config.id.contains(part.as_str()),
            Self::Name(part) => {
                let (from_start, part) = part.strip_prefix('^').map_or((false, part.as_str()), |part| (true, part));
                let (to_end, part) = part.strip_suffix('$').map_or((false, part), |part| (true, part));
                let part = part.strip_prefix('/').unwrap_or(part);
                match (from_start, to_end) {
                    (true, true) => config.name == part,
                    (true, false) => config.name.starts_with(part),
                    (false, true) => config.name.ends_with(part),
                    (false, false) => config.name.contains(part),
                }
            }
            Self::Volume(text) => config
                .options
                .volumes
                .iter()
                .any(|volume| volume.destination.as_os_str() == text.as_str() || mounted(volume) == *text),
            Self::Port { published: on_host, first, last, protocol } => {
                let fits = |port: u16, of: Protocol| (*first..=*last).contains(&port) && of == *protocol;
                let list = port::published(container);
                let exposed = if container.status.pid == 0 { Vec::new() } else { port::exposed(container) };
                match on_host {
                    true => list.iter().any(|one| fits(one.host_port, one.protocol)),
                    false => list.iter().any(|one| fits(one.port, one.protocol)) || exposed.iter().any(|own| fits(own.0, own.1)),
                }
            }
            Self::Before(time) => config.created < *time,
            Self::Since(time) => config.created > *time,
            Self::Network(network) => {
                let by_id = |endpoint: &Endpoint| network.len() >= ID_DIGITS && endpoint.network_id.starts_with(network.as_str());
                networks(&config.options).contains(network) || container.status.endpoints.iter().any(by_id)
            }
            Self::Status(status) => state(container, *paused) == status,
            Self::Exited(code) => container.status.phase == Phase::Exited && container.status.exit_code == *code,
            Self::Ancestor(image) => {
                let id = config.image_id.hex();
                config.image == *image
                    || config.image.strip_suffix(":latest") == Some(image)
                    || image.len() >= ID_DIGITS && id.starts_with(image.strip_prefix("sha256:").unwrap_or(image))
            }
        }
    }
}

/// Whether a container fits all that is asked of it.
pub(super) fn wanted(filters: &[Filter], row: &Row) -> bool {
    all_fit(filters, |one| matches!(one, Filter::Label(_)), |one| one.fits(row))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_read() {
        let port = |published, first, last, protocol| Filter::Port { published, first, last, protocol };
        for (text, filter) in [
            ("publish=80", port(true, 80, 80, Protocol::Tcp)),
            ("expose=8000-8010/udp", port(false, 8000, 8010, Protocol::Udp)),
            ("volume=data", Filter::Volume("data".into())),
            ("before=web", Filter::Before("web".into())),
        ] {
            assert_eq!(Filter::parse(text), Ok(filter), "{text}");
        }
        for bad in ["publish=", "publish=x", "expose=5-4", "expose=1-70000", "publish=1/icmp", "odd=1", "status", "exited=x"] {
            assert!(Filter::parse(bad).is_err(), "{bad}");
        }
    }
}
