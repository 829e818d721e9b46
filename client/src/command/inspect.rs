//! `rbox inspect`

use std::io::Write;
use std::process::ExitCode;

use clap::Args;
use longshore_runtime::Store;
use longshore_runtime::image::CONFIG_LIMIT_BYTES;
use longshore_runtime::name::Reference;
use longshore_runtime::store::Image;
use serde_json::{Value, json};

use super::{Global, print};
use crate::error::Result;

/// Show everything about images, as JSON
#[derive(Debug, Args)]
pub(super) struct Inspect {
    /// Names or image IDs
    #[arg(value_name = "IMAGE", required = true)]
    images: Vec<String>,
}

impl Inspect {
    pub(super) fn execute(self, global: &Global) -> Result<ExitCode> {
        let store = global.store()?;
        let described: Vec<Value> = self.images.iter().map(|name| describe(&store, &store.get(name)?)).collect::<Result<_>>()?;
        print(|out| {
            serde_json::to_writer_pretty(&mut *out, &described)?;
            writeln!(out)
        })?;
        Ok(ExitCode::SUCCESS)
    }
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
