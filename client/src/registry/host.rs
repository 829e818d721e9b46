//! One repository at one host: requests, challenges, and what went wrong.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::SystemTime;

use longshore_runtime::parallel::Cancel;
use reqwest::{Body, Client, RequestBuilder, Url};

use super::allowance::Allowance;
use super::auth::Auth;
use super::http::{Answer, Pool};
use super::redirect::Elsewhere;
use super::retry::{Retry, asked_wait};
use super::scope::Action;
use super::timing::Timing;
use super::{scheme, tls};
use crate::config::{Capabilities, Endpoint, Network, Place};
use crate::credentials::Credentials;
use crate::error::{self, Error, Result};

/// The longest error body read, in bytes.
const ERROR_LIMIT_BYTES: usize = 16 << 10;

/// A repository where it is asked for: at its registry, or at a mirror.
#[derive(Debug)]
pub(super) struct Host {
    pub(super) endpoint: Endpoint,
    name: String,
    /// `scheme://host/v2/name`
    pub(super) base: String,
    pub(super) pool: Pool,
    auth: Auth,
    /// What it is asked for.
    pub(super) may: Capabilities,
    /// Whether it has answered anything.
    reached: AtomicBool,
    /// Whether it failed in a way that others need not meet, too.
    down: AtomicBool,
}

/// A request body: made anew each time it is sent, and how many of its bytes have gone.
pub(super) struct Sending<'a> {
    pub(super) body: &'a dyn Fn() -> Result<Body>,
    pub(super) count: &'a AtomicU64,
}

impl Host {
    /// Opens a connection only where it has to be found out what the host speaks.
    pub(super) fn new(place: &Place, network: &Network, timing: Timing) -> Result<Self> {
        Self::named(place, network, timing, place.image.repository().as_str())
    }

    /// The same for what is in no repository.
    pub(super) fn whole(place: &Place, network: &Network, timing: Timing) -> Result<Self> {
        Self::named(place, network, timing, "")
    }

    fn named(place: &Place, network: &Network, timing: Timing, repository: &str) -> Result<Self> {
        let (endpoint, pool) = scheme::settle(place, network, timing)?;
        Ok(Self {
            base: format!("{}/v2/{repository}", endpoint.base()),
            pool,
            auth: Auth::new(place, endpoint.clone()),
            may: place.may,
            name: repository.into(),
            endpoint,
            reached: AtomicBool::new(false),
            down: AtomicBool::new(false),
        })
    }

    /// These credentials are shown, whatever is kept.
    pub(super) fn use_credentials(&mut self, credentials: Credentials) {
        self.auth.use_credentials(credentials);
    }

    pub(super) fn is_reached(&self) -> bool {
        self.reached.load(Ordering::Relaxed)
    }

    pub(super) fn is_down(&self) -> bool {
        self.down.load(Ordering::Relaxed)
    }

    pub(super) fn set_down(&self) {
        self.down.store(true, Ordering::Relaxed);
    }

    /// Attempts something until it succeeds, or fails for good.
    pub(super) fn retrying<T>(&self, cancel: &Cancel<'_>, attempt: impl FnMut() -> Result<T>) -> Result<T> {
        Retry::new(*self.pool.timing(), cancel).run(|| self.is_reached(), attempt)
    }

    /// Sends a request without a body; answers one challenge and sends it again.
    pub(super) fn send<'a>(
        &'a self,
        action: Action<'_>,
        cancel: &'a Cancel<'a>,
        attempted: impl Fn() -> String,
        build: impl Fn(&Client) -> RequestBuilder,
    ) -> Result<Answer<'a>> {
        self.exchange(action, cancel, true, attempted, build, None)
    }

    /// The same with a body, or none. `trusted`: the URL is the host's own. Only there credentials go.
    pub(super) fn exchange<'a>(
        &'a self,
        action: Action<'_>,
        cancel: &'a Cancel<'a>,
        trusted: bool,
        attempted: impl Fn() -> String,
        build: impl Fn(&Client) -> RequestBuilder,
        sending: Option<&Sending<'_>>,
    ) -> Result<Answer<'a>> {
        let mut challenged = false;
        loop {
            let authorization = if trusted { self.auth.header(&self.pool, action)? } else { None };
            let body = sending.map(|sending| (sending.body)()).transpose()?;
            let sent = self.pool.send(cancel, sending.map(|sending| sending.count), |client| {
                let mut request = build(client);
                if let Some(body) = body {
                    request = request.body(body);
                }
                if let Some(value) = &authorization {
                    request = request.header("authorization", value);
                }
                request.build()
            });
            let mut answer = sent.map_err(|e| unreachable(&self.endpoint.host, &e))?;
            self.reached.store(true, Ordering::Relaxed);
            if answer.status() != 401 || challenged || !trusted {
                answer.hint = if trusted { self.auth.explain(&self.pool, answer.status(), action) } else { None };
                return Ok(answer);
            }
            let challenges = answer.headers("www-authenticate");
            drop(answer);
            challenged = true;
            if !self.auth.answer(&self.pool, &challenges, action, authorization.as_deref())? {
                let hint = self.auth.explain(&self.pool, 401, action).map(Into::into);
                return Err(self.refused(&attempted(), error::Answer { hint, ..error::Answer::parse(401, b"") }));
            }
        }
    }

    pub(super) fn expect(&self, answer: &mut Answer<'_>, statuses: &[u16], attempted: impl Fn() -> String) -> Result<()> {
        if statuses.contains(&answer.status()) { Ok(()) } else { Err(self.refused(&attempted(), said_no(answer))) }
    }

    /// Whether a URL is at this very host.
    pub(super) fn is_own(&self, url: &Url) -> bool {
        self.endpoint.serves(url)
    }

    pub(super) fn refused(&self, attempted: &str, answer: error::Answer) -> Error {
        Error::Refused { host: self.endpoint.host.clone(), attempted: self.attempted(attempted), answer }
    }

    fn attempted(&self, what: &str) -> String {
        if self.name.is_empty() { what.to_owned() } else { format!("{what} in {}", self.name) }
    }

    pub(super) fn broken(&self, attempted: &str, why: String) -> Error {
        Error::Protocol { host: self.endpoint.host.clone(), attempted: self.attempted(attempted), why }
    }
}

/// What an answer that is no success says.
pub(super) fn said_no(answer: &mut Answer<'_>) -> error::Answer {
    let status = answer.status();
    let retry_after = asked_wait(|name| answer.header(name).map(str::to_owned), SystemTime::now());
    let allowance = Allowance::of(|name| answer.header(name).map(str::to_owned)).to_string();
    let hint = answer.hint.take().map(Into::into);
    // Where its body breaks off, the status says enough.
    let body = answer.body(ERROR_LIMIT_BYTES).unwrap_or_default();
    let mut said = error::Answer { retry_after, hint, ..error::Answer::parse(status, &body) };
    if matches!(status, 401 | 403 | 429) && !allowance.is_empty() {
        let separator = if said.message.is_empty() { "" } else { "; " };
        said.message = format!("{}{separator}{allowance}", said.message).into();
    }
    said
}

pub(super) fn unreachable(host: &str, e: &io::Error) -> Error {
    let said = e.to_string();
    let elsewhere = e.get_ref().and_then(|inner| inner.downcast_ref::<Elsewhere>());
    let at = elsewhere.map_or(host, |elsewhere| &elsewhere.host);
    let why = tls::advice(at, &said).map_or_else(|| said.clone(), |advice| format!("{said}; {advice}"));
    Error::Unreachable { host: host.into(), why, kind: e.kind() }
}

/// The connection broke in the middle of a body: whatever the reason, that may pass.
pub(super) fn broken_off(host: &str, e: &io::Error) -> Error {
    let kind = if e.kind() == io::ErrorKind::TimedOut { e.kind() } else { io::ErrorKind::Other };
    Error::Unreachable { host: host.into(), why: format!("its answer broke off: {e}"), kind }
}
