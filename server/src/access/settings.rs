//! `[access]` of the configuration, as it is written.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Users, rules, and how tokens are made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Users and their passwords' bcrypt hashes.
    pub htpasswd: Option<PathBuf>,
    /// For how long a token is good.
    pub token_lifetime_s: u64,
    /// What is allowed; rules add up.
    pub rules: Vec<Rule>,
    /// The URL clients reach this registry by, where that is not what their requests say.
    pub public_url: Option<String>,
}

/// One thing that is allowed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// `anonymous` (which is everybody), `authenticated`, `user:NAME`.
    pub who: Vec<String>,
    /// Patterns of repository names.
    #[serde(default)]
    pub repositories: Vec<String>,
    /// `pull`, `create`, `overwrite`, `push` (create and overwrite), `delete`, `metrics`.
    pub allow: Vec<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self { htpasswd: None, token_lifetime_s: 300, rules: Vec::new(), public_url: None }
    }
}

impl Settings {
    /// Whether somebody has decided who may do what: there are users, or what is open to everybody
    /// is said.
    pub fn decides(&self) -> bool {
        self.htpasswd.is_some() || self.rules.iter().any(|rule| rule.who.iter().any(|who| who == "anonymous"))
    }
}
