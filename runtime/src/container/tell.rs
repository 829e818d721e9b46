//! What a container adds to the store's events: what happens to it, and to networks and volumes because of it.

use super::record::Config;
use super::store::Containers;
use crate::events::{CONTAINER, Event, NETWORK, VOLUME, record};
use crate::network::Endpoint;

impl Containers {
    /// What has happened to a container.
    pub(super) fn tell(&self, action: &str, config: &Config, more: &[(&str, &str)]) {
        record(self.store.root(), &event(action, config, more));
    }

    /// A container has its networks and volumes, and is about to run.
    pub(super) fn tell_begin(&self, config: &Config, endpoints: &[Endpoint]) {
        self.tell_network("connect", config, endpoints);
        for (volume, name) in config.options.volumes.iter().filter_map(|volume| Some((volume, volume.volume()?))) {
            let destination = volume.destination.to_string_lossy();
            let writable = if volume.read_only { "false" } else { "true" };
            let own =
                [("container", config.id.as_str()), ("destination", &destination), ("driver", "local"), ("read/write", writable)];
            record(self.store.root(), &Event::now(VOLUME, "mount", name, own.into_iter().chain([("propagation", "")])));
        }
    }

    /// A container has ended, and has given back what it had.
    pub(super) fn tell_end(&self, config: &Config, endpoints: &[Endpoint], code: u8) {
        self.tell("die", config, &[("exitCode", &code.to_string())]);
        self.tell_network("disconnect", config, endpoints);
        for name in config.options.volumes.iter().filter_map(|volume| volume.volume()) {
            let own = [("container", config.id.as_str()), ("driver", "local")];
            record(self.store.root(), &Event::now(VOLUME, "unmount", name, own));
        }
    }

    /// A container is in networks now, or is not any more.
    pub(super) fn tell_network(&self, action: &str, config: &Config, endpoints: &[Endpoint]) {
        for endpoint in endpoints {
            let network = self.networks().get(&endpoint.network);
            let driver = network.map_or("", |network| network.driver.name());
            let own = [("container", config.id.as_str()), ("name", &endpoint.network), ("type", driver)];
            record(self.store.root(), &Event::now(NETWORK, action, &endpoint.network_id, own));
        }
    }
}

/// docker's attributes: its labels, its image, its name.
pub(super) fn event(action: &str, config: &Config, more: &[(&str, &str)]) -> Event {
    let own = [("image", config.image.as_str()), ("name", config.name.as_str())];
    Event::now(CONTAINER, action, &config.id, config.labels().into_iter().chain(own).chain(more.iter().copied()))
}
