//! The distribution specification as a table of requirements.

mod access;
mod chunks;
mod context;
mod docker;
mod errors;
mod hostile;
mod indexes;
mod manage;
mod manifests;
mod negotiate;
mod pull;
mod push;
mod referrers;
mod sizes;
mod tags;
mod wire;

use anyhow::{Context as _, bail};
use reqwest::Method;

pub use context::Context;

use crate::http::{Exchange, Registry, Request};
use crate::outcome::{Finding, Level, Outcome};
use crate::report::{Report, Row};

/// The version judged by.
pub const SPECIFICATION: &str = "distribution-spec 1.1.1";

/// One thing the specification asks of a registry.
#[derive(Debug, Clone, Copy, serde::Serialize)]
pub struct Requirement {
    /// Group and name, `pull-blob`; stable across versions.
    pub id: &'static str,
    /// The section it stands in, by heading, with the endpoint where it has one.
    pub section: &'static str,
    /// How strongly it is asked.
    pub level: Level,
    /// The requirement in a few words.
    pub title: &'static str,
    #[serde(skip)]
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

/// A row of the table about what a registry may do, or Docker's does.
const fn may(id: &'static str, section: &'static str, title: &'static str, check: fn(&Context<'_>) -> Outcome) -> Requirement {
    Requirement { id, section, level: Level::May, title, check }
}

/// The whole table, in the order in which it is judged.
pub fn requirements() -> impl Iterator<Item = &'static Requirement> {
    let groups = [
        pull::TABLE,
        push::TABLE,
        chunks::TABLE,
        manifests::TABLE,
        indexes::TABLE,
        tags::TABLE,
        referrers::TABLE,
        manage::TABLE,
        negotiate::TABLE,
        docker::TABLE,
        sizes::TABLE,
        access::TABLE,
        hostile::TABLE,
        wire::TABLE,
        errors::TABLE,
        errors::LAST,
    ];
    groups.into_iter().flatten()
}

/// Whether an id is `wanted`, or begins with it and a dash.
fn fits(id: &str, wanted: &str) -> bool {
    id.strip_prefix(wanted).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
}

/// Fails when one of `wanted` is no requirement and no group.
fn must_exist(wanted: &[String]) -> anyhow::Result<()> {
    match wanted.iter().find(|wanted| !requirements().any(|r| fits(r.id, wanted))) {
        Some(unknown) => bail!("no requirement is called {unknown:?}: see rconform spec --list"),
        None => Ok(()),
    }
}

/// The rows whose id is one of `only` or begins with one of them and a dash; all when `only` is empty.
pub fn choose(only: &[String]) -> anyhow::Result<Vec<&'static Requirement>> {
    must_exist(only)?;
    Ok(requirements().filter(|r| only.is_empty() || only.iter().any(|wanted| fits(r.id, wanted))).collect())
}

/// The chosen rows but those whose id is one of `skip` or begins with one of them and a dash.
pub fn leave_out(mut chosen: Vec<&'static Requirement>, skip: &[String]) -> anyhow::Result<Vec<&'static Requirement>> {
    must_exist(skip)?;
    chosen.retain(|r| !skip.iter().any(|unwanted| fits(r.id, unwanted)));
    Ok(chosen)
}

/// Judges `registry` by the `chosen` requirements, in repositories below `namespace`, and removes
/// what it pushed.
///
/// Fails only when the registry cannot be judged at all: it does not answer, or wants other credentials.
pub fn run(registry: &Registry, namespace: &str, chosen: &[&'static Requirement]) -> anyhow::Result<Report> {
    let url = registry.url();
    match registry.send(Request::new(Method::GET, "/v2/")) {
        Ok(answer) if answer.status() == 401 => bail!(refused(registry, &answer)),
        Ok(_) => {}
        Err(Finding::Fail { exchange, .. }) => bail!("cannot reach {url}: is a registry running there?\n{exchange}"),
        Err(Finding::NotOffered(why) | Finding::Differs(why)) => bail!("cannot judge {url}: {why}"),
    }
    let context = Context::new(registry, namespace).context("prepare the run")?;
    // Some let everybody in here, and want credentials for everything else.
    if registry.credentials().is_none()
        && let Ok(answer) = context.send(Request::new(Method::POST, context.path("blobs/uploads/")))
    {
        context.note_session(&answer);
        if answer.status() == 401 {
            bail!(refused(registry, &answer));
        }
    }
    let requirements = chosen.iter().map(|r| Row::new(r, (r.check)(&context))).collect();
    let left_behind = context.clean_up();
    Ok(Report { registry: url.to_string(), specification: SPECIFICATION, requirements, left_behind })
}

/// Why nothing can be judged after a 401.
fn refused(registry: &Registry, answer: &Exchange) -> String {
    let what = match registry.credentials() {
        Some(credentials) => format!("does not take those of {:?}", credentials.user()),
        None => "has been given none: use --user, or log in with docker".into(),
    };
    format!("{} wants credentials and {what}\n{answer}", registry.url())
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
        let skipped = leave_out(chosen(&["tags"]).unwrap(), &["tags-limit".to_owned()]).unwrap();
        assert!(skipped.iter().any(|r| r.id == "tags-last") && !skipped.iter().any(|r| r.id.starts_with("tags-limit")));
        assert!(leave_out(Vec::new(), &["nonsense".to_owned()]).is_err());
    }
}
