//! The token endpoint (distribution's "Token Authentication Specification" and "OAuth2 Token
//! Authentication"): access tokens for a password, or for nobody.

use std::borrow::Cow;

use axum::body::Body;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::request::Parts;
use http::{HeaderValue, Method, Response, StatusCode};
use http_body_util::{BodyExt, Limited};

use super::query::percent_decode;
use super::response::json;
use super::route::Endpoint;
use crate::access::{Access, Issued};
use crate::error::{Error, Result};
use crate::limits::{Limits, TOKEN_FORM_LIMIT_BYTES};

const FORM: &str = "application/x-www-form-urlencoded";

pub(super) async fn answer(access: &Access, parts: &Parts, body: Body, limits: &Limits) -> Result<Response<Body>> {
    if !access.has_users() {
        return Err(Error::NoEndpoint(parts.uri.path().into()));
    }
    let issued = match parts.method {
        Method::GET => by_query(access, parts).await,
        Method::POST => by_form(access, parts, body, limits).await,
        ref method => Err(Error::Method { method: method.to_string(), allow: Endpoint::Token.methods() }),
    };
    let issued = issued.map_err(|e| match e {
        // Here it is the password itself that is asked for.
        Error::Unauthorized { why, .. } => Error::Unauthorized { why, challenge: "Basic realm=\"rhub\"".into() },
        other => other,
    })?;
    let mut response = json(StatusCode::OK, &issued);
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// GET: who asks is in the Authorization header, or is nobody.
async fn by_query(access: &Access, parts: &Parts) -> Result<Issued> {
    let form = Form::parse(parts.uri.query().unwrap_or_default())?;
    access.caller(parts).await?.issue(parts, form.first("service"), form.scopes())
}

/// POST: an OAuth 2.0 form (RFC 6749 section 4.3).
async fn by_form(access: &Access, parts: &Parts, body: Body, limits: &Limits) -> Result<Issued> {
    let content_type = parts.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if content_type.split(';').next().unwrap_or_default().trim() != FORM {
        return Err(Error::Parameter(format!("the body must be of type {FORM}")));
    }
    let received = tokio::time::timeout(limits.idle_timeout(), Limited::new(body, TOKEN_FORM_LIMIT_BYTES).collect());
    let received = received.await.map_err(|_| Error::Body("the client stalled".into()))?;
    let bytes = received.map_err(|e| Error::Body(e.to_string()))?.to_bytes();
    // Not the error's own text: it would quote the form.
    let text = std::str::from_utf8(&bytes).map_err(|_| Error::Parameter("the form is not readable".into()))?;
    let form = Form::parse(text)?;
    if form.first("grant_type") != Some("password") {
        return Err(Error::Parameter("grant_type must be password".into()));
    }
    let field = |name: &str| form.first(name).unwrap_or_default().to_owned();
    let caller = access.log_in(field("username"), field("password"), parts).await?;
    caller.issue(parts, form.first("service"), form.scopes())
}

/// The names and values of a query or a form.
struct Form(Vec<(String, String)>);

impl Form {
    fn parse(text: &str) -> Result<Self> {
        let pairs = text.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Some((decode(name)?, decode(value)?))
        });
        let pairs: Option<_> = pairs.collect();
        // Not which: it may be the password.
        pairs.map(Self).ok_or_else(|| Error::Parameter("a parameter is not readable".into()))
    }

    fn first(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// Each `scope` parameter may name several.
    fn scopes(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter(|(key, _)| key == "scope").flat_map(|(_, value)| value.split(' ')).filter(|scope| !scope.is_empty())
    }
}

/// Percent-encoding as forms have it: a plus is a space.
fn decode(text: &str) -> Option<String> {
    let text = if text.contains('+') { Cow::Owned(text.replace('+', " ")) } else { Cow::Borrowed(text) };
    percent_decode(&text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_come_apart_and_together() {
        let form =
            Form::parse("service=a%3A5000&scope=repository%3Aa%2Fb%3Apull%2Cpush+repository:c:pull&scope=x&scope=&y").unwrap();
        assert_eq!(form.first("service"), Some("a:5000"));
        assert_eq!(form.first("y"), Some(""));
        assert_eq!(form.scopes().collect::<Vec<_>>(), ["repository:a/b:pull,push", "repository:c:pull", "x"]);
        assert_eq!(Form::parse("password=a%2Bb+c%26").unwrap().first("password"), Some("a+b c&"));
    }

    #[test]
    fn cve_2025_48374_what_cannot_be_read_is_not_repeated() {
        for bad in ["password=hunter2%zz", "hunter2%", "a=%ff"] {
            let Err(e) = Form::parse(bad) else { panic!("{bad}") };
            assert!(!e.to_string().contains("hunter2"));
        }
    }
}
