//! `rbox referrers`, which is `rbox discover`

use std::collections::BTreeMap;
use std::io::Write;
use std::process::ExitCode;

use clap::Args;
use longshore_runtime::Error;
use longshore_runtime::name::{Digest, Platform, Reference};
use serde_json::{Value, json};

use super::format::{List, ListFormat};
use super::print;
use crate::config::{Registries, image_name};
use crate::error::Result;
use crate::registry::{Referrer, Repository};
use crate::text::{self, printable};

/// How deep what refers to a referrer is looked for.
const DEPTH_LIMIT: usize = 8;

/// Manifests a tree shows; each is a request.
const TREE_LIMIT: usize = 1000;

/// List what refers to an image at its registry: signatures, SBOMs, reports
#[derive(Debug, Args)]
pub(super) struct Referrers {
    #[command(flatten)]
    format: ListFormat,
    /// Only of this type
    #[arg(long, value_name = "MEDIA-TYPE")]
    artifact_type: Option<String>,
    /// What refers to the image for a platform, OS/ARCH[/VARIANT], not to the index of all
    #[arg(long)]
    platform: Option<Platform>,
    /// Show as a tree, with what refers to the referrers
    #[arg(long, conflicts_with = "format")]
    tree: bool,
    /// NAME[:TAG|@DIGEST]
    #[arg(value_name = "NAME", value_parser = image_name)]
    name: Reference,
}

/// What is printed, and the headings of it.
const LIST: List<'_> = List {
    headings: &[
        ("Annotations", "ANNOTATIONS"),
        ("ArtifactType", "ARTIFACT TYPE"),
        ("Digest", "DIGEST"),
        ("MediaType", "MEDIA TYPE"),
        ("Size", "SIZE"),
    ],
    default: "table {{.ArtifactType}}\t{{.Digest}}\t{{.Size}}",
};

impl Referrers {
    pub(super) fn execute(self) -> Result<ExitCode> {
        let repository = Repository::new(&Registries::load()?, &self.name)?.without_mirrors();
        let subject = match (&self.platform, self.name.digest()) {
            (Some(platform), _) => repository.for_platform(&self.name, platform)?.digest,
            (None, Some(digest)) => digest.clone(),
            (None, None) => repository.head(&self.name)?.digest,
        };
        if self.tree {
            let mut lines = vec![format!("{}@{subject}", self.name.familiar_name())];
            self.branches(&repository, &subject, "", DEPTH_LIMIT, &mut lines)?;
            print(|out| lines.iter().try_for_each(|line| writeln!(out, "{}", printable(line))))?;
            return Ok(ExitCode::SUCCESS);
        }
        self.format.print(&LIST, self.of(&repository, &subject)?.iter().map(row))
    }

    /// What refers to a digest. A registry may ignore what it is asked to leave out, so it is left out here.
    fn of(&self, repository: &Repository, subject: &Digest) -> Result<Vec<Referrer>> {
        let mut referrers = repository.referrers(subject)?;
        referrers.retain(|one| self.artifact_type.as_ref().is_none_or(|wanted| *wanted == one.artifact_type));
        Ok(referrers)
    }

    /// As oras draws it: by type, and below each digest what refers to it.
    fn branches(
        &self,
        repository: &Repository,
        subject: &Digest,
        before: &str,
        depth_left: usize,
        lines: &mut Vec<String>,
    ) -> Result<()> {
        let mut by_type: BTreeMap<String, Vec<Digest>> = BTreeMap::new();
        for referrer in self.of(repository, subject)? {
            by_type.entry(referrer.artifact_type).or_default().push(referrer.descriptor.digest);
        }
        let types = by_type.len();
        for (at, (artifact_type, digests)) in by_type.into_iter().enumerate() {
            let below =
                branch(lines, before, at + 1 == types, if artifact_type.is_empty() { "<unknown>" } else { &artifact_type });
            let last = digests.len() - 1;
            for (at, digest) in digests.iter().enumerate() {
                let below = branch(lines, &below, at == last, digest.as_str());
                if lines.len() > TREE_LIMIT {
                    let why = format!("more than {TREE_LIMIT} refer to it; list them without --tree");
                    return Err(Error::invalid(format_args!("tree of {}", self.name.familiar()), why).into());
                }
                if depth_left > 0 {
                    self.branches(repository, digest, &below, depth_left - 1, lines)?;
                }
            }
        }
        Ok(())
    }
}

/// Adds a line; gives what stands before those below it.
fn branch(lines: &mut Vec<String>, before: &str, is_last: bool, text: &str) -> String {
    lines.push(format!("{before}{} {text}", if is_last { "└──" } else { "├──" }));
    format!("{before}{}", if is_last { "    " } else { "│   " })
}

fn row(referrer: &Referrer) -> Value {
    json!({
        "Annotations": referrer.annotations,
        "ArtifactType": referrer.artifact_type,
        "Digest": referrer.descriptor.digest,
        "MediaType": referrer.descriptor.media_type,
        "Size": text::size(referrer.descriptor.size),
    })
}
