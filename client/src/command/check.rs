//! `rbox system check`

use std::collections::{BTreeMap, BTreeSet};
use std::io::{IsTerminal, Write};
use std::ops::Range;
use std::process::ExitCode;

use clap::Args;
use longshore_runtime::container::Containers;
use longshore_runtime::image::Descriptor;
use longshore_runtime::name::{Digest, Platform, Reference};
use longshore_runtime::parallel::Cancel;
use longshore_runtime::pull::{self, Options};
use longshore_runtime::source::BlobReader;
use longshore_runtime::store::{Problem, Remedy, Thoroughness};
use longshore_runtime::{RawManifest, Source, Store, unpack};

use super::{Global, Own, print};
use crate::config::Registries;
use crate::error::Result;
use crate::progress::{PULL, reporter};
use crate::registry::Repository;
use crate::stderr::{say, say_part};
use crate::text::{self, printable};

/// Look whether images and layers are whole, and for what nothing needs
///
/// Every blob is read and hashed, and every layer compared with what it is unpacked from. The exit code is 1 if
/// anything is wrong, or could not be repaired.
#[derive(Debug, Args)]
pub(super) struct Check {
    /// Look only whether everything is there and as long as it should be
    #[arg(long)]
    quick: bool,
    /// Fetch damaged blobs again, unpack damaged layers again, remove what nothing needs
    #[arg(long)]
    repair: bool,
}

impl Check {
    pub(super) fn execute(self, global: &Global) -> Result<ExitCode> {
        let Own { store, unpack, .. } = global.own_store()?;
        let how = Thoroughness { whole: !self.quick, unpack: &unpack };
        let shows = std::io::stderr().is_terminal();
        let problems = store.check(how, &mut |what| {
            if shows {
                say_part(format_args!("\r\x1b[Kchecking {what}"));
            }
        })?;
        if shows {
            say_part("\r\x1b[K");
        }
        for problem in &problems {
            print(|out| writeln!(out, "{}", printable(&line(problem))))?;
        }
        let left = if self.repair { repair(&store, &unpack, &problems)? } else { problems.len() };
        print(|out| match (problems.len(), left) {
            (0, _) => writeln!(out, "Everything is whole."),
            (found, 0) => writeln!(out, "Repaired: {found}"),
            (found, left) if self.repair => writeln!(out, "Repaired: {}, not repaired: {left}", found - left),
            (found, _) => writeln!(out, "Found: {found}. `rbox system check --repair` repairs what can be"),
        })?;
        Ok(if left == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

fn line(Problem { what, why, remedy }: &Problem) -> String {
    match remedy {
        Remedy::Discard(leftover) => format!("{what}: {why} ({})", text::size(leftover.bytes)),
        Remedy::Nothing => format!("{what}: {why}"),
        Remedy::Fetch { images, .. } | Remedy::Unpack { images, .. } => {
            let names: BTreeSet<String> = images.iter().map(|(name, digest)| called(name.as_ref(), digest)).collect();
            format!("{what}: {why} (image {})", names.into_iter().collect::<Vec<_>>().join(", "))
        }
    }
}

fn called(name: Option<&Reference>, digest: &Digest) -> String {
    name.map_or_else(|| digest.to_string(), Reference::familiar)
}

/// Gives how many are left.
fn repair(store: &Store, unpack: &unpack::Options, problems: &[Problem]) -> Result<usize> {
    let containers = Containers::open(store)?;
    // What was killed is put right first.
    drop(containers.list()?);
    let mut refused = BTreeSet::new();
    let mut images: BTreeMap<&Digest, Option<&Reference>> = BTreeMap::new();
    for (at, Problem { remedy, .. }) in problems.iter().enumerate() {
        if let Err(error) = store.take_out(remedy, &|id| containers.rest(id)) {
            say(format_args!("rbox: {}", printable(&error.to_string())));
            refused.insert(at);
            continue;
        }
        if let Remedy::Fetch { images: needing, .. } | Remedy::Unpack { images: needing, .. } = remedy {
            for (name, digest) in needing {
                let known = images.entry(digest).or_default();
                *known = known.or(name.as_ref());
            }
        }
    }
    let registries = Registries::load()?;
    let mut failed = BTreeSet::new();
    for (digest, name) in images {
        let image = called(name, digest);
        if let Err(error) = bring(store, unpack, &registries, name, digest) {
            say(format_args!("rbox: image {}: {}", printable(&image), printable(&error.to_string())));
            failed.insert(digest);
        }
    }
    let is_left = |(at, problem): &(usize, &Problem)| match &problem.remedy {
        Remedy::Fetch { images, .. } | Remedy::Unpack { images, .. } => {
            refused.contains(at) || images.iter().any(|(_, digest)| failed.contains(digest))
        }
        Remedy::Discard(_) => refused.contains(at),
        Remedy::Nothing => true,
    };
    Ok(problems.iter().enumerate().filter(is_left).count())
}

/// Pulls what an image misses. Its digest says that it is the one that was accepted before, whoever has it.
fn bring(
    store: &Store,
    unpack: &unpack::Options,
    registries: &Registries,
    name: Option<&Reference>,
    digest: &Digest,
) -> Result<()> {
    let approve = |_: &Digest, _: &Digest| Ok(());
    let options = Options {
        platform: Platform::host(),
        jobs: None,
        unpack: unpack.clone(),
        form: None,
        named: false,
        action: "pull",
        approve: &approve,
    };
    let reference = match name {
        Some(name) => name.with_digest(digest.clone()),
        None => "localhost/nameless".parse::<Reference>()?.with_digest(digest.clone()),
    };
    // What needs no registry is repaired without one.
    let here = pull::pull(store, &Nowhere, &reference, &options, &*reporter(PULL, true));
    if let (Err(_), Some(_)) = (&here, name) {
        pull::pull(store, &Repository::new(registries, &reference)?, &reference, &options, &*reporter(PULL, false))?;
        return Ok(());
    }
    here?;
    Ok(())
}

/// Where nothing can be had.
struct Nowhere;

impl Source for Nowhere {
    fn manifest(&self, reference: &Reference) -> longshore_runtime::Result<RawManifest> {
        Err(nothing(reference))
    }

    fn blob<'a>(
        &'a self,
        reference: &Reference,
        _: &Descriptor,
        _: u64,
        _: &'a Cancel<'a>,
    ) -> longshore_runtime::Result<BlobReader<'a>> {
        Err(nothing(reference))
    }

    fn blob_range<'a>(
        &'a self,
        reference: &Reference,
        _: &Descriptor,
        _: Range<u64>,
        _: &'a Cancel<'a>,
    ) -> longshore_runtime::Result<Option<BlobReader<'a>>> {
        Err(nothing(reference))
    }
}

fn nothing(reference: &Reference) -> longshore_runtime::Error {
    let hint = "it has no name that says from where it could be fetched again; remove it (`rbox rmi`)";
    longshore_runtime::Error::NotFound { what: format!("what is damaged of {reference}"), hint: hint.into() }
}
