//! Who asks, and what they may do.
//!
//! [`Access`] turns a request into a [`Caller`], and whoever does something for a request asks the
//! caller first: [`Caller::require`], or [`Caller::may`] where a refusal has no answer of its own.
//! Without access control every caller may do everything, and nothing is computed.
//!
//! # Invariants
//! - **No existence oracle.** What a refusal says depends on who asks and for what name, never on
//!   what is stored: an anonymous caller gets a 401 with a challenge, a user a 403.
//! - **Rights are what they are now.** A token says what it was made for; the rules and the user's
//!   entry in the htpasswd file are asked each time it is used.
//! - **Secrets are compared in constant time and shown nowhere**: types that hold one have a `Debug`
//!   of their own.

mod credentials;
mod glob;
pub mod htpasswd;
mod key;
mod marker;
mod origin;
mod rules;
mod session;
mod settings;
mod token;

use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::request::Parts;
use longshore_runtime::name::RepoName;

use self::credentials::{Credentials, Login, Unreadable};
use self::htpasswd::{User, Users};
use self::key::Key;
use self::marker::Markers;
use self::origin::Origin;
use self::rules::Rules;
pub use self::rules::{Action, Identity};
pub use self::session::SessionName;
pub use self::settings::{Rule, Settings};
use self::token::{Grant, Resource, Signer, scope_word};
use crate::blob::UploadId;
use crate::error::{Error, Result};
use crate::limits::TOKEN_SCOPES_LIMIT;
use crate::serve::Peer;

const WRONG_LOGIN: &str = "the user name or the password is wrong";

/// Access control: who is who, and who may do what.
#[derive(Debug)]
pub struct Access {
    control: Option<Control>,
}

#[derive(Debug)]
struct Control {
    rules: Rules,
    markers: Markers,
    /// Without users everybody is anonymous: there is nothing to be asked for.
    logins: Option<Logins>,
}

/// Everything around users.
#[derive(Debug)]
struct Logins {
    users: Users,
    signer: Signer,
    /// Ties a token to its user's password: it carries a keyed hash of the password's hash.
    stamps: hmac::Key,
    sessions: hmac::Key,
    public_url: Option<String>,
}

/// Whoever a request is from.
#[derive(Debug)]
pub struct Caller<'a> {
    control: Option<&'a Control>,
    identity: Identity,
    /// The user as it was when the credentials were looked at.
    user: Option<Arc<User>>,
    /// What a token was made for; without a token, anything.
    grant: Option<Grant>,
}

/// An access token, and what its receiver is told of it.
#[derive(serde::Serialize)]
pub struct Issued {
    token: String,
    access_token: String,
    expires_in: u64,
}

impl Access {
    /// No access control: everybody may do everything.
    pub fn open() -> Self {
        Self { control: None }
    }

    /// Access control by these settings. `token_key` is where the signing key is, or will be.
    ///
    /// # Errors
    /// When a setting makes no sense, or the htpasswd file or the key cannot be used.
    pub fn new(settings: &Settings, token_key: &Path) -> Result<Self> {
        let (rules, users) = settings.read()?;
        let key = Key::open(token_key)?;
        let logins = users.map(|users| Logins {
            users,
            signer: Signer::new(key.derive("access token"), settings.token_lifetime_s),
            stamps: key.derive("password stamp"),
            sessions: key.derive("upload session"),
            public_url: settings.public_url.clone(),
        });
        let markers = Markers::new(key.derive_cipher("list marker")?);
        Ok(Self { control: Some(Control { rules, markers, logins }) })
    }

    /// Whether there is anybody to log in as, and so a token endpoint.
    pub fn has_users(&self) -> bool {
        self.logins().is_some()
    }

    /// Whoever a request is from.
    ///
    /// # Errors
    /// [`Error::Unauthorized`] when it has credentials, and they are wrong: never taken for anonymous.
    pub async fn caller(&self, parts: &Parts) -> Result<Caller<'_>> {
        let Some(logins) = self.logins() else { return Ok(self.caller_of(None, None)) };
        let refused = |why, error| Err(logins.unauthorized(parts, why, "", error));
        match Credentials::of(&parts.headers) {
            Ok(None) => Ok(self.caller_of(None, None)),
            Ok(Some(Credentials::Basic(login))) => match logins.log_in(&login, parts).await? {
                Some(user) => Ok(self.caller_of(Some(user), None)),
                None => refused(WRONG_LOGIN, None),
            },
            Ok(Some(Credentials::Bearer(token))) => match logins.read_token(token, parts)? {
                Some((user, grant)) => Ok(self.caller_of(user, Some(grant))),
                None => refused("the access token is expired or was not made for this; get a new one", Some("invalid_token")),
            },
            Err(Unreadable) => refused("the Authorization header cannot be read", None),
        }
    }

    /// Who logs in with a form's user name and password.
    ///
    /// # Errors
    /// [`Error::Unauthorized`]
    pub async fn log_in(&self, user: String, password: String, parts: &Parts) -> Result<Caller<'_>> {
        let Some(logins) = self.logins() else { return Err(Error::NoEndpoint(parts.uri.path().into())) };
        let user = match Login::new(user, password) {
            Ok(login) => logins.log_in(&login, parts).await?,
            Err(Unreadable) => None,
        };
        let caller = user.map(|user| self.caller_of(Some(user), None));
        caller.ok_or_else(|| logins.unauthorized(parts, WRONG_LOGIN, "", None))
    }

    fn caller_of(&self, user: Option<Arc<User>>, grant: Option<Grant>) -> Caller<'_> {
        let identity = user.as_ref().map_or(Identity::Anonymous, |user| Identity::User(Arc::clone(&user.name)));
        Caller { control: self.control.as_ref(), identity, user, grant }
    }

    fn logins(&self) -> Option<&Logins> {
        self.control.as_ref()?.logins.as_ref()
    }
}

impl Settings {
    /// Whether access control can be made of them; nothing is written.
    ///
    /// # Errors
    /// What is wrong first.
    pub fn check(&self) -> Result<()> {
        self.read().map(drop)
    }

    fn read(&self) -> Result<(Rules, Option<Users>)> {
        let rules = Rules::new(self)?;
        if self.public_url.as_deref().is_some_and(|url| Origin::parse(url).is_none()) {
            let why = "it must read http://host[:port] or https://host[:port]";
            return Err(longshore_runtime::Error::invalid("access.public_url", why).into());
        }
        Ok((rules, self.htpasswd.as_deref().map(Users::open).transpose()?))
    }
}

impl Logins {
    async fn log_in(&self, login: &Login, parts: &Parts) -> Result<Option<Arc<User>>> {
        let user = self.users.verify(&login.user, &login.password).await?;
        if user.is_none() {
            let peer = parts.extensions.get::<Peer>().map(|peer| tracing::field::display(peer.address));
            tracing::warn!(user = &*login.user, peer, "login failed");
        }
        Ok(user)
    }

    /// Whose token this is, and what it was made for, if it is one that counts now.
    fn read_token(&self, token: &str, parts: &Parts) -> Result<Option<(Option<Arc<User>>, Grant)>> {
        let service = self.origin(parts)?.service;
        let Some(claims) = self.signer.verify(token, service, now_s()) else { return Ok(None) };
        if claims.sub.is_empty() {
            return Ok(Some((None, claims.access)));
        }
        let Some(user) = self.users.find(&claims.sub) else { return Ok(None) };
        let same = verify_slices_are_equal(self.stamp(&user).as_bytes(), claims.stamp.as_bytes()).is_ok();
        Ok(same.then_some((Some(user), claims.access)))
    }

    fn stamp(&self, user: &User) -> String {
        URL_SAFE_NO_PAD.encode(&hmac::sign(&self.stamps, user.password_hash().as_bytes()).as_ref()[..16])
    }

    fn origin<'a>(&'a self, parts: &'a Parts) -> Result<Origin<'a>> {
        Origin::of(parts, self.public_url.as_deref())
    }

    /// The refusal that asks for (other) credentials.
    fn unauthorized(&self, parts: &Parts, why: &'static str, scope: &str, error: Option<&str>) -> Error {
        match self.origin(parts) {
            Ok(origin) => Error::Unauthorized { why, challenge: origin.challenge(scope, error) },
            Err(e) => e,
        }
    }
}

impl Caller<'_> {
    /// Who it is.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Whether there is any access control. Without it, nothing need be asked.
    pub fn is_unrestricted(&self) -> bool {
        self.control.is_none()
    }

    /// Whether the caller may do something in a repository, which need not exist.
    pub fn may(&self, action: Action, repo: &RepoName) -> bool {
        let granted = self.grant.as_ref().is_none_or(|grant| grant.allows(action, repo.as_str()));
        granted && self.rules_allow(action, repo.as_str())
    }

    /// That the caller may do something in a repository, which need not exist.
    ///
    /// # Errors
    /// [`Error::Unauthorized`] when other credentials, or a token made for this, might do;
    /// [`Error::Denied`] when the user has not the right.
    pub fn require(&self, action: Action, repo: &RepoName, parts: &Parts) -> Result<()> {
        if self.may(action, repo) {
            return Ok(());
        }
        if self.rules_allow(action, repo.as_str()) || self.identity == Identity::Anonymous {
            let actions = match action {
                // Who pushes looks first what is there.
                Action::Create | Action::Overwrite => "pull,push",
                action => scope_word(action).unwrap_or_default(),
            };
            return Err(self.refusal(parts, &format!("repository:{repo}:{actions}")));
        }
        Err(Error::Denied)
    }

    /// That the caller may list repositories, those it may pull from.
    ///
    /// # Errors
    /// As [`Self::require`].
    pub fn require_catalog(&self, parts: &Parts) -> Result<()> {
        let granted = self.grant.as_ref().is_none_or(Grant::allows_catalog);
        let somewhere = self.control.is_none_or(|control| control.rules.allow_somewhere(&self.identity, Action::Pull));
        match (granted && somewhere, &self.identity) {
            (true, _) => Ok(()),
            (false, Identity::User(_)) if !somewhere => Err(Error::Denied),
            (false, _) => Err(self.refusal(parts, "registry:catalog:*")),
        }
    }

    /// Whether a repository is shown to the caller in a list, for which [`Self::require_catalog`] was
    /// asked.
    pub fn sees(&self, repository: &str) -> bool {
        self.rules_allow(Action::Pull, repository)
    }

    /// That the caller has said who it is, or has a token that says nobody: what clients find out by
    /// asking for `/v2/`. They send no credentials later where they were not asked for them here.
    ///
    /// # Errors
    /// [`Error::Unauthorized`]
    pub fn require_introduction(&self, parts: &Parts) -> Result<()> {
        let asked = self.control.is_some_and(|control| control.logins.is_some());
        if asked && self.identity == Identity::Anonymous && self.grant.is_none() {
            return Err(self.refusal(parts, ""));
        }
        Ok(())
    }

    /// That the caller may read the metrics. No token is made for that.
    ///
    /// # Errors
    /// As [`Self::require`].
    pub fn require_metrics(&self, parts: &Parts) -> Result<()> {
        let allowed = |control: &Control| control.rules.allow_somewhere(&self.identity, Action::Metrics);
        match (&self.identity, self.control) {
            (_, None) => Ok(()),
            (_, Some(control)) if self.grant.is_none() && allowed(control) => Ok(()),
            (Identity::User(_), _) if self.grant.is_none() => Err(Error::Denied),
            _ => Err(self.refusal(parts, "")),
        }
    }

    /// What the caller is told an upload session is called.
    pub fn session(&self, id: UploadId) -> SessionName {
        match self.control.and_then(|control| control.logins.as_ref()) {
            Some(logins) => SessionName::sealed(id, &self.identity, &logins.sessions),
            None => SessionName::open(id),
        }
    }

    /// That the caller started an upload session.
    ///
    /// # Errors
    /// [`Error::UploadUnknown`], as if there were none.
    pub fn require_owner(&self, session: &SessionName) -> Result<()> {
        if session.is(&self.session(session.id())) { Ok(()) } else { Err(Error::UploadUnknown) }
    }

    /// The name after which a list goes on, from the parameter `last`. See [`Self::list_marker`].
    pub fn list_start(&self, last: Option<String>) -> Result<Option<String>> {
        match (self.control, last) {
            (Some(control), Some(last)) => control.markers.open(last).map(Some),
            (_, last) => Ok(last),
        }
    }

    /// What stands for a name after which a list goes on, for a caller who may not see the name.
    pub fn list_marker(&self, name: &str) -> Result<String> {
        self.control.map_or_else(|| Ok(name.to_owned()), |control| control.markers.seal(name))
    }

    /// A token for what is both asked for and allowed; scopes of unknown kinds are left out, as the
    /// specification has it.
    ///
    /// # Errors
    /// [`Error::Unauthorized`] when the caller has only a token: none begets another.
    pub fn issue<'s>(&self, parts: &Parts, service: Option<&str>, scopes: impl Iterator<Item = &'s str>) -> Result<Issued> {
        let logins = self.control.and_then(|control| control.logins.as_ref());
        let Some(logins) = logins else { return Err(Error::NoEndpoint(parts.uri.path().into())) };
        if self.grant.is_some() {
            return Err(logins.unauthorized(parts, "a token is given for a password only", "", None));
        }
        let origin = logins.origin(parts)?;
        if service.is_some_and(|service| service != origin.service) {
            return Err(Error::Parameter(format!("tokens are made for service {:?} here, for no other", origin.service)));
        }
        let mut resources = Vec::new();
        for (at, scope) in scopes.enumerate() {
            if at >= TOKEN_SCOPES_LIMIT {
                return Err(Error::Parameter(format!("more than {TOKEN_SCOPES_LIMIT} scopes")));
            }
            resources.extend(Resource::parse(scope).and_then(|resource| self.granted(resource)));
        }
        let stamp = self.user.as_ref().map_or_else(String::new, |user| logins.stamp(user));
        let claims = logins.signer.claims(self.identity.name(), stamp, origin.service, Grant::new(resources), now_s())?;
        let token = logins.signer.sign(&claims);
        Ok(Issued { access_token: token.clone(), token, expires_in: logins.signer.lifetime_s() })
    }

    /// What of a scope the rules allow; nothing when that is nothing.
    fn granted(&self, mut resource: Resource) -> Option<Resource> {
        if !resource.is_repository() {
            // Each repository is asked about when it is listed.
            return Some(resource);
        }
        let all = resource.actions.iter().any(|action| action == "*");
        let words = [("pull", Action::Pull), ("push", Action::Create), ("delete", Action::Delete)];
        let wanted = |word: &str| all || resource.actions.iter().any(|action| action == word);
        let granted = words.into_iter().filter(|(word, action)| wanted(word) && self.rules_allow(*action, &resource.name));
        resource.actions = granted.map(|(word, _)| word.to_owned()).collect();
        (!resource.actions.is_empty()).then_some(resource)
    }

    fn rules_allow(&self, action: Action, repository: &str) -> bool {
        self.control.is_none_or(|control| control.rules.allow(&self.identity, action, repository))
    }

    /// The answer to who could do with other credentials, where there are any to be had.
    fn refusal(&self, parts: &Parts, scope: &str) -> Error {
        let error = self.grant.is_some().then_some("insufficient_scope");
        match self.control.and_then(|control| control.logins.as_ref()) {
            Some(logins) => logins.unauthorized(parts, "this takes a login", scope, error),
            None => Error::Denied,
        }
    }
}

fn now_s() -> u64 {
    // A clock before 1970 makes every token bad.
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
