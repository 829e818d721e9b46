//! Proving who asks: Basic, and Bearer tokens (distribution-spec, "Authentication").
//!
//! A challenge once answered is remembered: later requests come with what it demands.

use std::collections::HashMap;
use std::sync::{Mutex, OnceLock, PoisonError};

use super::challenge::Challenge;
use super::http::Pool;
use super::scope::{Action, Scopes};
use super::token::{Registry, Wanted};
use crate::config::{Endpoint, Keeper, Place};
use crate::credentials::{self, Credentials, Found};
use crate::error::{Error, Result};

/// A registry's authentication for one repository.
#[derive(Debug)]
pub(super) struct Auth {
    registry: String,
    endpoint: Endpoint,
    repository: String,
    keeper: Option<Keeper>,
    token_server: Option<String>,
    credentials: OnceLock<Option<Found>>,
    demand: Mutex<Demand>,
}

/// What was demanded before.
#[derive(Debug, Default)]
struct Demand {
    challenge: Option<Challenge>,
    /// What challenges asked for besides, by what the request needs.
    scopes: HashMap<Scopes, Scopes>,
}

impl Auth {
    /// For an image at a host.
    pub(super) fn new(place: &Place, endpoint: Endpoint) -> Self {
        let (registry, keeper) = place.account();
        Self {
            registry: registry.into(),
            endpoint,
            repository: place.image.repository().as_str().into(),
            keeper: keeper.cloned(),
            token_server: place.token_server.clone(),
            credentials: OnceLock::new(),
            demand: Mutex::default(),
        }
    }

    /// With these credentials, whatever is kept.
    pub(super) fn with_credentials(place: &Place, endpoint: Endpoint, credentials: Credentials) -> Self {
        let mut auth = Self::new(place, endpoint);
        auth.use_credentials(credentials);
        auth
    }

    /// These credentials are shown, whatever is kept.
    pub(super) fn use_credentials(&mut self, credentials: Credentials) {
        self.credentials = OnceLock::from(Some(Found { credentials, from: "the command line".into() }));
    }

    fn demand(&self) -> std::sync::MutexGuard<'_, Demand> {
        self.demand.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The `Authorization` value for this action, as far as it is known that one is demanded.
    pub(super) fn header(&self, pool: &Pool, action: Action<'_>) -> Result<Option<String>> {
        let own = Scopes::of(action, &self.repository);
        let (challenge, scopes) = {
            let demand = self.demand();
            (demand.challenge.clone(), demand.scopes.get(&own).cloned().unwrap_or(own))
        };
        match challenge {
            Some(Challenge::Bearer { realm, service, .. }) => {
                let token = self.registry(pool).token(&self.wanted(pool, realm, service, scopes)?);
                let token = token.map_err(|failure| self.explained(pool, failure, action))?;
                Ok(Some(format!("Bearer {token}")))
            }
            Some(Challenge::Basic) => Ok(self.credentials()?.and_then(|found| found.credentials.basic())),
            None => Ok(None),
        }
    }

    /// Takes the challenges of a 401 to a request that had `sent` as its `Authorization`; `false` when there is
    /// nothing else to offer.
    pub(super) fn answer(&self, pool: &Pool, challenges: &[String], action: Action<'_>, sent: Option<&str>) -> Result<bool> {
        let Some(challenge) = Challenge::choose(challenges) else { return Ok(false) };
        let own = Scopes::of(action, &self.repository);
        let mut scopes = own.clone();
        if let Challenge::Bearer { realm, service, scope } = &challenge {
            scopes.add(scope.as_deref().unwrap_or_default());
            if let Some(sent) = sent.and_then(|sent| sent.strip_prefix("Bearer ")) {
                self.wanted(pool, realm.clone(), service.clone(), scopes.clone())?.forget(sent);
            }
        }
        {
            let mut demand = self.demand();
            demand.challenge = Some(challenge);
            demand.scopes.insert(own, scopes);
        }
        let value = self.header(pool, action)?;
        Ok(value.is_some() && value.as_deref() != sent)
    }

    fn registry<'a>(&'a self, pool: &'a Pool) -> Registry<'a> {
        Registry { name: &self.registry, endpoint: &self.endpoint, pool, token_server: self.token_server.as_deref() }
    }

    fn wanted(&self, pool: &Pool, realm: String, service: Option<String>, scopes: Scopes) -> Result<Wanted> {
        let trusted = self.registry(pool).trusts(&realm)?;
        let credentials = if trusted { self.credentials()?.map(|found| found.credentials) } else { None };
        Ok(Wanted { realm, service, scopes, credentials })
    }

    fn credentials(&self) -> Result<Option<Found>> {
        if let Some(known) = self.credentials.get() {
            return Ok(known.clone());
        }
        let found = credentials::look_up(&self.registry, &self.repository, self.keeper.as_ref())?;
        Ok(self.credentials.get_or_init(|| found).clone())
    }

    /// A token server's refusal, and what it is about.
    fn explained(&self, pool: &Pool, mut failure: Error, action: Action<'_>) -> Error {
        if let Error::Refused { answer, .. } = &mut failure {
            answer.hint = self.explain(pool, answer.status, action).map(Into::into);
        }
        failure
    }

    /// What a refusal is about: whose credentials were shown, for what, and what helps.
    pub(super) fn explain(&self, pool: &Pool, status: u16, action: Action<'_>) -> Option<String> {
        let registry = &self.registry;
        let (scope, stranger) = match self.demand().challenge.clone() {
            Some(Challenge::Bearer { realm, .. }) => {
                let is_stranger = self.registry(pool).trusts(&realm).is_ok_and(|trusted| !trusted);
                let scopes = Scopes::of(action, &self.repository).to_string();
                let scope = if scopes.is_empty() { scopes } else { format!(" for {scopes}") };
                (scope, is_stranger.then_some(realm))
            }
            _ => (String::new(), None),
        };
        // Nobody has looked for them if they were not to be shown.
        let found =
            if stranger.is_some() { self.credentials().ok().flatten() } else { self.credentials.get().cloned().flatten() };
        match (status, found.map(|found| found.from), stranger) {
            (401 | 403, Some(from), Some(realm)) => Some(format!(
                "the credentials of {from} were not shown to its token server {realm}, which is of another domain: token-server = \"HOST\" \
                 for {registry} in registries.toml allows that"
            )),
            (401, Some(from), None) => {
                Some(format!("it does not take the credentials of {from}{scope}: `rbox login {registry}` replaces them"))
            }
            (401, None, _) => {
                Some(format!("it wants credentials{scope}, and there are none: `rbox login {registry}` keeps them"))
            }
            (403, Some(from), None) => Some(format!("access is denied to the credentials of {from}{scope}")),
            (403, None, _) if !scope.is_empty() => {
                Some(format!("access is denied without credentials{scope}: `rbox login {registry}` keeps some"))
            }
            _ => None,
        }
    }
}
