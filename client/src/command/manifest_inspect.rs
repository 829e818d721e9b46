//! `rbox manifest inspect`

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use longshore_runtime::image::{Document, media_type};
use longshore_runtime::name::Reference;
use longshore_runtime::{Error, RawManifest};
use serde_json::{Value, json};

use super::print;
use crate::config::{Registries, image_name};
use crate::error::Result;
use crate::manifest_list::{ManifestLists, platform_of};
use crate::registry::Repository;
use crate::text::printable_lines;
use crate::text_json::indent;

/// Show a manifest or a list of them as it is at its registry, or a list that is made here
///
/// Nothing is pulled, and the local store is not asked.
#[derive(Debug, Args)]
pub(super) struct Inspect {
    /// With each image's own manifest, and what it runs on
    #[arg(short, long, conflicts_with = "raw")]
    verbose: bool,
    /// Byte for byte as it came
    #[arg(long)]
    raw: bool,
    /// As docker's; plain HTTP is spoken to this machine alone, or as registries.toml says
    #[arg(long, hide = true)]
    insecure: bool,
    /// Of a list that is made here, an image of it: LIST IMAGE
    #[arg(value_name = "[LIST] NAME", required = true, num_args = 1..=2)]
    names: Vec<String>,
}

impl Inspect {
    pub(super) fn execute(self, lists: &ManifestLists) -> Result<ExitCode> {
        let (list, typed) = match &self.names[..] {
            [list, image] => (Some(list.parse::<Reference>()?), image),
            names => (None, &names[0]),
        };
        let mut name = image_name(typed)?;
        let mut raw = None;
        if let Some(list) = list {
            let mut own = lists.get(&list)?;
            let hint = format!("`rbox manifest inspect {}` shows what it has", list.familiar());
            let missing = || Error::NotFound { what: format!("image {} in {}", name.familiar(), list.familiar()), hint };
            let digest = own.entry_mut(&name).ok_or_else(missing)?.digest.clone();
            name = name.with_digest(digest);
        } else if let Some(own) = lists.find(&typed.parse()?)? {
            // What is made here has docker's name, as what it will be pushed as.
            name = typed.parse()?;
            raw = Some(own.manifest(own.own_type()));
        }
        let repository = Repository::new(&Registries::load()?, &name)?;
        let raw = raw.map_or_else(|| repository.pinned_manifest(&name), Ok)?;
        if self.raw && !io::stdout().is_terminal() {
            print(|out| out.write_all(&raw.bytes))?;
        } else if self.verbose {
            let all = verbose(&repository, &name, &raw)?;
            let text = serde_json::to_string_pretty(&all).unwrap_or_else(|_| all.to_string());
            print(|out| writeln!(out, "{}", printable_lines(&text)))?;
        } else {
            let text = text(&raw)?;
            let text = match (self.raw, Document::parse(&raw.media_type, &raw.bytes)) {
                (true, _) => text.to_owned(),
                // docker's two ways.
                (_, Ok(Document::Index(_))) => indent(text, "   "),
                _ => indent(text, "\t"),
            };
            print(|out| writeln!(out, "{}", printable_lines(&text)))?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// The document, which is JSON.
fn text(raw: &RawManifest) -> Result<&str> {
    serde_json::from_slice::<&serde_json::value::RawValue>(&raw.bytes)
        .map(serde_json::value::RawValue::get)
        .map_err(|e| Error::invalid(format_args!("manifest {}", raw.digest), format_args!("it is no JSON: {e}")).into())
}

/// docker's document of an image, or of all of a list.
fn verbose(repository: &Repository, name: &Reference, raw: &RawManifest) -> Result<Value> {
    let Document::Index(index) = Document::parse(&raw.media_type, &raw.bytes)? else {
        return describe(repository, &name.to_string(), raw, None);
    };
    let entries: Value = serde_json::from_str(text(raw)?).unwrap_or_default();
    let images = index.manifests.iter().zip(entries["manifests"].as_array().into_iter().flatten());
    images
        .map(|(descriptor, entry)| {
            let image = repository.pinned_manifest(&name.with_digest(descriptor.digest.clone()))?;
            let reference = format!("{name}@{}", descriptor.digest);
            describe(repository, &reference, &image, entry.get("platform").cloned())
        })
        .collect::<Result<Vec<_>>>()
        .map(Value::Array)
}

fn describe(repository: &Repository, reference: &str, raw: &RawManifest, platform: Option<Value>) -> Result<Value> {
    let platform = match (platform, Document::parse(&raw.media_type, &raw.bytes)?) {
        (Some(platform), _) => platform,
        (None, Document::Image(image)) => json!(platform_of(repository, &image.config)?),
        (None, Document::Index(_)) => Value::Null,
    };
    let kind = if raw.media_type == media_type::DOCKER_MANIFEST { "SchemaV2Manifest" } else { "OCIManifest" };
    let document: Value = serde_json::from_str(text(raw)?).unwrap_or_default();
    Ok(json!({
        "Ref": reference,
        "Descriptor": {
            "mediaType": raw.media_type,
            "digest": raw.digest,
            "size": raw.bytes.len(),
            "platform": platform,
        },
        "Raw": STANDARD.encode(&raw.bytes),
        kind: document,
    }))
}
