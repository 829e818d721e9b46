//! `registries.conf` of podman, buildah and skopeo, and its directory of additions (containers-registries.conf.5).
//!
//! Unknown keys are passed over, as those programs do. Not taken from it: `unqualified-search-registries` and
//! `short-name-mode`, for a name without a host means what docker means by it, or an alias; and
//! `credential-helpers`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::paths::{bad, config_home, etc, names_in, read_text, set};
use super::rule::{Capabilities, Connection, Mirror, Rule, Scheme, When, is_location, is_prefix};
use super::spelling::one_spelling;
use crate::error::Result;

/// Files in a directory of additions.
const ADDITIONS_LIMIT: usize = 256;

/// What all files together say.
#[derive(Debug, Default)]
pub(super) struct RegistriesConf {
    pub(super) rules: Vec<Rule>,
    /// Full names by short ones.
    pub(super) aliases: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Document {
    #[serde(default, rename = "registry")]
    tables: Vec<Table>,
    #[serde(default)]
    aliases: BTreeMap<String, String>,
    /// Only version 1 has it.
    registries: Option<toml::Table>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct Table {
    prefix: String,
    location: String,
    insecure: bool,
    blocked: bool,
    mirror_by_digest_only: bool,
    #[serde(rename = "mirror")]
    mirrors: Vec<MirrorTable>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct MirrorTable {
    location: String,
    insecure: bool,
    pull_from_mirror: String,
}

impl RegistriesConf {
    /// Reads all files that those programs would.
    pub(super) fn load() -> Result<Self> {
        let mut all = Self::default();
        for path in files()? {
            all.add(&path, &read_text(&path)?)?;
        }
        Ok(all)
    }

    /// Adds what a file says. A later table of the same prefix replaces the earlier one, and so does an alias.
    pub(super) fn add(&mut self, path: &Path, text: &str) -> Result<()> {
        let document: Document = toml::from_str(text).map_err(|e| bad(path, e))?;
        if document.registries.is_some() {
            return Err(bad(path, "[registries...] is version 1 of this format: write [[registry]] tables, those of version 2"));
        }
        for table in document.tables {
            let rule = table.rule(path).map_err(|why| bad(path, why))?;
            self.rules.retain(|earlier| earlier.prefix != rule.prefix);
            self.rules.push(rule);
        }
        for (short, full) in document.aliases {
            if !full.is_empty() && !is_prefix(&full) {
                return Err(bad(path, format_args!("[aliases] {short:?}: {full:?} must read HOST[:PORT]/NAME")));
            }
            // Nothing takes back an alias of an earlier file.
            self.aliases.insert(short, full);
        }
        Ok(())
    }
}

impl Table {
    /// The table as a rule, or the key that is wrong and why.
    fn rule(self, path: &Path) -> Result<Rule, String> {
        let prefix = if self.prefix.is_empty() { self.location.clone() } else { self.prefix };
        if prefix.is_empty() {
            return Err("[[registry]] has neither prefix nor location".into());
        }
        let of = |key: &str, why: &str| format!("[[registry]] {prefix:?}: {key}: {why}");
        if !is_prefix(&prefix) {
            return Err(of(
                "prefix",
                "it must read HOST[:PORT][/PATH] or *.DOMAIN, where a host has a dot, a port, or is localhost",
            ));
        }
        let stays = self.location.is_empty() || self.location == prefix;
        if !stays && !is_location(&self.location) {
            return Err(of("location", &format!("{:?} must read HOST[:PORT][/PATH]", self.location)));
        }
        let mut mirrors = Vec::new();
        for mirror in self.mirrors {
            if !is_location(&mirror.location) {
                return Err(of("mirror.location", &format!("{:?} must read HOST[:PORT][/PATH]", mirror.location)));
            }
            let when = match (mirror.pull_from_mirror.as_str(), self.mirror_by_digest_only) {
                ("" | "all", false) => When::All,
                ("digest-only", false) | ("", true) => When::ByDigest,
                ("tag-only", false) => When::ByTag,
                (_, true) => return Err(of("pull-from-mirror", "mirror-by-digest-only says it already for all mirrors")),
                (other, _) => {
                    return Err(of("pull-from-mirror", &format!("{other:?} is not one of all, digest-only, tag-only")));
                }
            };
            let may = Capabilities { pull: true, resolve: true, push: false };
            mirrors.push(Mirror { location: mirror.location, connection: connection(mirror.insecure), may, when });
        }
        let location = (!stays).then_some(self.location);
        Ok(Rule {
            location,
            connection: connection(self.insecure),
            mirrors,
            blocked: self.blocked,
            path: path.to_owned(),
            prefix: one_spelling(&prefix),
        })
    }
}

fn connection(insecure: bool) -> Connection {
    Connection { scheme: insecure.then_some(Scheme::Either), unverified: insecure, ..Connection::default() }
}

/// The files there are, in the order in which they are read: the user's instead of the machine's, then the additions.
fn files() -> Result<Vec<PathBuf>> {
    let (machine, user) = (etc().join("containers"), config_home().map(|home| home.join("containers")));
    let users_own = user.as_ref().map(|directory| directory.join("registries.conf")).filter(|path| path.exists());
    let usual = users_own.or_else(|| Some(machine.join("registries.conf")).filter(|path| path.exists()));
    let main = set("CONTAINERS_REGISTRIES_CONF").or(usual);
    let directories = match set("CONTAINERS_REGISTRIES_CONF_DIR") {
        Some(directory) => vec![directory],
        None => [Some(machine), user].into_iter().flatten().map(|directory| directory.join("registries.conf.d")).collect(),
    };
    let mut files: Vec<PathBuf> = main.into_iter().collect();
    for directory in directories {
        let names = names_in(&directory, ADDITIONS_LIMIT)?;
        files.extend(names.iter().filter(|name| name.ends_with(".conf")).map(|name| directory.join(name)));
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(texts: &[&str]) -> Result<RegistriesConf> {
        let mut all = RegistriesConf::default();
        texts.iter().try_for_each(|text| all.add(Path::new("/x.conf"), text)).map(|()| all)
    }

    #[test]
    fn the_manual_pages_example_is_read() {
        let text = r#"
            unqualified-search-registries = ["example.com"]
            short-name-mode = "enforcing"
            [[registry]]
            prefix = "example.com/foo"
            insecure = false
            blocked = false
            location = "internal-registry-for-example.com/bar"
            [[registry.mirror]]
            location = "example-mirror-0.local/mirror-for-foo"
            [[registry.mirror]]
            location = "example-mirror-1.local/mirrors/foo"
            insecure = true
            pull-from-mirror = "digest-only"
            [[registry]]
            location = "registry.com"
            mirror-by-digest-only = true
            [[registry.mirror]]
            location = "mirror.registry.com"
            [[registry]]
            prefix = "*.blocked.example"
            blocked = true
        "#;
        let conf = parse(&[text]).unwrap();
        let [foo, registry, blocked] = &conf.rules[..] else { panic!("{conf:?}") };
        assert_eq!(foo.location.as_deref(), Some("internal-registry-for-example.com/bar"));
        assert_eq!(foo.mirrors[0].connection.scheme, None);
        assert_eq!(foo.mirrors[1].connection.scheme, Some(Scheme::Either));
        assert_eq!((foo.mirrors[0].when, foo.mirrors[1].when), (When::All, When::ByDigest));
        assert_eq!((registry.prefix.as_str(), &registry.location), ("registry.com", &None));
        assert_eq!(registry.mirrors[0].when, When::ByDigest);
        assert_eq!((blocked.blocked, blocked.prefix.as_str()), (true, "*.blocked.example"));
    }

    #[test]
    fn later_files_overrule_earlier_ones() {
        let first = "[[registry]]\nlocation = \"a.x\"\ninsecure = true\n[aliases]\na = \"q.x/a\"\nb = \"q.x/b\"";
        let second = "[[registry]]\nlocation = \"a.x\"\n[aliases]\na = \"\"\nb = \"r.x/b\"";
        let conf = parse(&[first, second]).unwrap();
        assert_eq!((conf.rules.len(), conf.rules[0].connection.scheme), (1, None));
        assert_eq!((conf.aliases["a"].as_str(), conf.aliases["b"].as_str()), ("", "r.x/b"));
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for (text, key) in [
            ("[[registry]]\ninsecure = true", "neither prefix nor location"),
            ("[[registry]]\nprefix = \"example.*.com\"", "prefix"),
            ("[[registry]]\nprefix = \"*.example.com/foo\"", "prefix"),
            ("[[registry]]\nprefix = \"r.x\"\nlocation = \"https://r.x\"", "location"),
            ("[[registry]]\nlocation = \"r.x\"\n[[registry.mirror]]\nlocation = \"\"", "mirror.location"),
            (
                "[[registry]]\nlocation = \"r.x\"\n[[registry.mirror]]\nlocation = \"m.x\"\npull-from-mirror = \"x\"",
                "pull-from-mirror",
            ),
            ("[[registry]]\nlocation = \"r.x\"\ninsecure = 1", "insecure"),
            ("[registries.search]\nregistries = []", "version 1"),
            ("[aliases]\na = \"b\"", "[aliases] \"a\""),
        ] {
            let said = parse(&[text]).unwrap_err().to_string();
            assert!(said.starts_with("/x.conf: ") && said.contains(key), "{text}: {said}");
        }
    }

    proptest! {
        #[test]
        fn reading_never_panics(text in "\\PC{0,60}", key in "[a-z-]{0,20}", value in "[\\PC\"\\[{}=,]{0,30}") {
            for text in [text, format!("[[registry]]\nlocation = \"r.x\"\n{key} = {value}"), format!("[aliases]\n{key} = {value}")] {
                let _ = parse(&[&text]);
            }
        }
    }
}
