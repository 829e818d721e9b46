//! The `Authorization` header (RFC 9110 section 11.6.2, RFC 7617, RFC 6750).

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;
use http::header::AUTHORIZATION;

use super::htpasswd::check_user_name;
use crate::limits::AUTHORIZATION_LIMIT_BYTES;

/// What a request offers to show who asks.
#[derive(PartialEq, Eq)]
pub(super) enum Credentials<'a> {
    /// A user's name and password.
    Basic(Login),
    /// An access token.
    Bearer(&'a str),
}

/// A user's name, which is well formed, and what is said to be the password.
#[derive(PartialEq, Eq)]
pub(super) struct Login {
    pub(super) user: String,
    pub(super) password: String,
}

/// The header is there and cannot be read.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unreadable;

impl fmt::Debug for Credentials<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Basic(login) => login.fmt(f),
            Self::Bearer(_) => f.write_str("Bearer(...)"),
        }
    }
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Login({:?}, ...)", self.user)
    }
}

impl<'a> Credentials<'a> {
    /// Those of a request, if it has any. Two headers are none: which of them counts would be a
    /// matter of taste.
    pub(super) fn of(headers: &'a HeaderMap) -> Result<Option<Self>, Unreadable> {
        let mut values = headers.get_all(AUTHORIZATION).iter();
        let Some(value) = values.next() else { return Ok(None) };
        if values.next().is_some() || value.len() > AUTHORIZATION_LIMIT_BYTES {
            return Err(Unreadable);
        }
        let (scheme, rest) = value.to_str().map_err(|_| Unreadable)?.split_once(' ').ok_or(Unreadable)?;
        let rest = rest.trim_matches(' ');
        if scheme.eq_ignore_ascii_case("basic") {
            let decoded = STANDARD.decode(rest).map_err(|_| Unreadable)?;
            let text = String::from_utf8(decoded).map_err(|_| Unreadable)?;
            let (user, password) = text.split_once(':').ok_or(Unreadable)?;
            Login::new(user.into(), password.into()).map(Self::Basic).map(Some)
        } else if scheme.eq_ignore_ascii_case("bearer") && !rest.is_empty() {
            Ok(Some(Self::Bearer(rest)))
        } else {
            Err(Unreadable)
        }
    }
}

impl Login {
    /// A name and a password, wherever they came from.
    pub(super) fn new(user: String, password: String) -> Result<Self, Unreadable> {
        check_user_name(&user).map_err(|_| Unreadable)?;
        Ok(Self { user, password })
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn headers(values: &[&str]) -> HeaderMap {
        values.iter().map(|value| (AUTHORIZATION, HeaderValue::from_str(value).unwrap())).collect()
    }

    fn basic(text: &str) -> HeaderMap {
        headers(&[&format!("Basic {}", STANDARD.encode(text))])
    }

    #[test]
    fn basic_and_bearer_are_read() {
        let login =
            |user: &str, password: &str| Ok(Some(Credentials::Basic(Login { user: user.into(), password: password.into() })));
        assert_eq!(Credentials::of(&HeaderMap::new()), Ok(None));
        assert_eq!(Credentials::of(&basic("alice:a:b c")), login("alice", "a:b c"));
        assert_eq!(Credentials::of(&basic("alice:")), login("alice", ""));
        assert_eq!(Credentials::of(&headers(&["bAsIc  YTpi "])), login("a", "b"));
        assert_eq!(Credentials::of(&headers(&["bearer a.b.c"])), Ok(Some(Credentials::Bearer("a.b.c"))));
    }

    #[test]
    fn what_is_ambiguous_or_unreadable_is_nobody_not_anonymous() {
        for bad in ["", "Basic", "Basic ", "Basic !", "Basic YQ==", "Bearer", "Bearer ", "Digest x", "YTpi", "Negotiate YTpi"] {
            assert_eq!(Credentials::of(&headers(&[bad])), Err(Unreadable), "{bad}");
        }
        assert_eq!(Credentials::of(&headers(&["Basic YTpi", "Basic YTpi"])), Err(Unreadable));
        for bad in [":", ":x", "a\n:x", "#a:x", " a:x", &format!("{}:x", "a".repeat(129))] {
            assert_eq!(Credentials::of(&basic(bad)), Err(Unreadable), "{bad:?}");
        }
        let long = format!("Bearer {}", "a".repeat(AUTHORIZATION_LIMIT_BYTES));
        assert_eq!(Credentials::of(&headers(&[&long])), Err(Unreadable));
    }

    #[test]
    fn cve_2025_48374_credentials_do_not_show_in_debug_output() {
        let headers = (basic("alice:hunter2"), headers(&["Bearer hunter2"]));
        let shown = format!("{:?} {:?}", Credentials::of(&headers.0), Credentials::of(&headers.1));
        assert!(!shown.contains("hunter2") && shown.contains("alice"), "{shown}");
    }

    proptest! {
        #[test]
        fn no_header_panics(text in "(Basic |Bearer |)[ -~]{0,60}", decoded in "\\PC{0,40}") {
            let _ = Credentials::of(&headers(&[&text]));
            if let Ok(Some(Credentials::Basic(login))) = Credentials::of(&basic(&decoded)) {
                prop_assert_eq!(format!("{}:{}", login.user, login.password), decoded);
            }
        }
    }
}
