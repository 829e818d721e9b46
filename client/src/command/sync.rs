//! `rbox sync`

use std::io::Write;
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use longshore_runtime::name::{Platform, Tag};
use semver::VersionReq;
use serde_json::json;

use super::explicit_credentials::BothCredentials;
use super::print;
use crate::error::Result;
use crate::progress::{COPY, reporter};
use crate::stderr::say;
use crate::sync::{self, Address, Change, Filter, Glob, Pattern, Side};
use crate::text::printable;
use crate::transfer::Choice;

/// Bring a repository to where another one stands, tag by tag
///
/// A side is a repository (docker://HOST/NAME, or that alone) or an image layout (oci:DIR). A repository of one registry keeps the
/// last part of its name in the other, below what is given there: docker://quay.io/team/app to docker://mirror.example/quay
/// becomes mirror.example/quay/app. Prints `+ TAG DIGEST` for what is new, `~ TAG OLD -> NEW` for what moved, `& TAG DIGEST N` where N
/// things that refer to it are new, `- TAG OLD` for what went, and how many did not change. What fails of one tag stops no other; the exit code says it.
#[derive(Debug, Args)]
pub(super) struct Sync {
    /// Only tags like this: * for any characters, ? for one; several may be given
    #[arg(long, value_name = "GLOB")]
    include: Vec<Glob>,
    /// No tags like this
    #[arg(long, value_name = "GLOB")]
    exclude: Vec<Glob>,
    /// Only tags in which this matches
    #[arg(long, value_name = "REGEX")]
    regex: Option<Pattern>,
    /// Only tags that are versions of this range, as ^1.2 or ">=1.4, <2"; a v before them does not matter
    #[arg(long, value_name = "RANGE")]
    semver: Option<VersionReq>,
    /// All images of multi-platform ones, and the indexes that name them
    #[arg(short, long, visible_alias = "all-platforms", conflicts_with = "platform")]
    all: bool,
    /// Which image of multi-platform ones, OS/ARCH[/VARIANT] [default: this machine's]
    #[arg(long)]
    platform: Option<Platform>,
    /// Also what refers to the images: signatures, SBOMs
    #[arg(long)]
    referrers: bool,
    /// Take tags away that have gone at the source; of those that are meant
    #[arg(long)]
    delete: bool,
    /// Say what would change, and change nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    credentials: BothCredentials,
    /// Blobs moved at a time [default: 4, or 20 a long way off]
    #[arg(long, value_name = "N")]
    jobs: Option<usize>,
    /// Nothing of blobs
    #[arg(short, long)]
    quiet: bool,
    /// Lines for people, or a JSON object for each
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
    /// From where
    #[arg(value_name = "SOURCE")]
    source: Address,
    /// Where to
    #[arg(value_name = "DESTINATION")]
    destination: Address,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Format {
    Text,
    Json,
}

impl Sync {
    pub(super) fn execute(self) -> Result<ExitCode> {
        let from = Side::source(&self.source, self.credentials.source()?)?;
        let to = Side::destination(&self.destination, &from, self.credentials.destination()?)?;
        let platform = self.platform.unwrap_or_else(Platform::host);
        let filter = Filter { include: self.include, exclude: self.exclude, regex: self.regex, semver: self.semver };
        let mut code = ExitCode::SUCCESS;
        let format = self.format;
        let quiet = self.quiet || matches!(format, Format::Json);
        let job = sync::Job {
            from: &from,
            to: &to,
            filter: &filter,
            choice: &if self.all { Choice::All } else { Choice::Platform(platform) },
            referrers: self.referrers,
            delete: self.delete,
            dry_run: self.dry_run,
            jobs: self.jobs,
            progress: &|| reporter(COPY, quiet),
        };
        let unchanged = job.run(&mut |tag, change| {
            if let Change::Failed(e) = &change {
                say(format_args!("rbox: {tag}: {}", printable(&e.to_string())));
                code = ExitCode::FAILURE;
            }
            format.print(tag, &change)
        })?;
        print(|out| match format {
            Format::Text => writeln!(out, "= {unchanged} unchanged"),
            Format::Json => writeln!(out, "{}", json!({ "unchanged": unchanged })),
        })?;
        Ok(code)
    }
}

impl Format {
    fn print(self, tag: &Tag, change: &Change) -> Result<()> {
        let tag = tag.as_str();
        if let Self::Json = self {
            let line = match change {
                Change::Added { digest } => json!({ "change": "added", "tag": tag, "digest": digest }),
                Change::Moved { old, digest } => json!({ "change": "moved", "tag": tag, "old": old, "digest": digest }),
                Change::Referred { digest, referrers } => {
                    json!({ "change": "referrers", "tag": tag, "digest": digest, "referrers": referrers })
                }
                Change::Removed { old } => json!({ "change": "removed", "tag": tag, "old": old }),
                Change::Failed(e) => json!({ "change": "failed", "tag": tag, "error": e.to_string() }),
            };
            return print(|out| writeln!(out, "{line}"));
        }
        print(|out| match change {
            Change::Added { digest } => writeln!(out, "+ {tag} {digest}"),
            Change::Moved { old, digest } => writeln!(out, "~ {tag} {old} -> {digest}"),
            Change::Referred { digest, referrers } => writeln!(out, "& {tag} {digest} {referrers}"),
            Change::Removed { old: Some(old) } => writeln!(out, "- {tag} {old}"),
            Change::Removed { old: None } => writeln!(out, "- {tag}"),
            Change::Failed(_) => Ok(()),
        })
    }
}
