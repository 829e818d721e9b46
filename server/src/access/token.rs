//! Access tokens: JSON Web Tokens (RFC 7519) this registry makes for itself alone, signed by
//! HMAC-SHA-256 with a key of its own.
//!
//! **Invariant: there is one header, and nothing is read from it** (CVE-2025-24976). A token with any
//! other header than the one made here is none: so no `alg` is chosen by whoever presents it, and no
//! `jwk`, `x5c` or `kid` is looked at.

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use longshore_runtime::files::random_hex;
use serde::{Deserialize, Serialize};

use super::rules::Action;
use crate::error::Result;
use crate::limits::TOKEN_LEEWAY_S;

/// `{"alg":"HS256","typ":"JWT"}`
const HEADER: &str = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9";
const ISSUER: &str = "rhub";

/// Makes tokens, and tells its own from others.
#[derive(Debug)]
pub(super) struct Signer {
    key: hmac::Key,
    lifetime_s: u64,
}

/// What a token says (distribution's "Docker Registry v2 Bearer token specification").
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Claims {
    iss: String,
    /// The user's name; empty for nobody.
    pub(super) sub: String,
    /// The service it is for.
    aud: String,
    iat: u64,
    nbf: u64,
    pub(super) exp: u64,
    jti: String,
    /// Ties it to the user's password, see [`super::Logins`].
    #[serde(default)]
    pub(super) stamp: String,
    /// What it was made for.
    pub(super) access: Grant,
}

/// What a token was made for. It allows nothing by itself: the rules must do so too, when it is used.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Grant(Vec<Resource>);

/// One thing a token is for: a scope, parsed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Resource {
    r#type: String,
    pub(super) name: String,
    pub(super) actions: Vec<String>,
}

impl Resource {
    /// A scope, `repository:<name>:<action>,...` or `registry:catalog:*`; `None` for what has no
    /// meaning here.
    pub(super) fn parse(scope: &str) -> Option<Self> {
        let (kind, rest) = scope.split_once(':')?;
        let (name, actions) = rest.rsplit_once(':')?;
        // A class, `repository(plugin)`, changes nothing.
        let kind = kind.split('(').next().unwrap_or_default();
        let known = match kind {
            "repository" => name.parse::<longshore_runtime::name::RepoName>().is_ok(),
            "registry" => name == "catalog",
            _ => false,
        };
        let actions = actions.split(',').map(str::to_owned).collect();
        known.then(|| Self { r#type: kind.into(), name: name.into(), actions })
    }

    pub(super) fn is_repository(&self) -> bool {
        self.r#type == "repository"
    }
}

/// The actions of repositories by the names that scopes have for them; `push` asks for both of its
/// actions, and whether tags may be moved is for the rules.
pub(super) fn scope_word(action: Action) -> Option<&'static str> {
    match action {
        Action::Pull => Some("pull"),
        Action::Create | Action::Overwrite => Some("push"),
        Action::Delete => Some("delete"),
        Action::Metrics => None,
    }
}

impl Grant {
    pub(super) fn new(resources: Vec<Resource>) -> Self {
        Self(resources)
    }

    /// Whether it was made for an action in a repository.
    pub(super) fn allows(&self, action: Action, repository: &str) -> bool {
        let word = scope_word(action);
        let allowing = |resource: &&Resource| resource.is_repository() && resource.name == repository;
        self.0.iter().filter(allowing).any(|resource| resource.actions.iter().any(|action| Some(action.as_str()) == word))
    }

    /// Whether it was made for listing repositories.
    pub(super) fn allows_catalog(&self) -> bool {
        self.0.iter().any(|resource| resource.r#type == "registry" && resource.name == "catalog")
    }
}

impl Signer {
    pub(super) fn new(key: hmac::Key, lifetime_s: u64) -> Self {
        Self { key, lifetime_s }
    }

    /// For how long tokens are good.
    pub(super) fn lifetime_s(&self) -> u64 {
        self.lifetime_s
    }

    /// What a new token will say.
    pub(super) fn claims(&self, user: &str, stamp: String, service: &str, access: Grant, now_s: u64) -> Result<Claims> {
        Ok(Claims {
            iss: ISSUER.into(),
            sub: user.into(),
            aud: service.into(),
            iat: now_s,
            nbf: now_s,
            exp: now_s + self.lifetime_s,
            jti: random_hex(16)?,
            stamp,
            access,
        })
    }

    pub(super) fn sign(&self, claims: &Claims) -> String {
        // Serialising our own struct of strings and numbers into memory cannot fail.
        let payload = URL_SAFE_NO_PAD.encode(serde_json::to_vec(claims).unwrap_or_default());
        let signed = format!("{HEADER}.{payload}");
        let tag = hmac::sign(&self.key, signed.as_bytes());
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(tag.as_ref()))
    }

    /// What a token says, if it was made here, for this service, and is good now.
    pub(super) fn verify(&self, token: &str, service: &str, now_s: u64) -> Option<Claims> {
        let (signed, signature) = token.rsplit_once('.')?;
        let payload = signed.strip_prefix(HEADER)?.strip_prefix('.')?;
        let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
        // In constant time.
        hmac::verify(&self.key, signed.as_bytes(), &signature).ok()?;
        let claims: Claims = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).ok()?).ok()?;
        let good = claims.iss == ISSUER
            && claims.aud == service
            && claims.nbf <= now_s.saturating_add(TOKEN_LEEWAY_S)
            && claims.exp.saturating_add(TOKEN_LEEWAY_S) > now_s;
        good.then_some(claims)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW_S: u64 = 1_800_000_000;

    fn signer() -> Signer {
        Signer::new(hmac::Key::new(hmac::HMAC_SHA256, b"secret"), 300)
    }

    fn claims() -> Claims {
        let access = Grant::new(vec![Resource::parse("repository:a/b:pull,push").unwrap()]);
        signer().claims("alice", "stamp".into(), "hub.example", access, NOW_S).unwrap()
    }

    /// A token of any header and payload, rightly signed for what it is.
    fn forge(header: &str, payload: &str, key: &[u8]) -> String {
        let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload));
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), signed.as_bytes());
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(tag.as_ref()))
    }

    const ORDINARY: &str = r#"{"alg":"HS256","typ":"JWT"}"#;

    #[test]
    fn a_token_says_what_was_signed() {
        let token = signer().sign(&claims());
        assert_eq!(signer().verify(&token, "hub.example", NOW_S), Some(claims_with_jti_of(&token)));
        let payload = serde_json::to_string(&claims_with_jti_of(&token)).unwrap();
        assert_eq!(forge(ORDINARY, &payload, b"secret"), token, "it is the JWT that RFC 7515 describes");
    }

    fn claims_with_jti_of(token: &str) -> Claims {
        let payload = URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap();
        let said: Claims = serde_json::from_slice(&payload).unwrap();
        assert_eq!(said.jti.len(), 32);
        Claims { jti: said.jti, ..claims() }
    }

    #[test]
    fn the_algorithm_is_that_of_rfc_7515_appendix_a_1() {
        // The example's own header is another one, so the signature is looked at by itself.
        let key = URL_SAFE_NO_PAD
            .decode("AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow")
            .unwrap();
        let header = "{\"typ\":\"JWT\",\r\n \"alg\":\"HS256\"}";
        let payload = "{\"iss\":\"joe\",\r\n \"exp\":1300819380,\r\n \"http://example.com/is_root\":true}";
        assert!(forge(header, payload, &key).ends_with(".dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"));
    }

    #[test]
    fn cve_2025_24976_a_header_that_is_not_ours_is_refused_whatever_signs_it() {
        let payload = serde_json::to_string(&claims()).unwrap();
        assert!(signer().verify(&forge(ORDINARY, &payload, b"secret"), "hub.example", NOW_S).is_some());
        for header in [
            r#"{"alg":"none","typ":"JWT"}"#,
            r#"{"alg":"None"}"#,
            r#"{"alg":"HS512","typ":"JWT"}"#,
            r#"{"alg":"RS256","typ":"JWT","x5c":["MIIB"]}"#,
            r#"{"alg":"HS256","typ":"JWT","jwk":{"kty":"oct","k":"c2VjcmV0"}}"#,
            r#"{"alg":"HS256","typ":"JWT","kid":"/dev/null"}"#,
            r#"{"typ":"JWT","alg":"HS256"}"#,
            "{}",
            "",
        ] {
            for key in [&b"secret"[..], b"", b"attacker"] {
                let token = forge(header, &payload, key);
                assert_eq!(signer().verify(&token, "hub.example", NOW_S), None, "{header}");
                let (unsigned, _) = token.rsplit_once('.').unwrap();
                assert_eq!(signer().verify(&format!("{unsigned}."), "hub.example", NOW_S), None, "{header} unsigned");
                assert_eq!(signer().verify(unsigned, "hub.example", NOW_S), None);
            }
        }
        assert_eq!(signer().verify(&forge(ORDINARY, &payload, b"attacker"), "hub.example", NOW_S), None);
    }

    #[test]
    fn a_token_is_good_for_its_time_its_service_and_its_issuer() {
        let token = signer().sign(&claims());
        let good = |service: &str, now_s: u64| signer().verify(&token, service, now_s).is_some();
        assert!(good("hub.example", NOW_S - TOKEN_LEEWAY_S) && good("hub.example", NOW_S + 299 + TOKEN_LEEWAY_S));
        assert!(!good("hub.example", NOW_S - TOKEN_LEEWAY_S - 1) && !good("hub.example", NOW_S + 300 + TOKEN_LEEWAY_S));
        assert!(!good("hub.example:5000", NOW_S) && !good("", NOW_S) && !good("HUB.example", NOW_S));
        let other = Claims { iss: "somebody".into(), ..claims() };
        assert_eq!(signer().verify(&signer().sign(&other), "hub.example", NOW_S), None);
        let endless = Claims { exp: u64::MAX, ..claims() };
        assert!(signer().verify(&signer().sign(&endless), "hub.example", NOW_S).is_some());
        for missing in ["exp", "nbf", "aud", "iss", "sub", "access"] {
            let mut payload = serde_json::to_value(claims()).unwrap();
            payload.as_object_mut().unwrap().remove(missing);
            let token = forge(ORDINARY, &payload.to_string(), b"secret");
            assert_eq!(signer().verify(&token, "hub.example", NOW_S), None, "without {missing}");
        }
    }

    #[test]
    fn scopes_are_read_and_what_has_no_meaning_is_left_out() {
        let grant = |scope: &str| Grant::new(Resource::parse(scope).into_iter().collect());
        let pull = grant("repository:a/b:pull");
        assert!(pull.allows(Action::Pull, "a/b") && !pull.allows(Action::Pull, "a") && !pull.allows(Action::Create, "a/b"));
        let push = grant("repository(plugin):a:push,delete");
        assert!(push.allows(Action::Create, "a") && push.allows(Action::Overwrite, "a") && push.allows(Action::Delete, "a"));
        assert!(!push.allows(Action::Pull, "a") && !push.allows(Action::Metrics, "a") && !push.allows_catalog());
        let catalog = grant("registry:catalog:*");
        assert!(catalog.allows_catalog() && !catalog.allows(Action::Pull, "catalog"));
        for scope in
            ["", ":", "::", "repository", "repository:a", "repository:A:pull", "repository:../x:pull", "x:a:pull", "registry:x:*"]
        {
            assert_eq!(Resource::parse(scope), None, "{scope}");
        }
    }

    proptest! {
        #[test]
        fn a_token_with_any_byte_changed_is_refused(at in 0_usize..400, byte in 33_u8..127) {
            let token = signer().sign(&claims());
            let at = at % token.len();
            let mut changed = token.clone().into_bytes();
            changed[at] = byte;
            let changed = String::from_utf8(changed).unwrap();
            prop_assert_eq!(signer().verify(&changed, "hub.example", NOW_S).is_some(), changed == token);
        }

        #[test]
        fn nothing_makes_reading_a_token_panic(text in "[A-Za-z0-9._=-]{0,80}", payload in "\\PC{0,80}") {
            prop_assert_eq!(signer().verify(&text, "hub.example", NOW_S), None);
            prop_assert_eq!(signer().verify(&format!("{HEADER}.{text}"), "hub.example", NOW_S), None);
            prop_assert_eq!(signer().verify(&forge(ORDINARY, &payload, b"secret"), "hub.example", NOW_S), None);
            let _ = Resource::parse(&payload);
        }
    }
}
