//! The distribution specification as a table of requirements.

mod chunks;
mod context;
mod errors;
mod manifests;
mod pull;
mod push;
mod referrers;
mod tags;

use anyhow::{Context as _, bail};
use reqwest::Method;

pub use context::Context;

use crate::http::{Registry, Request};
use crate::outcome::{Finding, Level, Outcome};
use crate::report::{self, Report, Row};

/// The version judged by.
pub const SPECIFICATION: &str = "distribution-spec 1.1.1";

/// One thing the specification asks of a registry.
#[derive(Debug, Clone, Copy)]
pub struct Requirement {
    /// Group and name, `pull-blob`; stable across versions.
    pub id: &'static str,
    /// The section it stands in, by heading, with the endpoint where it has one.
    pub section: &'static str,
    /// How strongly it is asked.
    pub level: Level,
    /// The requirement in a few words.
    pub title: &'static str,
    check: fn(&Context<'_>) -> Outcome,
}

/// A row of the table asked with MUST.
const fn must(id: &'static str, section: &'static str, title: &'static str, check: fn(&Context<'_>) -> Outcome) -> Requirement {
    Requirement { id, section, level: Level::Must, title, check }
}

/// A row of the table asked with SHOULD.
const fn should(id: &'static str, section: &'static str, title: &'static str, check: fn(&Context<'_>) -> Outcome) -> Requirement {
    Requirement { id, section, level: Level::Should, title, check }
}

/// The whole table, in the order in which it is judged.
pub fn requirements() -> impl Iterator<Item = &'static Requirement> {
    let groups = [pull::TABLE, push::TABLE, chunks::TABLE, manifests::TABLE, tags::TABLE, referrers::TABLE, errors::TABLE];
    groups.into_iter().flatten()
}

/// The rows whose id is one of `only` or begins with one of them and a dash; all when `only` is empty.
pub fn choose(only: &[String]) -> anyhow::Result<Vec<&'static Requirement>> {
    let fits = |id: &str, wanted: &str| id.strip_prefix(wanted).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'));
    if let Some(unknown) = only.iter().find(|wanted| !requirements().any(|r| fits(r.id, wanted))) {
        bail!("no requirement is called {unknown:?}: see rconform spec --list");
    }
    Ok(requirements().filter(|r| only.is_empty() || only.iter().any(|wanted| fits(r.id, wanted))).collect())
}

/// Judges `registry` by the `chosen` requirements, in repositories below `namespace`, and removes
/// what it pushed.
///
/// Fails only when the registry cannot be judged at all: it does not answer, or wants credentials.
pub fn run(registry: &Registry, namespace: &str, chosen: &[&'static Requirement]) -> anyhow::Result<Report> {
    let url = registry.url();
    match registry.send(Request::new(Method::GET, "/v2/")) {
        Ok(answer) if answer.status() == 401 => bail!("{url} asks for credentials: only anonymous access can be judged"),
        Ok(_) => {}
        Err(Finding::Fail { exchange, .. }) => bail!("cannot reach {url}: is a registry running there?\n{exchange}"),
        Err(Finding::NotOffered(why) | Finding::Differs(why)) => bail!("cannot judge {url}: {why}"),
    }
    let context = Context::new(registry, namespace).context("prepare the run")?;
    let judged_at = report::now();
    let requirements = chosen.iter().map(|r| Row::new(r, (r.check)(&context))).collect();
    let left_behind = context.clean_up();
    Ok(Report { registry: url.to_string(), specification: SPECIFICATION.into(), judged_at, requirements, left_behind })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_requirement_has_an_id_of_its_own_in_a_group() {
        let mut ids: Vec<_> = requirements().map(|r| r.id).collect();
        assert!(
            ids.iter()
                .all(|id| id.contains('-') && id.bytes().all(|b| b.is_ascii_lowercase() || b == b'-' || b.is_ascii_digit()))
        );
        let count = ids.len();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), count);
    }

    #[test]
    fn requirements_are_chosen_by_id_or_group_and_unknown_ones_refused() {
        let chosen = |only: &[&str]| choose(&only.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert_eq!(chosen(&[]).unwrap().len(), requirements().count());
        assert!(chosen(&["pull"]).unwrap().iter().all(|r| r.id.starts_with("pull-")));
        assert_eq!(chosen(&["tags-list"]).unwrap().len(), 1);
        assert!(chosen(&["pul"]).is_err());
    }
}
