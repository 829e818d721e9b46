//! `rbox inspect`

use std::io::Write;
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use longshore_runtime::container::Containers;
use longshore_runtime::image::CONFIG_LIMIT_BYTES;
use longshore_runtime::name::Reference;
use longshore_runtime::store::Image;
use longshore_runtime::volume::Volumes;
use longshore_runtime::{Error, Store};
use serde_json::{Value, json};

use super::{Global, inspect_container, print, volume};
use crate::error::Result;

/// Show everything about containers, images and volumes, as JSON
#[derive(Debug, Args)]
pub(super) struct Inspect {
    /// Which of the three is meant; without it a container, or else an image, or else a volume
    #[arg(long = "type", value_enum, value_name = "KIND")]
    kind: Option<Kind>,
    /// Names or IDs
    #[arg(value_name = "NAME", required = true)]
    names: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Kind {
    Container,
    Image,
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
        let volumes = Volumes::of(&store);
        let describe = |name: &String| match self.kind {
            Some(Kind::Image) => describe(&store, &store.get(name)?),
            Some(Kind::Volume) => Ok(volume::describe(&volumes, &volumes.get(name)?)),
            Some(Kind::Container) => Ok(inspect_container::describe(&containers, &containers.get(name)?)),
            None => match containers.look_up(name)? {
                Some(container) => Ok(inspect_container::describe(&containers, &container)),
                None => match (store.get(name), volumes.get(name)) {
                    (Ok(image), _) => describe(&store, &image),
                    (Err(Error::NotFound { .. }), Ok(info)) => Ok(volume::describe(&volumes, &info)),
                    (Err(error), _) => Err(error.into()),
                },
            },
        };
        print_documents(&self.names, describe)
    }
}

/// Prints what `describe` makes of each name, all of it or nothing.
pub(super) fn print_documents(names: &[String], describe: impl FnMut(&String) -> Result<Value>) -> Result<ExitCode> {
    let described: Vec<Value> = names.iter().map(describe).collect::<Result<_>>()?;
    print(|out| {
        serde_json::to_writer_pretty(&mut *out, &described)?;
        writeln!(out)
    })?;
    Ok(ExitCode::SUCCESS)
}

/// docker's keys; `Config` is the image's own, whole.
fn describe(store: &Store, image: &Image) -> Result<Value> {
    let raw = longshore_runtime::files::read_bounded(&store.blob_path(image.id()), CONFIG_LIMIT_BYTES)?;
    let own: Value = serde_json::from_slice(&raw).unwrap_or_default();
    let names: Vec<String> = image.names.iter().filter(|name| name.digest().is_none()).map(Reference::familiar).collect();
    Ok(json!({
        "Id": image.id(),
        "RepoTags": names,
        "RepoDigests": image.repo_digests,
        "Created": image.config.created,
        "Author": image.config.author,
        "Architecture": image.config.platform.architecture,
        "Variant": image.config.platform.variant,
        "Os": image.config.platform.os,
        "Size": image.unpacked_bytes(store),
        "Config": own.get("config"),
        "RootFS": { "Type": "layers", "Layers": image.diff_ids() },
        "Descriptor": { "mediaType": image.raw.media_type, "digest": image.raw.digest, "size": image.raw.bytes.len() },
    }))
}
