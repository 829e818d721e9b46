//! `roci ps`.

use clap::Args;
use longshore_runtime::error::Result;
use longshore_runtime::lifecycle::Runtime;

use super::list::{Format, print, print_json};

/// List the processes of a container
#[derive(Debug, Args)]
pub(crate) struct Ps {
    /// As ps prints them, or their numbers as JSON
    #[arg(short, long, value_enum, default_value = "table")]
    format: Format,
    /// The container's name
    id: String,
    /// Options for ps [default: -ef]
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    options: Vec<String>,
}

impl Ps {
    pub(crate) fn call(self, runtime: &Runtime) -> Result<u8> {
        match self.format {
            Format::Json => print_json(&runtime.processes(&self.id)?)?,
            Format::Table => print(&runtime.process_table(&self.id, &self.options)?)?,
        }
        Ok(0)
    }
}
