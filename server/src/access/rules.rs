//! Who may do what: rules that each allow something, and add up. What none allows is refused.

use std::sync::Arc;

use super::glob::Pattern;
use super::htpasswd::check_user_name;
use super::settings::{self, Settings};
use crate::error::Result;
use crate::limits::ACCESS_RULES_LIMIT;

/// What can be allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Read what is in a repository.
    Pull,
    /// Put into a repository what is not there yet.
    Create,
    /// Move a tag to another manifest. Of no use without [`Self::Create`].
    Overwrite,
    /// Take out of a repository.
    Delete,
    /// Read the server's metrics; belongs to no repository.
    Metrics,
}

/// A set of actions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Actions(u8);

impl Actions {
    const ALL: Self = Self::of(&[Action::Pull, Action::Create, Action::Overwrite, Action::Delete, Action::Metrics]);

    const fn of(actions: &[Action]) -> Self {
        let (mut set, mut at) = (0, 0);
        while at < actions.len() {
            set |= 1 << actions[at] as u8;
            at += 1;
        }
        Self(set)
    }

    fn parse(word: &str) -> Option<Self> {
        Some(match word {
            "pull" => Self::of(&[Action::Pull]),
            "create" => Self::of(&[Action::Create]),
            "overwrite" => Self::of(&[Action::Overwrite]),
            "push" => Self::of(&[Action::Create, Action::Overwrite]),
            "delete" => Self::of(&[Action::Delete]),
            "metrics" => Self::of(&[Action::Metrics]),
            _ => return None,
        })
    }

    fn has(self, action: Action) -> bool {
        self.0 & Self::of(&[action]).0 != 0
    }
}

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Identity {
    /// Nobody said who they are.
    Anonymous,
    /// A user of the htpasswd file.
    User(Arc<str>),
}

/// Whom a rule is for.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Who {
    /// Everybody: whoever is logged in could as well not be.
    Anonymous,
    Authenticated,
    User(Box<str>),
}

impl Identity {
    /// Whether a rule for `who` is one for this identity: the one place that knows what an identity
    /// counts as.
    fn is(&self, who: &Who) -> bool {
        match (who, self) {
            (Who::Anonymous, _) | (Who::Authenticated, Self::User(_)) => true,
            (Who::User(named), Self::User(name)) => **named == **name,
            (Who::Authenticated | Who::User(_), Self::Anonymous) => false,
        }
    }

    /// The user's name; empty for nobody.
    pub fn name(&self) -> &str {
        match self {
            Self::Anonymous => "",
            Self::User(name) => name,
        }
    }
}

/// All rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rules(Vec<Rule>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Rule {
    who: Vec<Who>,
    repositories: Vec<Pattern>,
    allow: Actions,
}

impl Rules {
    /// The rules of the settings. Users without rules may do everything, and nobody else anything.
    ///
    /// # Errors
    /// The first rule that makes no sense, by its number.
    pub(super) fn new(settings: &Settings) -> Result<Self> {
        let users = settings.htpasswd.is_some();
        if settings.rules.is_empty() {
            if !users {
                return Err(invalid("access", "it has neither htpasswd nor rules: nobody could do anything"));
            }
            let everything = vec![Pattern::everything()];
            return Ok(Self(vec![Rule { who: vec![Who::Authenticated], repositories: everything, allow: Actions::ALL }]));
        }
        if settings.rules.len() > ACCESS_RULES_LIMIT {
            return Err(invalid("access.rules", format_args!("there are more than {ACCESS_RULES_LIMIT}")));
        }
        let numbered = settings.rules.iter().enumerate();
        let parsed = numbered.map(|(at, rule)| {
            Rule::new(rule, users).map_err(|why| invalid(format_args!("rule {} of access.rules", at + 1), why))
        });
        parsed.collect::<Result<_>>().map(Self)
    }

    /// Whether an identity may do something in a repository of this name.
    pub(super) fn allow(&self, identity: &Identity, action: Action, repository: &str) -> bool {
        self.of(identity, action).any(|rule| rule.repositories.iter().any(|pattern| pattern.matches(repository)))
    }

    /// Whether there may be a repository in which an identity may do something.
    pub(super) fn allow_somewhere(&self, identity: &Identity, action: Action) -> bool {
        self.of(identity, action).next().is_some()
    }

    fn of(&self, identity: &Identity, action: Action) -> impl Iterator<Item = &Rule> {
        self.0.iter().filter(move |rule| rule.allow.has(action) && rule.who.iter().any(|who| identity.is(who)))
    }
}

impl Rule {
    fn new(rule: &settings::Rule, users: bool) -> std::result::Result<Self, String> {
        let who = rule.who.iter().map(|text| parse_who(text, users)).collect::<std::result::Result<Vec<_>, _>>()?;
        let repositories = rule.repositories.iter().map(|text| text.parse::<Pattern>().map_err(|e| e.to_string()));
        let repositories = repositories.collect::<std::result::Result<Vec<_>, _>>()?;
        let mut allow = Actions::default();
        for word in &rule.allow {
            allow.0 |= Actions::parse(word)
                .ok_or_else(|| format!("allow = {word:?} is none of pull, create, overwrite, push, delete, metrics"))?
                .0;
        }
        if who.is_empty() || allow == Actions::default() {
            return Err("who and allow must each name something".into());
        }
        if repositories.is_empty() && allow != Actions::of(&[Action::Metrics]) {
            return Err("it says no repositories; \"**\" is all of them".into());
        }
        Ok(Self { who, repositories, allow })
    }
}

fn parse_who(text: &str, users: bool) -> std::result::Result<Who, String> {
    let who = match text.split_once(':') {
        None if text == "anonymous" => return Ok(Who::Anonymous),
        None if text == "authenticated" => Who::Authenticated,
        Some(("user", name)) => {
            check_user_name(name).map_err(|why| format!("who = {text:?}: {why}"))?;
            Who::User(name.into())
        }
        _ => return Err(format!("who = {text:?} is none of anonymous, authenticated, user:NAME")),
    };
    if users { Ok(who) } else { Err(format!("who = {text:?} can be nobody: access.htpasswd is not set")) }
}

fn invalid(what: impl std::fmt::Display, why: impl std::fmt::Display) -> crate::Error {
    longshore_runtime::Error::invalid(what, why).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(text: &str) -> Result<Rules> {
        #[derive(serde::Deserialize)]
        struct File {
            access: Settings,
        }
        Rules::new(&toml::from_str::<File>(text).unwrap().access)
    }

    fn user(name: &str) -> Identity {
        Identity::User(name.into())
    }

    const ALL: [Action; 5] = [Action::Pull, Action::Create, Action::Overwrite, Action::Delete, Action::Metrics];

    #[test]
    fn users_without_rules_may_do_everything_and_nobody_else_anything() {
        let rules = rules("[access]\nhtpasswd = \"h\"").unwrap();
        for action in ALL {
            assert!(rules.allow(&user("a"), action, "any/thing"));
            assert!(!rules.allow(&Identity::Anonymous, action, "any/thing"));
            assert!(!rules.allow_somewhere(&Identity::Anonymous, action));
        }
    }

    #[test]
    fn rules_add_up_and_what_none_allows_is_refused() {
        let rules = rules(
            "[access]\nhtpasswd = \"h\"\n\
             [[access.rules]]\nwho = [\"anonymous\"]\nrepositories = [\"public/**\"]\nallow = [\"pull\"]\n\
             [[access.rules]]\nwho = [\"authenticated\"]\nrepositories = [\"team/*\"]\nallow = [\"create\"]\n\
             [[access.rules]]\nwho = [\"user:alice\", \"user:bob\"]\nrepositories = [\"team/*\", \"alice\"]\nallow = [\"push\", \"delete\"]\n\
             [[access.rules]]\nwho = [\"user:prometheus\"]\nallow = [\"metrics\"]\n",
        )
        .unwrap();
        let may = |identity: &Identity, repository: &str| -> Vec<Action> {
            ALL.into_iter().filter(|action| rules.allow(identity, *action, repository)).collect()
        };
        use Action::{Create, Delete, Overwrite, Pull};
        assert_eq!(may(&Identity::Anonymous, "public/a/b"), [Pull]);
        assert_eq!(may(&Identity::Anonymous, "team/a"), []);
        assert_eq!(may(&user("alice"), "public/a"), [Pull], "whoever is logged in could as well not be");
        assert_eq!(may(&user("carol"), "team/a"), [Create]);
        assert_eq!(may(&user("bob"), "team/a"), [Create, Overwrite, Delete]);
        assert_eq!(may(&user("bob"), "team/a/b"), []);
        assert_eq!(may(&user("alicea"), "alice"), []);
        assert!(rules.allow_somewhere(&user("prometheus"), Action::Metrics));
        assert!(!rules.allow_somewhere(&user("alice"), Action::Metrics));
    }

    #[test]
    fn cve_2026_4404_no_name_is_special() {
        let rules = rules(
            "[access]\nhtpasswd = \"h\"\n[[access.rules]]\nwho = [\"user:alice\"]\nrepositories = [\"**\"]\nallow = [\"push\"]",
        )
        .unwrap();
        for name in ["admin", "root", "authenticated", "anonymous", "user:alice", "alice ", "Alice", ""] {
            ALL.iter().for_each(|action| assert!(!rules.allow(&user(name), *action, "a"), "{name}"));
        }
    }

    #[test]
    fn a_rule_that_makes_no_sense_is_named() {
        for (text, said) in [
            ("", "nobody could do anything"),
            (
                "[[access.rules]]\nwho = [\"authenticated\"]\nrepositories = [\"a\"]\nallow = [\"pull\"]",
                "access.htpasswd is not set",
            ),
            (
                "[[access.rules]]\nwho = [\"anonymous\"]\nallow = [\"pull\"]",
                "rule 1 of access.rules is not usable: it says no repositories",
            ),
            ("[[access.rules]]\nwho = []\nrepositories = [\"a\"]\nallow = [\"pull\"]", "must each name something"),
            ("[[access.rules]]\nwho = [\"anonymous\"]\nrepositories = [\"a\"]\nallow = []", "must each name something"),
            ("[[access.rules]]\nwho = [\"anonymous\"]\nrepositories = [\"a\"]\nallow = [\"write\"]", "\"write\" is none of"),
            ("[[access.rules]]\nwho = [\"group:x\"]\nrepositories = [\"a\"]\nallow = [\"pull\"]", "\"group:x\" is none of"),
            ("htpasswd = \"h\"\n[[access.rules]]\nwho = [\"user:\"]\nrepositories = [\"a\"]\nallow = [\"pull\"]", "user:"),
            ("[[access.rules]]\nwho = [\"anonymous\"]\nrepositories = [\"A\"]\nallow = [\"pull\"]", "lowercase"),
        ] {
            let error = rules(&format!("[access]\n{text}")).expect_err(text).to_string();
            assert!(error.contains(said), "{error}");
        }
    }
}
