//! The layers of the configuration put on one another: flags over the environment over the file over
//! the defaults. Everything that is wrong in any of them is found before anything is refused.

use std::ffi::OsString;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::IntoDeserializer;

use toml::de::{DeTable, DeValue, ValueDeserializer};
use toml::{Spanned, Table, Value};

use super::keys::{KEYS, Key, Kind, nearest};
use super::problem::{Problem, Problems};
use super::{Config, DEFAULT_FILE, FILE_LIMIT_BYTES, access};

/// What a configuration is made of.
#[derive(Debug, Default)]
pub struct Sources {
    /// The file that was named; without one, `$RHUB_CONFIG`, else [`DEFAULT_FILE`] if it is there.
    pub file: Option<PathBuf>,
    /// The environment: `RHUB_...`, and what the place of the data depends on.
    pub environment: Vec<(OsString, OsString)>,
    /// Flags: each one's name, its key and its value.
    pub flags: Vec<(String, String, String)>,
}

/// A configuration without a fault, and how it came about.
#[derive(Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// Every key in the order of [`KEYS`], with its value and where that comes from.
    pub effective: Vec<Effective>,
    /// The file that was read.
    pub file: Option<PathBuf>,
    /// What was ignored, but hardly meant to be.
    pub warnings: Vec<String>,
}

/// A key's value and where it comes from. No key holds a secret: those are in files of their own.
#[derive(Debug)]
pub struct Effective {
    /// The key.
    pub key: &'static Key,
    /// Its value, if it has any.
    pub value: Option<Value>,
    /// Who set it.
    pub origin: Origin,
}

/// Who set a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Nobody.
    Default,
    /// The file, at this byte.
    File(usize),
    /// This variable.
    Environment(String),
    /// This flag.
    Flag(String),
}

impl fmt::Display for Effective {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(value) = &self.value else { return write!(f, "# {} is not set", self.key.path) };
        let assignment = format!("{} = {value}", self.key.path);
        match &self.origin {
            Origin::Default => write!(f, "{assignment:<52} # default"),
            Origin::File(_) => write!(f, "{assignment:<52} # file"),
            Origin::Environment(variable) => write!(f, "{assignment:<52} # environment, {variable}"),
            Origin::Flag(flag) => write!(f, "{assignment:<52} # flag {flag}"),
        }
    }
}

/// Puts the layers together.
///
/// # Errors
/// Everything that is wrong, all at once.
pub fn load(sources: &Sources) -> Result<Loaded, Problems> {
    let mut layers = Layers::new(sources);
    if let Some(file) = &layers.path {
        let path = file.clone();
        match read(&path) {
            Ok(text) => layers.file(&path, &text),
            Err(problem) => layers.problems.push(problem),
        }
    }
    layers.environment(&sources.environment);
    layers.flags(&sources.flags);
    layers.defaults(&sources.environment);
    layers.check_tables();
    layers.finish()
}

struct Layers {
    path: Option<PathBuf>,
    /// As in [`KEYS`].
    effective: Vec<Effective>,
    /// Tables that are there, even if nothing is in them.
    tables: Vec<String>,
    problems: Vec<Problem>,
    warnings: Vec<String>,
}

impl Layers {
    fn new(sources: &Sources) -> Self {
        let by_variable = || variable(&sources.environment, "RHUB_CONFIG").map(PathBuf::from);
        let usual = || Some(PathBuf::from(DEFAULT_FILE)).filter(|path| path.exists());
        let unset = |key| Effective { key, value: None, origin: Origin::Default };
        Self {
            path: sources.file.clone().or_else(by_variable).or_else(usual),
            effective: KEYS.iter().map(unset).collect(),
            tables: Vec::new(),
            problems: Vec::new(),
            warnings: Vec::new(),
        }
    }

    fn file(&mut self, path: &Path, text: &str) {
        match DeTable::parse(text) {
            Ok(root) => self.table(path, text, "", root.get_ref()),
            Err(e) => {
                let offset = e.span().map_or(0, |span| span.start);
                self.problems.push(Problem::in_file(path, text, offset, e.message().to_owned()));
            }
        }
    }

    fn table(&mut self, file: &Path, text: &str, prefix: &str, table: &DeTable<'_>) {
        for (name, value) in table {
            let path = if prefix.is_empty() { name.get_ref().to_string() } else { format!("{prefix}.{}", name.get_ref()) };
            let is_table = KEYS.iter().any(|key| key.path.strip_prefix(path.as_str()).is_some_and(|rest| rest.starts_with('.')));
            let outcome = match (value.get_ref(), KEYS.iter().position(|key| key.path == path)) {
                (DeValue::Table(inner), _) if is_table => {
                    self.table(file, text, &path, inner);
                    self.tables.push(path);
                    Ok(())
                }
                (_, Some(index)) => self.file_value(file, index, value),
                _ if is_table => Err((value.span(), format!("{path}: expected a table, [{path}]"))),
                _ => Err((name.span(), unknown(&path))),
            };
            if let Err((span, why)) = outcome {
                self.problems.push(Problem::in_file(file, text, span.start, why));
            }
        }
    }

    fn file_value(&mut self, file: &Path, index: usize, value: &Spanned<DeValue<'_>>) -> Result<(), (Range<usize>, String)> {
        let key = &KEYS[index];
        let fault = |span, why| (span, format!("{}: {why}", key.path));
        if let (Kind::Rules, DeValue::Array(rules)) = (key.kind, value.get_ref()) {
            for rule in rules {
                access::Rule::deserialize(rule.clone().into_deserializer())
                    .map_err(|e| fault(e.span().unwrap_or(rule.span()), e.message().to_owned()))?;
            }
        }
        let (span, offset) = (value.span(), value.span().start);
        let value = Value::deserialize(ValueDeserializer::from(value.clone()))
            .map_err(|e| fault(span.clone(), e.message().to_owned()))?;
        if let Some(expected) = key.kind.refuses(&value) {
            return Err(fault(span, format!("{value} is not {expected}")));
        }
        let value = match (key.kind, &value) {
            (Kind::Path, Value::String(path)) => join(file, path).map_err(|why| fault(span, why))?,
            _ => value,
        };
        self.effective[index] = Effective { key, value: Some(value), origin: Origin::File(offset) };
        Ok(())
    }

    fn environment(&mut self, environment: &[(OsString, OsString)]) {
        let set = environment.iter().filter(|(_, value)| !value.is_empty());
        for (name, value) in set.filter_map(|(name, value)| Some((name.to_str()?, value))) {
            if !name.starts_with("RHUB_") || name == "RHUB_CONFIG" {
                continue;
            }
            match KEYS.iter().position(|key| key.variable().as_deref() == Some(name)) {
                Some(index) => self.set(index, value.to_str(), name.to_owned(), Origin::Environment(name.to_owned())),
                // No error: an orchestrator sets RHUB_PORT and the like for a service of that name.
                None => self.warnings.push(format!("environment variable {name} sets nothing")),
            }
        }
    }

    fn flags(&mut self, flags: &[(String, String, String)]) {
        for (flag, path, value) in flags {
            match KEYS.iter().position(|key| key.path == path && key.kind != Kind::Rules) {
                Some(index) => self.set(index, Some(value), flag.clone(), Origin::Flag(flag.clone())),
                None => self.problems.push(Problem::of(flag, unknown(path))),
            }
        }
    }

    /// Sets a key to what a text stands for, which `place` gave.
    fn set(&mut self, index: usize, text: Option<&str>, place: String, origin: Origin) {
        let key = &KEYS[index];
        let Some(text) = text else {
            self.problems.push(Problem::of(place, "it is not UTF-8".into()));
            return;
        };
        let value = key.kind.read(text);
        match key.kind.refuses(&value) {
            None => {
                self.effective[index] = Effective { key, value: Some(value), origin };
                self.tables.extend(key.path.split_once('.').map(|(table, _)| table.to_owned()));
            }
            Some(expected) => self.problems.push(Problem::of(place, format!("{text:?} is not {expected}"))),
        }
    }

    fn defaults(&mut self, environment: &[(OsString, OsString)]) {
        // Our own structs of numbers and words can be written as TOML.
        let mut defaults = Table::try_from(Config::default()).unwrap_or_default();
        match default_data(environment).map(|path| path.display().to_string()) {
            Some(path) => drop(defaults.insert("data".into(), path.into())),
            None => drop(defaults.remove("data")),
        }
        if self.tables.iter().any(|table| table == "access") {
            defaults.insert("access".into(), Table::try_from(access::Settings::default()).unwrap_or_default().into());
        }
        for unset in self.effective.iter_mut().filter(|effective| effective.value.is_none()) {
            let mut path = unset.key.path.split('.');
            let first = path.next().and_then(|name| defaults.get(name));
            unset.value = path.try_fold(first, |value, name| Some(value?.get(name))).flatten().cloned();
        }
    }

    /// What is right by itself and wrong together.
    fn check_tables(&mut self) {
        let is_set = |path: &str| self.effective.iter().any(|set| set.key.path == path && set.value.is_some());
        let has_table = |name: &str| self.tables.iter().any(|table| table == name);
        let mut missing = Vec::new();
        let (certificate, key) = (is_set("tls.certificate"), is_set("tls.key"));
        if (certificate || key || has_table("tls")) && !(certificate && key) {
            let absent = if certificate { "tls.key" } else { "tls.certificate" };
            missing.push(Problem::of_key(absent, "it is missing; TLS needs a certificate and its key"));
        }
        if has_table("access") && !is_set("access.htpasswd") && self.rules().is_empty() {
            missing.push(Problem::of_key(
                "access",
                "there are neither users (access.htpasswd) nor [[access.rules]], so nobody could do anything; leave [access] out to let everybody do everything",
            ));
        }
        if !is_set("data") {
            missing.push(Problem::of_key("data", "neither XDG_DATA_HOME nor HOME is set; say where with --data DIR"));
        }
        self.problems.append(&mut missing);
    }

    fn rules(&self) -> &[Value] {
        let rules = self.effective.iter().find(|set| set.key.kind == Kind::Rules);
        rules.and_then(|set| set.value.as_ref()?.as_array()).map_or(&[], Vec::as_slice)
    }

    fn finish(mut self) -> Result<Loaded, Problems> {
        if self.problems.is_empty() {
            let mut merged = Table::new();
            for Effective { key, value, .. } in &self.effective {
                let Some(value) = value.clone() else { continue };
                match key.path.split_once('.') {
                    None => drop(merged.insert(key.path.to_owned(), value)),
                    Some((table, name)) => {
                        let table = merged.entry(table).or_insert_with(|| Table::new().into());
                        table.as_table_mut().map(|table| table.insert(name.to_owned(), value));
                    }
                }
            }
            match Config::deserialize(merged) {
                Ok(config) => {
                    let Self { effective, path: file, warnings, .. } = self;
                    return Ok(Loaded { config, effective, file, warnings });
                }
                Err(e) => self.problems.push(Problem::of("configuration", e.message().to_owned())),
            }
        }
        Err(Problems(self.problems))
    }
}

fn read(path: &Path) -> Result<String, Problem> {
    let at = |why: String| Problem::of(path.display().to_string(), why);
    let bytes = longshore_runtime::files::read_bounded(path, FILE_LIMIT_BYTES)
        .map_err(|e| Problem::of("configuration file", format!("{e}; name the right one with --config FILE")))?;
    String::from_utf8(bytes).map_err(|e| at(format!("it is not UTF-8 at byte {}", e.utf8_error().valid_up_to())))
}

/// A path of the file, from the directory the file is in.
fn join(file: &Path, path: &str) -> Result<Value, String> {
    let joined = file.parent().unwrap_or(Path::new("")).join(path);
    let joined = joined.into_os_string().into_string();
    joined.map(Value::String).map_err(|_| "the path of the configuration file is not UTF-8".into())
}

fn unknown(path: &str) -> String {
    match nearest(path) {
        Some(known) => format!("{path}: there is no such key; did you mean {known}?"),
        None => format!("{path}: there is no such key"),
    }
}

fn variable<'a>(environment: &'a [(OsString, OsString)], name: &str) -> Option<&'a OsString> {
    environment.iter().find(|(key, value)| key == name && !value.is_empty()).map(|(_, value)| value)
}

/// `$XDG_DATA_HOME/rhub`, or `~/.local/share/rhub`.
fn default_data(environment: &[(OsString, OsString)]) -> Option<PathBuf> {
    let absolute = |name| variable(environment, name).map(PathBuf::from).filter(|path| path.is_absolute());
    let base = absolute("XDG_DATA_HOME").or_else(|| Some(absolute("HOME")?.join(".local/share")));
    base.map(|base| base.join("rhub"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Loads a file of this text, over an environment and under flags.
    fn loaded(
        text: &str,
        environment: &[(&str, &str)],
        flags: &[(&str, &str, &str)],
    ) -> (tempfile::TempDir, Result<Loaded, Vec<String>>) {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config.toml");
        std::fs::write(&file, text).unwrap();
        let mut environment: Vec<_> = environment.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        environment.push(("HOME".into(), "/home/somebody".into()));
        let flags = flags.iter().map(|(flag, key, value)| ((*flag).into(), (*key).into(), (*value).into())).collect();
        let loaded = load(&Sources { file: Some(file), environment, flags });
        let prefix = format!("{}/config.toml:", dir.path().display());
        let lines = |problems: Problems| problems.0.iter().map(|one| one.to_string().replace(&prefix, "")).collect();
        (dir, loaded.map_err(lines))
    }

    fn problems(text: &str, environment: &[(&str, &str)], flags: &[(&str, &str, &str)]) -> Vec<String> {
        loaded(text, environment, flags).1.map(|loaded| loaded.config).expect_err(text)
    }

    #[test]
    fn flag_over_environment_over_file_over_default() {
        let text = "[limits]\nuploads = 1\nstreams = 1\nrequests = 1\n";
        let environment = [("RHUB_LIMITS_STREAMS", "2"), ("RHUB_LIMITS_REQUESTS", "2"), ("RHUB_LIMITS_UPLOADS", "")];
        let (_dir, loaded) = loaded(text, &environment, &[("--set", "limits.requests", "3")]);
        let loaded = loaded.unwrap();
        let limits = &loaded.config.limits;
        assert_eq!((limits.uploads, limits.streams, limits.requests), (1, 2, 3));
        assert_eq!(limits.connections, crate::limits::Limits::default().connections);
        let origin = |path| loaded.effective.iter().find(|set| set.key.path == path).unwrap().origin.clone();
        assert!(matches!(origin("limits.uploads"), Origin::File(_)));
        assert_eq!(origin("limits.streams"), Origin::Environment("RHUB_LIMITS_STREAMS".into()));
        assert_eq!(origin("limits.requests"), Origin::Flag("--set".into()));
        assert_eq!(origin("limits.connections"), Origin::Default);
        assert_eq!(loaded.config.data, Path::new("/home/somebody/.local/share/rhub"));
    }

    #[test]
    fn everything_wrong_is_said_at_once_with_its_place() {
        let text = "lisen = \"x\"\ninsecure = 1\n\n[limits]\nmanifest_bytes = 0\n  page_entries = 10001\n[tls]\nkey = \"k\"\n\
                    [log]\nformat = \"xml\"\n[[access.rules]]\nwho = [\"anonymous\"]\nrepos = []\nallow = []\n";
        let found =
            problems(text, &[("RHUB_LIMITS_STREAMS", "many")], &[("--listen", "listen", "here"), ("--set", "gc.grace", "1")]);
        let expected = [
            "2:12: insecure: 1 is not true or false",
            "5:18: limits.manifest_bytes: 0 is not a whole number from 1 to 67108864",
            "6:18: limits.page_entries: 10001 is not a whole number from 1 to 10000",
            "1:1: lisen: there is no such key; did you mean listen?",
            "10:10: log.format: \"xml\" is not one of \"text\", \"json\"",
            "RHUB_LIMITS_STREAMS: \"many\" is not a whole number from 1 to 10000",
            "--listen: \"here\" is not an IP address and a port",
            "--set: gc.grace: there is no such key; did you mean gc.grace_s?",
            "tls.certificate: it is missing",
            "13:1: access.rules: unknown field `repos`",
        ];
        for line in expected {
            assert!(found.iter().any(|problem| problem.starts_with(line)), "{line} is not in {found:#?}");
        }
    }

    #[test]
    fn broken_toml_is_said_with_its_place() {
        assert!(problems("listen = \n", &[], &[])[0].starts_with("1:10: "));
        assert!(problems("[log]\nlevel = \"info\"\nlevel = \"warn\"", &[], &[])[0].starts_with("3:1: duplicate key"));
        assert!(problems("log = { format = \"äöü\" ? }", &[], &[])[0].starts_with("1:24: "));
    }

    #[test]
    fn paths_in_the_file_are_relative_to_it_and_others_are_not() {
        let text = "data = \"/srv\"\n[tls]\ncertificate = \"a.crt\"\nkey = \"../a.key\"\n[access]\nhtpasswd = \"users\"";
        let (dir, loaded) = loaded(text, &[("RHUB_TLS_KEY", "b.key")], &[]);
        let config = loaded.unwrap().config;
        let tls = config.tls.unwrap();
        assert_eq!((config.data, tls.certificate, tls.key), ("/srv".into(), dir.path().join("a.crt"), "b.key".into()));
        assert_eq!(config.access.unwrap().htpasswd, Some(dir.path().join("users")));
    }

    #[test]
    fn an_empty_table_does_not_mean_none() {
        assert!(problems("[access]", &[], &[])[0].contains("nobody could do anything"));
        assert!(problems("", &[("RHUB_ACCESS_TOKEN_LIFETIME_S", "60")], &[])[0].contains("nobody could do anything"));
        assert!(problems("access = {}", &[], &[])[0].contains("nobody could do anything"));
        assert!(problems("[[access]]", &[], &[])[0].contains("expected a table"));
        assert!(problems("[access]\nrules = []", &[], &[])[0].contains("nobody could do anything"));
        assert!(problems("[tls]", &[], &[])[0].starts_with("tls.certificate"));
    }

    #[test]
    fn a_file_that_was_named_must_be_there() {
        let named = Sources { file: Some("/nowhere/config.toml".into()), ..Sources::default() };
        assert!(load(&named).unwrap_err().to_string().contains("/nowhere/config.toml"));
        let by_variable = Sources { environment: vec![("RHUB_CONFIG".into(), "/nowhere/x".into())], ..Sources::default() };
        assert!(load(&by_variable).unwrap_err().to_string().contains("/nowhere/x"));
    }

    #[test]
    fn a_variable_that_sets_nothing_is_a_warning() {
        let (_dir, loaded) = loaded("", &[("RHUB_PORT", "tcp://10.0.0.1:5000"), ("RHUB_LIMITS_UPLOAD", "1")], &[]);
        let warnings = loaded.unwrap().warnings;
        assert!(warnings.len() == 2 && warnings[1].contains("RHUB_LIMITS_UPLOAD"), "{warnings:?}");
    }
}
