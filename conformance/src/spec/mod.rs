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
use crate::outcome::{Finding, Outcome};
use crate::report::{self, Report, Row, Verdict};
use crate::requirement::{self, may, must, should};

/// The version judged by.
pub const SPECIFICATION: &str = "distribution-spec 1.1.1";

/// One thing the specification asks of a registry.
pub type Requirement = requirement::Requirement<fn(&Context<'_>) -> Outcome>;

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

/// The rows chosen by name; see [`requirement::choose`].
///
/// # Errors
/// When a name fits no row.
pub fn choose(only: &[String], skip: &[String]) -> anyhow::Result<Vec<&'static Requirement>> {
    requirement::choose(requirements(), only, skip)
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
    let judged_at = report::now();
    // Some let everybody in here, and want credentials for everything else.
    if registry.credentials().is_none()
        && let Ok(answer) = context.send(Request::new(Method::POST, context.path("blobs/uploads/")))
    {
        context.note_session(&answer);
        if answer.status() == 401 {
            bail!(refused(registry, &answer));
        }
    }
    let requirements = chosen.iter().map(|r| row(r, (r.check)(&context))).collect();
    let left_behind = context.clean_up();
    Ok(Report { subject: url.to_string(), specification: SPECIFICATION.into(), judged_at, requirements, left_behind })
}

fn row(requirement: &Requirement, outcome: Outcome) -> Row {
    let (verdict, detail, exchange) = match outcome {
        Ok(()) => (Verdict::Pass, None, None),
        Err(Finding::Fail { expected, exchange }) => (Verdict::Fail, Some(expected), Some(exchange.to_string())),
        Err(Finding::NotOffered(what)) => (Verdict::NotOffered, Some(what), None),
        Err(Finding::Differs(how)) => (Verdict::Differs, Some(how), None),
    };
    Row::new(requirement, verdict, detail, exchange)
}

/// Why nothing can be judged after a 401.
fn refused(registry: &Registry, answer: &Exchange) -> String {
    let what = match registry.credentials() {
        Some(credentials) => format!("does not take those of {:?}", credentials.user()),
        None => "has been given none: use --user, or log in with docker".into(),
    };
    format!("{} wants credentials and {what}\n{answer}", registry.url())
}
