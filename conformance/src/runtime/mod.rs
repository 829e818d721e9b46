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
mod timing;
mod typical;

use std::path::Path;

pub use command::{End, Step};
pub use context::Context;
pub use finding::{Finding, Outcome};
pub use timing::{Comparison, Figures, Timing, time};

use crate::report::{self, Report, Row, Verdict};
use crate::requirement::{self, must, should};

/// The version judged by.
pub const SPECIFICATION: &str = "runtime-spec 1.2.1";

/// One thing the specification asks of a runtime.
pub type Requirement = requirement::Requirement<fn(&Context) -> Outcome>;

/// The whole table, in the order in which it is judged.
pub fn requirements() -> impl Iterator<Item = &'static Requirement> {
    checks::TABLES.into_iter().flatten()
}

/// The rows chosen by name; see [`requirement::choose`].
///
/// # Errors
/// When a name fits no row.
pub fn choose(only: &[String], skip: &[String]) -> anyhow::Result<Vec<&'static Requirement>> {
    requirement::choose(requirements(), only, skip)
}

/// Judges the runtime `program` by the `chosen` requirements and removes what that made. Containers get
/// the root filesystem `rootfs` (a shell and the usual tools, statically linked), or busybox.
///
/// # Errors
/// When the runtime cannot be judged at all: it is no program, or there is no busybox.
pub fn run(program: &Path, rootfs: Option<&Path>, chosen: &[&'static Requirement]) -> anyhow::Result<Report> {
    let (context, judged_at) = (Context::new(program, rootfs)?, report::now());
    let judge = |requirement: &&'static Requirement| {
        let outcome = (requirement.check)(&context);
        let row = row(requirement, outcome, &context);
        context.clean();
        row
    };
    let requirements = chosen.iter().map(judge).collect();
    let left_behind = context.clean_up();
    let subject = program.display().to_string();
    Ok(Report { subject, specification: SPECIFICATION.into(), judged_at, requirements, left_behind })
}

fn row(requirement: &Requirement, outcome: Outcome, context: &Context) -> Row {
    let (verdict, detail, steps) = match outcome {
        Ok(()) => (Verdict::Pass, None, None),
        Err(Finding::Fail(expected)) => (Verdict::Fail, Some(expected), Some(context.steps())),
        Err(Finding::NotOffered(what)) => (Verdict::NotOffered, Some(what), None),
        Err(Finding::Differs(how)) => (Verdict::Differs, Some(how), None),
    };
    Row::new(requirement, verdict, detail, steps)
}
