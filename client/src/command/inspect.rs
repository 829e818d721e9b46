//! `rbox inspect`

use std::process::ExitCode;

use clap::{Args, ValueEnum};
use longshore_runtime::container::{Container, Containers};
use longshore_runtime::image::CONFIG_LIMIT_BYTES;
use longshore_runtime::name::Reference;
use longshore_runtime::network::Networks;
use longshore_runtime::store::Image;
use longshore_runtime::volume::Volumes;
use longshore_runtime::{Error, Store};
use serde_json::{Value, json};

use super::format::DocumentFormat;
use super::inspect_container::{DRIVER, NEVER};
use super::{Global, inspect_container, network, volume};
use crate::config::name_here;
use crate::error::Result;

/// Show everything about containers, images, networks and volumes, as JSON
#[derive(Debug, Args)]
pub(super) struct Inspect {
    #[command(flatten)]
    format: DocumentFormat,
    /// Which of the four is meant; without it a container, or else an image, or else a network, or else a volume
    #[arg(long = "type", value_enum, value_name = "KIND")]
    kind: Option<Kind>,
    /// With how much a container has written, and with its image
    #[arg(short, long)]
    size: bool,
    /// Names or IDs
    #[arg(value_name = "NAME", required = true)]
    names: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Kind {
    Container,
    Image,
    Network,
    Volume,
}

impl Inspect {
    /// Of that kind, whatever was said.
    pub(super) fn of(self, kind: Kind) -> Self {
        Self { kind: Some(kind), ..self }
    }

    pub(super) fn execute(self, global: &Global) -> Result<ExitCode> {
        let store = global.store()?;
        let containers = Containers::open(&store)?;
        let (networks, volumes) = (Networks::new(&store), Volumes::of(&store));
        let container = |container: &Container| {
            let mut described = inspect_container::describe(&containers, container);
            if self.size {
                let sizes = containers.sizes(container);
                described["SizeRw"] = sizes.written_bytes.into();
                described["SizeRootFs"] = sizes.all_bytes.into();
            }
            described
        };
        let of_kind = |kind: Kind, name: &str| match kind {
            Kind::Container => Ok(container(&containers.get(name)?)),
            Kind::Image => describe(&store, &store.get(&name_here(&store, name)?)?),
            Kind::Network => Ok(network::describe(&networks, &networks.get(name)?)),
            Kind::Volume => Ok(volume::describe(&volumes, &volumes.get(name)?)),
        };
        self.format.print(&self.names, |name| match self.kind {
            Some(kind) => of_kind(kind, name),
            None => match containers.look_up(name)? {
                Some(found) => Ok(container(&found)),
                None => match of_kind(Kind::Image, name) {
                    // What is said of the image if it is none of the others, either.
                    Err(error) if is_unknown(&error) => {
                        of_kind(Kind::Network, name).or_else(|_| of_kind(Kind::Volume, name)).map_err(|_| error)
                    }
                    found => found,
                },
            },
        })
    }
}

fn is_unknown(error: &crate::Error) -> bool {
    matches!(error, crate::Error::Runtime(Error::NotFound { .. }))
}

/// docker's keys; `Config` is the image's own, whole, with what docker adds to it.
fn describe(store: &Store, image: &Image) -> Result<Value> {
    let raw = longshore_runtime::files::read_bounded(&store.blob_path(image.id()), CONFIG_LIMIT_BYTES)?;
    let own: Value = serde_json::from_slice(&raw).unwrap_or_default();
    let names: Vec<String> = image.names.iter().filter(|name| name.digest().is_none()).map(Reference::familiar).collect();
    let mut config = empty_config();
    if let (Some(all), Some(own)) = (config.as_object_mut(), own["config"].as_object()) {
        all.extend(own.clone());
    }
    let layers: Vec<String> = image.diff_ids().iter().rev().map(|id| store.layer_path(id).display().to_string()).collect();
    let (upper, lower) = layers.split_first().map_or((String::new(), String::new()), |(top, rest)| (top.clone(), rest.join(":")));
    let bytes = image.unpacked_bytes(store);
    Ok(json!({
        "Id": image.id(),
        "RepoTags": names,
        "RepoDigests": image.repo_digests,
        "Parent": "",
        "Comment": own["comment"].as_str().unwrap_or_default(),
        "Created": image.config.created,
        "DockerVersion": own["docker_version"].as_str().unwrap_or_default(),
        "Author": image.config.author.as_deref().unwrap_or_default(),
        "Architecture": image.config.platform.architecture,
        "Variant": image.config.platform.variant,
        "Os": image.config.platform.os,
        "Size": bytes,
        "VirtualSize": bytes,
        "Config": config,
        "GraphDriver": { "Name": DRIVER, "Data": { "LowerDir": lower, "UpperDir": upper, "MergedDir": "", "WorkDir": "" } },
        "RootFS": { "Type": "layers", "Layers": image.diff_ids() },
        "Metadata": { "LastTagTime": NEVER },
        "Descriptor": { "mediaType": image.raw.media_type, "digest": image.raw.digest, "size": image.raw.bytes.len() },
    }))
}

/// What an image that says nothing has.
fn empty_config() -> Value {
    json!({
        "Hostname": "",
        "Domainname": "",
        "User": "",
        "AttachStdin": false,
        "AttachStdout": false,
        "AttachStderr": false,
        "Tty": false,
        "OpenStdin": false,
        "StdinOnce": false,
        "Env": null,
        "Cmd": null,
        "Image": "",
        "Volumes": null,
        "WorkingDir": "",
        "Entrypoint": null,
        "OnBuild": null,
        "Labels": null,
    })
}
