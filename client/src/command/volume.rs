//! `rbox volume`

use std::collections::BTreeSet;
use std::io::Write;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use longshore_runtime::Error;
use longshore_runtime::volume::{Info, Volumes};
use serde_json::{Value, json};

use super::format::{DocumentFormat, List, ListFormat};
use super::label::{self, Wanted};
use super::prune::confirmed;
use super::{Global, for_each, print};
use crate::error::Result;
use crate::stderr::say;
use crate::text::{self, printable};

/// Manage volumes
#[derive(Debug, Args)]
pub(super) struct Volume {
    #[command(subcommand)]
    verb: VolumeVerb,
}

#[derive(Debug, Subcommand)]
enum VolumeVerb {
    Create(Create),
    Inspect(Inspect),
    #[command(visible_alias = "list")]
    Ls(Ls),
    Prune(Prune),
    #[command(visible_alias = "remove")]
    Rm(Rm),
}

/// Make a volume
///
/// One that is there already stays as it is. Its name, or the one that is made up, is printed.
#[derive(Debug, Args)]
struct Create {
    /// The driver; there is one
    #[arg(short, long, default_value = "local", value_parser = ["local"])]
    driver: String,
    /// Say something about it
    #[arg(long = "label", value_name = "KEY[=VALUE]", value_parser = label::parse)]
    labels: Vec<(String, String)>,
    /// Where its files are, if not in the store: type=none, o=bind and device=DIR, a directory of this machine
    #[arg(short, long = "opt", value_name = "KEY=VALUE", value_parser = label::parse)]
    options: Vec<(String, String)>,
    /// What it is called
    #[arg(value_name = "VOLUME")]
    name: Option<String>,
}

/// Show everything about volumes, as JSON
#[derive(Debug, Args)]
struct Inspect {
    #[command(flatten)]
    format: DocumentFormat,
    /// Their names
    #[arg(value_name = "VOLUME", required = true)]
    names: Vec<String>,
}

/// List volumes
#[derive(Debug, Args)]
struct Ls {
    /// Only those that fit: name=PART, label=KEY[=VALUE], driver=NAME, or dangling=true for those no container has;
    /// of one kind any, of several all
    #[arg(short, long, value_name = "KIND=VALUE", value_parser = Filter::parse)]
    filter: Vec<Filter>,
    #[command(flatten)]
    format: ListFormat,
    /// Print only names
    #[arg(short, long)]
    quiet: bool,
}

/// Remove volumes no container has
///
/// Those without a name; with --all the others, too.
#[derive(Debug, Args)]
struct Prune {
    /// Those with a name, too
    #[arg(short, long)]
    all: bool,
    /// Only those that fit: label=KEY[=VALUE] or label!=KEY[=VALUE]
    #[arg(long, value_name = "KIND=VALUE", value_parser = Filter::parse_for_prune)]
    filter: Vec<Filter>,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
}

/// Remove volumes, with all that is in them
///
/// One that a container has, whether it runs or not, stays.
#[derive(Debug, Args)]
struct Rm {
    /// One that is not there is no error
    #[arg(short, long)]
    force: bool,
    /// Their names
    #[arg(value_name = "VOLUME", required = true)]
    names: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Filter {
    Name(String),
    Driver(String),
    Label(Wanted),
    Dangling(bool),
}

impl Filter {
    fn parse(text: &str) -> std::result::Result<Self, String> {
        let (kind, value) = text.split_once('=').ok_or("KIND=VALUE")?;
        Ok(match kind {
            "name" => Self::Name(value.into()),
            "driver" => Self::Driver(value.into()),
            "dangling" => Self::Dangling(match value {
                "true" | "1" => true,
                "false" | "0" => false,
                _ => return Err("dangling is true or false".into()),
            }),
            "label" | "label!" => Self::Label(Wanted::parse(value, kind == "label")?),
            _ => return Err("the kinds are name, label, driver and dangling".into()),
        })
    }

    fn parse_for_prune(text: &str) -> std::result::Result<Self, String> {
        match Self::parse(text) {
            Ok(filter @ Self::Label(_)) => Ok(filter),
            _ => Err("label=KEY[=VALUE] or label!=KEY[=VALUE]".into()),
        }
    }

    fn fits(&self, info: &Info, in_use: &BTreeSet<String>) -> bool {
        match self {
            Self::Name(part) => info.name.contains(part.as_str()),
            Self::Driver(driver) => driver == "local",
            Self::Label(wanted) => wanted.fits(|name| info.labels.get(name).map(String::as_str)),
            Self::Dangling(dangling) => in_use.contains(&info.name) != *dangling,
        }
    }
}

fn wanted(filters: &[Filter], info: &Info, in_use: &BTreeSet<String>) -> bool {
    label::all_fit(filters, |one| matches!(one, Filter::Label(_)), |one| one.fits(info, in_use))
}

impl Volume {
    pub(super) fn execute(self, global: &Global) -> Result<ExitCode> {
        match self.verb {
            VolumeVerb::Create(verb) => verb.execute(global),
            VolumeVerb::Inspect(verb) => verb.execute(global),
            VolumeVerb::Ls(verb) => verb.execute(global),
            VolumeVerb::Prune(verb) => verb.execute(global),
            VolumeVerb::Rm(verb) => verb.execute(global),
        }
    }
}

impl Create {
    fn execute(self, global: &Global) -> Result<ExitCode> {
        let (labels, options) = (self.labels.into_iter().collect(), &self.options.into_iter().collect());
        let made = Volumes::of(&global.store()?).create(self.name.as_deref(), labels, options)?;
        print(|out| writeln!(out, "{}", made.name))?;
        Ok(ExitCode::SUCCESS)
    }
}

impl Inspect {
    fn execute(self, global: &Global) -> Result<ExitCode> {
        let volumes = Volumes::of(&global.store()?);
        self.format.print(&self.names, |name| Ok(describe(&volumes, &volumes.get(name)?)))
    }
}

/// docker's keys.
pub(super) fn describe(volumes: &Volumes, info: &Info) -> Value {
    json!({
        "CreatedAt": info.created,
        "Driver": "local",
        "Labels": if info.labels.is_empty() { Value::Null } else { json!(info.labels) },
        "Mountpoint": volumes.data_path(&info.name),
        "Name": info.name,
        "Options": if info.options.is_empty() { Value::Null } else { json!(info.options) },
        "Scope": "local",
    })
}

impl Ls {
    fn execute(self, global: &Global) -> Result<ExitCode> {
        let volumes = Volumes::of(&global.store()?);
        let asked = self.filter.iter().any(|filter| matches!(filter, Filter::Dangling(_)));
        let in_use = if asked { volumes.in_use()? } else { BTreeSet::new() };
        let mut rows = Vec::new();
        for volume in volumes.list()? {
            match volume {
                Ok(info) => rows.extend(wanted(&self.filter, &info, &in_use).then_some(info)),
                Err(e) => say(format_args!("rbox: skipped a damaged volume: {}", printable(&e.to_string()))),
            }
        }
        let default = if self.quiet { "{{.Name}}" } else { "table {{.Driver}}\t{{.Name}}" };
        self.format.print(&List { headings: &HEADINGS, default }, rows.iter().map(|info| row(&volumes, info)))
    }
}

/// docker's fields and their headings.
const HEADINGS: [(&str, &str); 10] = [
    ("Availability", "AVAILABILITY"),
    ("Driver", "DRIVER"),
    ("Group", "GROUP"),
    ("Labels", "LABELS"),
    ("Links", "LINKS"),
    ("Mountpoint", "MOUNTPOINT"),
    ("Name", "VOLUME NAME"),
    ("Scope", "SCOPE"),
    ("Size", "SIZE"),
    ("Status", "STATUS"),
];

/// docker's keys of a line; what docker does not count there either is not available.
fn row(volumes: &Volumes, info: &Info) -> Value {
    json!({
        "Availability": "N/A",
        "Driver": "local",
        "Group": "N/A",
        "Label": info.labels,
        "Labels": label::joined(&info.labels, ","),
        "Links": "N/A",
        "Mountpoint": volumes.data_path(&info.name),
        "Name": info.name,
        "Scope": "local",
        "Size": "N/A",
        "Status": "N/A",
    })
}

impl Prune {
    fn execute(self, global: &Global) -> Result<ExitCode> {
        let which = if self.all { "all" } else { "anonymous" };
        let what = format!("This will remove {which} local volumes not used by at least one container.");
        if !self.force && !confirmed(&what)? {
            return Ok(ExitCode::SUCCESS);
        }
        let volumes = Volumes::of(&global.own_store()?.store);
        let nobody = BTreeSet::new();
        let fits = |info: &Info| (self.all || info.is_anonymous()) && wanted(&self.filter, info, &nobody);
        let (names, bytes) = volumes.prune(&fits)?;
        print(|out| {
            if !names.is_empty() {
                writeln!(out, "Deleted Volumes:\n{}\n", names.join("\n"))?;
            }
            writeln!(out, "Total reclaimed space: {}", text::size(bytes))
        })?;
        Ok(ExitCode::SUCCESS)
    }
}

impl Rm {
    fn execute(self, global: &Global) -> Result<ExitCode> {
        let volumes = Volumes::of(&global.own_store()?.store);
        for_each(self.names, |name| {
            match volumes.remove(&name) {
                Err(Error::NotFound { .. }) if self.force => {}
                other => other?,
            }
            Ok(name)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn filters_fit_as_dockers() {
        let labels = BTreeMap::from([("a".to_owned(), "1".to_owned()), ("b".to_owned(), String::new())]);
        let info = Info { name: "data-1".into(), created: String::new(), labels, options: BTreeMap::new() };
        let in_use = BTreeSet::from(["data-1".to_owned()]);
        let fits = |filters: &[&str]| {
            let filters: Vec<Filter> = filters.iter().map(|text| Filter::parse(text).unwrap()).collect();
            wanted(&filters, &info, &in_use)
        };
        assert!(fits(&[]) && fits(&["name=ata"]) && fits(&["label=a"]) && fits(&["label=a=1"]) && fits(&["driver=local"]));
        assert!(fits(&["name=x", "name=data"]) && fits(&["dangling=false"]) && fits(&["label!=c"]));
        assert!(!fits(&["name=x"]) && !fits(&["label=a=2"]) && !fits(&["dangling=true"]) && !fits(&["label!=a"]));
        assert!(!fits(&["label=a", "label=c"]) && !fits(&["driver=nfs"]));
        for bad in ["name", "x=y", "dangling=maybe", ""] {
            assert!(Filter::parse(bad).is_err(), "{bad}");
        }
        assert!(Filter::parse_for_prune("name=x").is_err() && Filter::parse_for_prune("label!=x").is_ok());
    }
}
