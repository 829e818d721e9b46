//! `rconform spec`

use anyhow::Context as _;
use clap::Args;
use longshore_conformance::Registry;
use longshore_conformance::credentials::{self, Credentials};
use longshore_conformance::report::output::write_report;
use longshore_conformance::spec;
use reqwest::Url;

use super::output::{OutputFlags, write_list};

/// Where the password of --user is, if not on standard input.
const PASSWORD_VARIABLE: &str = "RCONFORM_PASSWORD";

#[derive(Debug, Args)]
pub(super) struct Flags {
    /// The registry's base URL, as in http://localhost:5000
    #[arg(required_unless_present = "list")]
    url: Option<Url>,
    /// Print the requirements and stop
    #[arg(long)]
    list: bool,
    /// Judge only these: ids, or the beginnings of ids up to a dash, separated by commas
    #[arg(long, value_name = "ID", value_delimiter = ',')]
    only: Vec<String>,
    /// Leave these out, named as for --only
    #[arg(long, value_name = "ID", value_delimiter = ',')]
    skip: Vec<String>,
    /// The repositories used are NAMESPACE/spec and NAMESPACE/spec-other
    #[arg(long, default_value = "rconform")]
    namespace: String,
    /// Judge as this user, whose password is in $RCONFORM_PASSWORD [default: whoever docker is logged in as]
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// Read the password of --user from standard input
    #[arg(long, requires = "user")]
    password_stdin: bool,
    /// Judge without credentials, whoever docker is logged in as
    #[arg(long, conflicts_with = "user")]
    anonymous: bool,
    #[command(flatten)]
    output: OutputFlags,
}

/// Whether every MUST holds.
pub(super) fn run(flags: &Flags) -> anyhow::Result<bool> {
    let chosen = spec::choose(&flags.only, &flags.skip)?;
    let Some(url) = flags.url.as_ref().filter(|_| !flags.list) else {
        flags.output.put(|form, out| write_list(&chosen, form, out))?;
        return Ok(true);
    };
    let registry = Registry::with_credentials(url.clone(), credentials(flags, url)?)?;
    let report = spec::run(&registry, &flags.namespace, &chosen)?;
    flags.output.put(|form, out| write_report(&report, form, out))?;
    Ok(report.conforms())
}

/// The credentials the flags say, or those docker has for the registry.
fn credentials(flags: &Flags, url: &Url) -> anyhow::Result<Option<Credentials>> {
    let Some(user) = &flags.user else {
        return if flags.anonymous { Ok(None) } else { credentials::find(url) };
    };
    let password = if flags.password_stdin {
        credentials::read_password(std::io::stdin().lock())?
    } else {
        let why = format!("there is no password for --user {user}: set {PASSWORD_VARIABLE}, or use --password-stdin");
        std::env::var(PASSWORD_VARIABLE).ok().filter(|password| !password.is_empty()).context(why)?
    };
    Ok(Some(Credentials::new(user, password)))
}
