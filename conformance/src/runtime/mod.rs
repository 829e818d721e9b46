//! The runtime specification as a table of requirements, for any program with `runc`'s command line.
//!
//! Entry point: [`run`]. Each check makes bundles from a typical configuration with a few edits
//! (`bundle`, `typical`), has the runtime run them (`context`, `container`), and looks at what the process
//! in the container sees, or at the process from the host. The specification names operations and no
//! command line: verbs and flags are those of `runc`, which engines rely on, and a requirement that is
//! about them alone is a SHOULD of section "command line".

mod bundle;
mod checks;
mod command;
mod console;
mod container;
mod context;
mod finding;
mod machine;
mod report;
mod timing;
mod typical;

use std::path::Path;

use anyhow::bail;

pub use command::{End, Step};
pub use context::Context;
pub use finding::{Finding, Outcome};
pub use report::{Report, Row};
pub use timing::{Comparison, Figures, Timing, time};

use crate::outcome::Level;

/// The version judged by.
pub const SPECIFICATION: &str = "runtime-spec 1.2.1";

/// One thing the specification asks of a runtime.
#[derive(Debug, Clone, Copy)]
pub struct Requirement {
    /// Group and name, `mounts-order`; stable across versions.
    pub id: &'static str,
    /// The section it stands in, by heading.
    pub section: &'static str,
    /// How strongly it is asked.
    pub level: Level,
    /// The requirement in a few words.
    pub title: &'static str,
    check: Check,
}

/// What judges a requirement.
type Check = fn(&Context) -> Outcome;

/// A row of the table asked with MUST.
const fn must(id: &'static str, section: &'static str, title: &'static str, check: Check) -> Requirement {
    Requirement { id, section, level: Level::Must, title, check }
}

/// A row of the table asked with SHOULD.
const fn should(id: &'static str, section: &'static str, title: &'static str, check: Check) -> Requirement {
    Requirement { id, section, level: Level::Should, title, check }
}

/// The whole table, in the order in which it is judged.
pub fn requirements() -> impl Iterator<Item = &'static Requirement> {
    checks::TABLES.into_iter().flatten()
}

/// The rows whose id is one of `only` or begins with one of them and a dash (all when `only` is empty),
/// without those that `skip` names in the same way.
///
/// # Errors
/// When a name fits no row.
pub fn choose(only: &[String], skip: &[String]) -> anyhow::Result<Vec<&'static Requirement>> {
    let fits = |id: &str, wanted: &str| id.strip_prefix(wanted).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'));
    if let Some(unknown) = only.iter().chain(skip).find(|wanted| !requirements().any(|r| fits(r.id, wanted))) {
        bail!("no requirement is called {unknown:?}: see rconform runtime --list");
    }
    let named = |list: &[String], id: &str| list.iter().any(|wanted| fits(id, wanted));
    Ok(requirements().filter(|r| (only.is_empty() || named(only, r.id)) && !named(skip, r.id)).collect())
}

/// Judges the runtime `program` by the `chosen` requirements and removes what that made. Containers get
/// the root filesystem `rootfs` (a shell and the usual tools, statically linked), or busybox.
///
/// # Errors
/// When the runtime cannot be judged at all: it is no program, or there is no busybox.
pub fn run(program: &Path, rootfs: Option<&Path>, chosen: &[&'static Requirement]) -> anyhow::Result<Report> {
    let context = Context::new(program, rootfs)?;
    let judge = |requirement: &&'static Requirement| {
        let outcome = (requirement.check)(&context);
        let row = Row::new(requirement, outcome, || context.steps());
        context.clean();
        row
    };
    let requirements = chosen.iter().map(judge).collect();
    let left_behind = context.clean_up();
    Ok(Report { subject: program.display().to_string(), specification: SPECIFICATION, requirements, left_behind })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_requirement_has_an_id_of_its_own_in_a_group() {
        let mut ids: Vec<_> = requirements().map(|r| r.id).collect();
        let allowed = |b: u8| b.is_ascii_lowercase() || b == b'-' || b.is_ascii_digit();
        assert!(ids.iter().all(|id| id.contains('-') && id.bytes().all(allowed)));
        let count = ids.len();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), count);
    }

    #[test]
    fn requirements_are_chosen_and_left_out_by_id_or_group() {
        let ids = |only: &[&str], skip: &[&str]| {
            let list = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
            choose(&list(only), &list(skip)).map(|chosen| chosen.iter().map(|r| r.id).collect::<Vec<_>>())
        };
        assert_eq!(ids(&[], &[]).unwrap().len(), requirements().count());
        assert!(ids(&["mounts"], &["mounts-order"]).unwrap().iter().all(|id| id.starts_with("mounts-") && *id != "mounts-order"));
        assert_eq!(ids(&["mounts-order"], &[]).unwrap(), ["mounts-order"]);
        assert!(ids(&["moun"], &[]).is_err() && ids(&[], &["moun"]).is_err());
    }
}
