//! `rbox doctor`

use std::process::ExitCode;

use clap::Args;
use longshore_runtime::Store;
use serde_json::json;

use super::Global;
use super::format::{List, ListFormat};
use super::login::parse_registry;
use crate::config::Registries;
use crate::doctor::{self, Verdict};
use crate::error::Result;

/// Look for what keeps this machine, and a registry, from working
///
/// Each line is ok, warn or fail, and says what to do. The exit code is 1 if anything fails.
#[derive(Debug, Args)]
pub(super) struct Doctor {
    #[command(flatten)]
    format: ListFormat,
    /// A registry to look at, too: HOST[:PORT]
    #[arg(value_name = "REGISTRY", value_parser = parse_registry)]
    registry: Option<String>,
}

const LIST: List<'_> = List {
    headings: &[("Advice", "ADVICE"), ("Check", "CHECK"), ("Found", "FOUND"), ("Verdict", "VERDICT")],
    default: "{{printf \"%-4s  %-15s  %s\" .Verdict .Check .Found}}{{with .Advice}}: {{.}}{{end}}",
};

impl Doctor {
    pub(super) fn execute(self, global: &Global) -> Result<ExitCode> {
        let root = global.root.clone().map_or_else(Store::default_root, Ok)?;
        // Credentials and certificates are this user's: what they are is known before it is another in its namespace.
        let registries = Registries::load()?;
        let mut checks = doctor::machine(&root);
        if let Some(registry) = &self.registry {
            checks.extend(doctor::registry(&registries, registry)?);
        }
        let failed = checks.iter().any(|check| check.verdict == Verdict::Fail);
        let row = |check: &doctor::Check| {
            json!({
                "Advice": check.advice,
                "Check": check.name,
                "Found": check.found,
                "Verdict": check.verdict.as_str(),
            })
        };
        self.format.print(&LIST, checks.iter().map(row))?;
        Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }
}
