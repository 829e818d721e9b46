//! What becomes of a container's output: docker's log drivers and their options.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{log_attributes, log_journal};
use crate::error::{Error, Result};
use crate::spec::parse_size;

/// The most files of one log.
const FILES_LIMIT: u32 = 1000;

/// Who takes a container's output.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum LogDriver {
    /// A file of JSON lines.
    #[default]
    #[serde(rename = "json-file")]
    JsonFile,
    /// systemd's journal.
    #[serde(rename = "journald")]
    Journald,
    /// It is thrown away.
    #[serde(rename = "none")]
    None,
}

impl LogDriver {
    /// All there are.
    pub const ALL: [Self; 3] = [Self::JsonFile, Self::Journald, Self::None];

    /// docker's word.
    pub fn name(self) -> &'static str {
        match self {
            Self::JsonFile => "json-file",
            Self::Journald => "journald",
            Self::None => "none",
        }
    }

    /// Whether it has an option of that name, and which ones it has.
    fn options(self) -> (&'static [&'static str], &'static str) {
        match self {
            Self::JsonFile => (
                &["max-size", "max-file", "compress", "tag", "labels", "env"],
                "the options of json-file are max-size=SIZE, max-file=NUMBER, compress=true, tag=TEMPLATE, labels=NAME,... and env=NAME,...",
            ),
            Self::Journald => {
                (&["tag", "labels", "env"], "the options of journald are tag=TEMPLATE, labels=NAME,... and env=NAME,...")
            }
            Self::None => (&[], "the log driver none has no options"),
        }
    }
}

impl fmt::Display for LogDriver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for LogDriver {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let bad = || Error::Name { what: "log driver", input: text.to_owned(), why: "it is json-file, journald or none" };
        Self::ALL.into_iter().find(|driver| driver.name() == text).ok_or_else(bad)
    }
}

/// What becomes of a container's output, and how much of it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogOptions {
    /// Where it goes.
    pub driver: LogDriver,
    /// How long a file becomes before the next is begun.
    pub max_bytes: Option<u64>,
    /// How many files are kept.
    pub max_files: u32,
    /// Files that are full are compressed.
    #[serde(default)]
    pub compress: bool,
    /// What the log calls the container, one of docker's templates.
    #[serde(default)]
    pub tag: Option<String>,
    /// The labels of the container that are said with each entry.
    #[serde(default)]
    pub labels: Vec<String>,
    /// The variables of the container that are.
    #[serde(default)]
    pub env: Vec<String>,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self {
            driver: LogDriver::default(),
            max_bytes: None,
            max_files: 1,
            compress: false,
            tag: None,
            labels: Vec::new(),
            env: Vec::new(),
        }
    }
}

impl LogOptions {
    /// What a driver and options `NAME=VALUE` ask for.
    ///
    /// # Errors
    ///
    /// [`Error::Name`] for an option the driver does not have, a value that is none, and files to be compressed where
    /// there never is one that is full.
    pub fn parse(driver: LogDriver, options: &[String]) -> Result<Self> {
        let mut parsed = Self { driver, ..Self::default() };
        options.iter().try_for_each(|option| parsed.set(option))?;
        if parsed.compress && (parsed.max_bytes.is_none() || parsed.max_files < 2) {
            let why = "it needs max-size=SIZE and a max-file=NUMBER of at least 2: only full files are compressed";
            return Err(Error::Name { what: "log option", input: "compress=true".into(), why });
        }
        Ok(parsed)
    }

    fn set(&mut self, option: &str) -> Result<()> {
        let bad = |why| Error::Name { what: "log option", input: option.to_owned(), why };
        let (known, which) = self.driver.options();
        let (name, value) = option.split_once('=').filter(|(name, _)| known.contains(name)).ok_or_else(|| bad(which))?;
        let names = || value.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect();
        match name {
            "max-size" => {
                let bytes = parse_size(value)
                    .filter(|bytes| *bytes > 0)
                    .ok_or_else(|| bad("a size is a number above 0 with b, k, m or g behind it"))?;
                self.max_bytes = Some(bytes);
            }
            "max-file" => {
                let count = u32::from_str(value).ok().filter(|count| (1..=FILES_LIMIT).contains(count));
                self.max_files = count.ok_or_else(|| bad("the number of files is from 1 to 1000"))?;
            }
            "compress" => self.compress = boolean(value).ok_or_else(|| bad("it is true or false"))?,
            "labels" => self.labels = names(),
            "env" => self.env = names(),
            _ => {
                log_attributes::check(value).map_err(bad)?;
                self.tag = Some(value.to_owned()).filter(|tag| !tag.is_empty());
            }
        }
        Ok(())
    }

    /// Whether who is to take the output is there.
    pub(super) fn check_taker(&self) -> Result<()> {
        if self.driver == LogDriver::Journald { log_journal::check() } else { Ok(()) }
    }

    /// The options that are not as they are without any, by docker's names.
    pub fn described(&self) -> Vec<(&'static str, String)> {
        let mut described = Vec::new();
        if let Some(bytes) = self.max_bytes {
            described.push(("max-size", bytes.to_string()));
        }
        if self.max_bytes.is_some() || self.max_files > 1 {
            described.push(("max-file", self.max_files.to_string()));
        }
        if self.compress {
            described.push(("compress", "true".into()));
        }
        described.extend(self.tag.clone().map(|tag| ("tag", tag)));
        let lists = [("labels", &self.labels), ("env", &self.env)];
        described.extend(lists.into_iter().filter(|(_, list)| !list.is_empty()).map(|(name, list)| (name, list.join(","))));
        described
    }
}

/// A truth value in Go's way.
fn boolean(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(driver: LogDriver, options: &[&str]) -> Result<LogOptions> {
        LogOptions::parse(driver, &options.iter().map(|option| (*option).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn log_options_read_as_dockers() {
        for (text, bytes) in [("max-size=10", 10), ("max-size=2k", 2048), ("max-size=3M", 3 << 20), ("max-size=1g", 1 << 30)] {
            assert_eq!(parse(LogDriver::JsonFile, &[text]).unwrap().max_bytes, Some(bytes));
        }
        let all = ["max-size=1k", "max-file=2", "compress=true", "tag={{.Name}}", "labels=a,b", "env=C"];
        let parsed = parse(LogDriver::JsonFile, &all).unwrap();
        assert_eq!((parsed.max_files, parsed.compress, &parsed.labels[..]), (2, true, &["a".to_owned(), "b".into()][..]));
        let described: Vec<String> = parsed.described().into_iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(described, ["max-size=1024", "max-file=2", "compress=true", "tag={{.Name}}", "labels=a,b", "env=C"]);
        assert!(parse(LogDriver::Journald, &["tag=x", "labels=a", "env=b"]).is_ok());
        for bad in
            ["max-size=", "max-size=0", "max-size=-1", "max-size=1x", "max-file=0", "max-file=x", "labels-regex=a", "max-size"]
        {
            assert!(parse(LogDriver::JsonFile, &[bad]).is_err(), "{bad}");
        }
        for bad in ["compress=yes", "tag={{.Nothing}}", "tag={{.Name", ""] {
            assert!(parse(LogDriver::JsonFile, &[bad]).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_driver_refuses_what_it_does_not_know_and_says_what_it_does() {
        let error = parse(LogDriver::Journald, &["max-size=1k"]).unwrap_err().to_string();
        assert!(error.contains("max-size=1k") && error.contains("the options of journald are tag="), "{error}");
        assert!(parse(LogDriver::None, &["max-size=1k"]).unwrap_err().to_string().contains("no options"));
        for driver in LogDriver::ALL {
            assert_eq!(driver.name().parse::<LogDriver>().unwrap(), driver);
        }
        assert!("syslog".parse::<LogDriver>().unwrap_err().to_string().contains("journald"));
    }

    #[test]
    fn only_where_files_become_full_are_they_compressed() {
        for few in [&["compress=true"][..], &["compress=true", "max-size=1k"], &["compress=true", "max-file=2"]] {
            let error = parse(LogDriver::JsonFile, few).unwrap_err().to_string();
            assert!(error.contains("max-file") && error.contains("max-size"), "{error}");
        }
        assert!(parse(LogDriver::JsonFile, &["compress=false"]).is_ok());
    }

    proptest! {
        #[test]
        fn no_text_is_too_strange(text in "((max-size|max-file|compress|tag|labels|env)=)?.{0,24}") {
            let _ = parse(LogDriver::JsonFile, &[&text]);
        }
    }
}
