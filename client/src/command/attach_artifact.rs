//! `rbox attach --artifact-type`: an artifact to an image at its registry

use std::io::Write;
use std::process::ExitCode;

use clap::Args;
use longshore_runtime::name::Reference;

use super::print;
use crate::artifact::{self, Artifact, Attachment, is_media_type};
use crate::config::Registries;
use crate::error::Result;
use crate::registry::Repository;
use crate::stderr::say;

/// What is attached to an image; without `artifact_type` nothing is.
#[derive(Debug, Args)]
pub(super) struct AttachArtifact {
    /// Attach files to an image at its registry, as an artifact of this type
    #[arg(long, value_name = "MEDIA-TYPE", value_parser = parse_type, help_heading = "Artifacts")]
    artifact_type: Option<String>,
    /// What is said of the artifact; several
    #[arg(long, value_name = "NAME=VALUE", value_parser = parse_annotation, requires = "artifact_type", help_heading = "Artifacts")]
    annotation: Vec<(String, String)>,
    /// The artifact's files; their type is application/octet-stream if it is not said
    #[arg(value_name = "FILE[:MEDIA-TYPE]", requires = "artifact_type", help_heading = "Artifacts")]
    files: Vec<Attachment>,
}

fn parse_type(text: &str) -> std::result::Result<String, String> {
    if is_media_type(text) { Ok(text.into()) } else { Err("a media type as application/spdx+json".into()) }
}

fn parse_annotation(text: &str) -> std::result::Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.into(), value.into())),
        _ => Err("NAME=VALUE".into()),
    }
}

impl AttachArtifact {
    /// Attaches to the image of that name; `None` if nothing is to be.
    pub(super) fn execute(&self, image: &str) -> Result<Option<ExitCode>> {
        let Some(artifact_type) = &self.artifact_type else { return Ok(None) };
        let image: Reference = image.parse()?;
        let artifact = Artifact { artifact_type, files: &self.files, annotations: &self.annotation };
        let attached = artifact::attach(&Repository::new(&Registries::load()?, &image)?.without_mirrors(), &image, &artifact)?;
        if let Some(tag) = &attached.listed_under {
            say(format_args!("rbox: the registry lists no referrers; this one is listed under the tag {tag}"));
        }
        print(|out| {
            writeln!(out, "Attached to {}@{}", image.familiar_name(), attached.subject)?;
            writeln!(out, "Digest: {}", attached.digest)
        })?;
        Ok(Some(ExitCode::SUCCESS))
    }
}
