//! What a token is asked for: `TYPE:NAME:ACTION,ACTION`, several, each resource once (docker's token specification).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use longshore_runtime::name::RepoName;

/// What a request is about to do in a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action<'a> {
    Pull,
    Push,
    /// To push what is in another repository of the registry.
    Mount(&'a RepoName),
    Delete,
    /// To list the repositories of the whole registry.
    Catalog,
    /// Nothing but to show who asks.
    LogIn,
}

/// Scopes of one token.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct Scopes(BTreeMap<(String, String), BTreeSet<String>>);

impl Scopes {
    /// What an action in a repository takes.
    pub(super) fn of(action: Action<'_>, repository: &str) -> Self {
        let mut scopes = Self::default();
        match action {
            Action::Pull => scopes.grant(repository, &["pull"]),
            Action::Delete => scopes.grant(repository, &["pull", "delete"]),
            Action::Catalog => scopes.add("registry:catalog:*"),
            Action::Push => scopes.grant(repository, &["pull", "push"]),
            Action::Mount(from) => {
                scopes.grant(repository, &["pull", "push"]);
                scopes.grant(from.as_str(), &["pull"]);
            }
            Action::LogIn => {}
        }
        scopes
    }

    fn grant(&mut self, repository: &str, actions: &[&str]) {
        let granted = self.0.entry(("repository".into(), repository.into())).or_default();
        granted.extend(actions.iter().map(|&action| action.to_owned()));
    }

    /// Adds those of a challenge. What is no scope is passed over.
    pub(super) fn add(&mut self, text: &str) {
        for scope in text.split_whitespace() {
            // The name may have a host with a port in it.
            let Some(((kind, name), actions)) =
                scope.rsplit_once(':').and_then(|(resource, actions)| Some((resource.split_once(':')?, actions)))
            else {
                continue;
            };
            let granted = self.0.entry((kind.into(), name.into())).or_default();
            granted.extend(actions.split(',').filter(|action| !action.is_empty()).map(str::to_owned));
        }
    }

    /// Each of them as text.
    pub(super) fn texts(&self) -> impl Iterator<Item = String> {
        self.0.iter().map(|((kind, name), actions)| {
            let actions: Vec<&str> = actions.iter().map(String::as_str).collect();
            format!("{kind}:{name}:{}", actions.join(","))
        })
    }
}

impl fmt::Display for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.texts().collect::<Vec<_>>().join(" "))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn scopes_are_merged_and_each_resource_is_there_once() {
        let from: RepoName = "base".parse().unwrap();
        let mut scopes = Scopes::of(Action::Mount(&from), "team/app");
        assert_eq!(scopes.to_string(), "repository:base:pull repository:team/app:pull,push");
        scopes.add("repository:team/app:push,pull repository:base:pull,delete registry:catalog:*");
        assert_eq!(scopes.to_string(), "registry:catalog:* repository:base:delete,pull repository:team/app:pull,push");
        let mut scopes = Scopes::of(Action::LogIn, "");
        scopes.add("aws nonsense repository:host:5000/a:pull");
        assert_eq!(scopes.to_string(), "repository:host:5000/a:pull");
    }

    proptest! {
        #[test]
        fn adding_never_panics_and_what_is_shown_is_read_again(text in "[a-z:, é]{0,40}") {
            let mut scopes = Scopes::default();
            scopes.add(&text);
            let mut again = Scopes::default();
            again.add(&scopes.to_string());
            prop_assert_eq!(again, scopes);
        }
    }
}
