//! A container's network as `rbox inspect` shows it.

use std::net::IpAddr;

use longshore_runtime::container::Container;
use longshore_runtime::network::{Endpoint, Published};
use longshore_runtime::spec::{Network, RunOptions};
use serde_json::{Map, Value, json};

use super::port::{exposed, published};

/// docker's `NetworkMode`, and what `ps` shows.
pub(super) fn mode(options: &RunOptions) -> String {
    match &options.network {
        Network::None => "none".into(),
        Network::Host => "host".into(),
        Network::Container(id) => format!("container:{id}"),
        Network::User => "pasta".into(),
        Network::Networks => options.networking.attachments.first().map_or_else(String::new, |one| one.network.clone()),
    }
}

/// The names of all networks of a container.
pub(super) fn networks(options: &RunOptions) -> Vec<String> {
    match options.network {
        Network::Networks => options.networking.attachments.iter().map(|one| one.network.clone()).collect(),
        _ => vec![mode(options)],
    }
}

/// What of `HostConfig` is about networks.
pub(super) fn host_config(options: &RunOptions) -> Map<String, Value> {
    let networking = &options.networking;
    let hosts: Vec<String> = networking
        .added_hosts
        .iter()
        .map(|host| format!("{}:{}", host.name, host.address.map_or("host-gateway".into(), |address| address.to_string())))
        .collect();
    let value = json!({
        "NetworkMode": mode(options),
        "PortBindings": bindings(&networking.published),
        "PublishAllPorts": networking.publish_all,
        "Dns": networking.dns,
        "DnsOptions": networking.dns_options,
        "DnsSearch": networking.dns_search,
        "ExtraHosts": hosts,
    });
    value.as_object().cloned().unwrap_or_default()
}

/// `NetworkSettings`
pub(super) fn settings(container: &Container) -> Value {
    let endpoints = &container.status.endpoints;
    let mut ports = Map::new();
    if container.status.pid != 0 {
        ports.extend(exposed(container).into_iter().map(|(port, protocol)| (format!("{port}/{protocol}"), Value::Null)));
    }
    ports.extend(bindings(&published(container)));
    // docker shows those of the default network here.
    let first = endpoints.first().map_or_else(|| address_keys(None), |endpoint| address_keys(Some(endpoint)));
    let networks: Map<String, Value> = match container.config.options.network {
        Network::Networks => container
            .config
            .options
            .networking
            .attachments
            .iter()
            .map(|one| {
                let endpoint = endpoints.iter().find(|endpoint| endpoint.network == one.network);
                let mut value = address_keys(endpoint);
                value.insert("IPAMConfig".into(), one.address.map_or(Value::Null, |address| json!({ "IPv4Address": address })));
                value.insert("Links".into(), Value::Null);
                value.insert("Aliases".into(), json!(one.aliases));
                value.insert("DriverOpts".into(), Value::Null);
                value.insert("NetworkID".into(), json!(endpoint.map_or("", |endpoint| &endpoint.network_id)));
                value.insert("EndpointID".into(), json!(endpoint.map_or(String::new(), endpoint_id)));
                let own = [container.config.name.clone()].into_iter().chain(one.aliases.iter().cloned());
                let names: Vec<String> = own.chain([container.config.id[..12].to_owned()]).collect();
                value.insert("DNSNames".into(), json!(names));
                (one.network.clone(), value.into())
            })
            .collect(),
        Network::Container(_) => Map::new(),
        // A network of which there is nothing to be said.
        _ => Map::from_iter([(mode(&container.config.options), unnumbered())]),
    };
    let mut value = first;
    value.extend(no_longer_used());
    value.insert("EndpointID".into(), json!(endpoints.first().map_or(String::new(), endpoint_id)));
    value.insert("SandboxID".into(), json!(sandbox_id(container)));
    value.insert(
        "SandboxKey".into(),
        json!(match container.status.pid {
            0 => String::new(),
            pid => format!("/proc/{pid}/ns/net"),
        }),
    );
    value.insert("Ports".into(), ports.into());
    value.insert("Networks".into(), networks.into());
    value.into()
}

/// What docker makes up; here it is what there is to tell them apart by.
pub(super) fn endpoint_id(endpoint: &Endpoint) -> String {
    let both = format!("{} {}", endpoint.network_id, endpoint.claim.container);
    longshore_runtime::name::Digest::of(both.as_bytes()).hex().to_owned()
}

/// As well made up: a network namespace has no name.
fn sandbox_id(container: &Container) -> String {
    longshore_runtime::name::Digest::of(format!("sandbox {}", container.config.id).as_bytes()).hex().to_owned()
}

/// What docker shows since it was first written, and has no use for.
fn no_longer_used() -> Map<String, Value> {
    let value = json!({
        "Bridge": "",
        "HairpinMode": false,
        "LinkLocalIPv6Address": "",
        "LinkLocalIPv6PrefixLen": 0,
        "SecondaryIPAddresses": null,
        "SecondaryIPv6Addresses": null,
    });
    value.as_object().cloned().unwrap_or_default()
}

/// A connection to what gives no addresses.
fn unnumbered() -> Value {
    let mut value = address_keys(None);
    for name in ["IPAMConfig", "Links", "Aliases", "DriverOpts", "DNSNames"] {
        value.insert(name.into(), Value::Null);
    }
    value.insert("NetworkID".into(), json!(""));
    value.insert("EndpointID".into(), json!(""));
    value.into()
}

fn address_keys(endpoint: Option<&Endpoint>) -> Map<String, Value> {
    let text = |address: Option<IpAddr>| address.map_or_else(String::new, |address| address.to_string());
    let address6 = endpoint.and_then(|endpoint| endpoint.address6);
    let value = json!({
        "IPAddress": text(endpoint.map(|endpoint| endpoint.address.into())),
        "IPPrefixLen": endpoint.map_or(0, |endpoint| endpoint.prefix),
        "Gateway": text(endpoint.map(|endpoint| endpoint.gateway.into())),
        "MacAddress": endpoint.map_or("", |endpoint| &endpoint.mac_address),
        "GlobalIPv6Address": text(address6.map(|(address, _)| address)),
        "GlobalIPv6PrefixLen": address6.map_or(0, |(_, prefix)| prefix),
        "IPv6Gateway": text(endpoint.and_then(|endpoint| endpoint.gateway6)),
    });
    value.as_object().cloned().unwrap_or_default()
}

/// docker's `{"80/tcp": [{"HostIp": ..., "HostPort": ...}]}`
fn bindings(list: &[Published]) -> Map<String, Value> {
    let mut map = Map::new();
    for one in list {
        let host = one.host.map_or_else(String::new, |host| host.to_string());
        let port = if one.host_port == 0 { String::new() } else { one.host_port.to_string() };
        let entry = map.entry(format!("{}/{}", one.port, one.protocol)).or_insert_with(|| json!([]));
        if let Some(list) = entry.as_array_mut() {
            list.push(json!({ "HostIp": host, "HostPort": port }));
        } else {
            *entry = json!([{ "HostIp": host, "HostPort": port }]);
        }
    }
    map
}
