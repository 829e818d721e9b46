//! `rhub config check`

use anyhow::bail;
use clap::Subcommand;
use longshore_server::access::Settings;
use longshore_server::config::{Problem, Problems, load};
use longshore_server::serve::Tls;

use super::{Common, say, serve};

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Say everything that is wrong with the configuration, or every setting and where it comes from.
    ///
    /// Takes the flags of `rhub serve`, and looks at what `rhub serve` would look at.
    Check(serve::Flags),
}

pub(super) fn run(common: &Common, verb: &Verb) -> anyhow::Result<()> {
    let Verb::Check(flags) = verb;
    let loaded = load(&common.sources(flags.settings())?)?;
    let mut problems: Vec<_> = loaded.config.exposed().into_iter().collect();
    if let Some(Err(e)) = loaded.config.tls.as_ref().map(Tls::open) {
        problems.push(Problem::of_key("tls", e.to_string()));
    }
    if let Some(Err(e)) = loaded.config.access.as_ref().map(Settings::check) {
        problems.push(Problem::of_key("access", e.to_string()));
    }
    if !problems.is_empty() {
        bail!(Problems(problems));
    }
    match &loaded.file {
        Some(file) => say(&format!("# {} is fine", file.display()))?,
        None => say("# there is no configuration file, and nothing wrong")?,
    }
    loaded.warnings.iter().try_for_each(|warning| say(&format!("# {warning}")))?;
    loaded.effective.iter().try_for_each(|setting| say(&setting.to_string()))
}
