//! Authentication: what strangers are told, and what a password or a token opens. Only where a registry
//! wants credentials.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use reqwest::{Method, Url};

use super::context::{BYTES_TYPE, MANIFEST_TYPE, sha256};
use super::{Context, Requirement, must, should};
use crate::auth::{Challenge, token_of, token_request};
use crate::credentials::Credentials;
use crate::http::{Exchange, Request};
use crate::limits::TOKEN_LIFETIME_S;
use crate::outcome::{Finding, Outcome};

const CHALLENGE: &str = "Determining Support (end-1); RFC 9110 section 11.6.1";
const STATUS: &str = "RFC 9110 sections 11.4, 15.5.2";
const BASIC: &str = "RFC 7617 section 2";
const TOKENS: &str = "Docker Registry Token Authentication";
const SCOPES: &str = "Docker Registry Token Authentication: scope";
const ERRORS: &str = "Error Codes (code-11)";

pub(super) const TABLE: &[Requirement] = &[
    must("auth-challenge", CHALLENGE, "a 401 has a challenge for Basic or Bearer with a realm", challenge),
    should("auth-challenge-scope", SCOPES, "a Bearer challenge names the repository and what is to be done", challenge_scope),
    should("auth-error", ERRORS, "the error of a 401 is UNAUTHORIZED", error),
    must("auth-anonymous-refused", STATUS, "strangers write nothing where strangers may not push", anonymous_refused),
    should("auth-existence-hidden", STATUS, "strangers are not told what there is", existence_hidden),
    must("auth-basic", BASIC, "user and password open what they should", basic),
    must("auth-password-wrong", STATUS, "a wrong password is 401", password_wrong),
    should("auth-user-unknown", STATUS, "an unknown user is answered like a wrong password", user_unknown),
    must("auth-token", TOKENS, "user and password get a token, and it opens what it is for", token),
    should("auth-token-lifetime", TOKENS, "a token is good for 60 seconds at least", token_lifetime),
    must("auth-token-forged", TOKENS, "a token that was changed is 401", token_forged),
    must("auth-token-scope", SCOPES, "a token for one repository does not open another", token_scope),
    must("auth-token-action", SCOPES, "a token for pulling does not push", token_action),
    must("auth-token-mount", SCOPES, "a token mounts nothing from a repository it is not for", token_mount),
];

/// The 401 to a stranger who wants to push.
fn demanded(cx: &Context<'_>) -> Outcome<Exchange> {
    let answer = cx.send(Request::new(Method::POST, cx.path("blobs/uploads/")).anonymous())?;
    cx.note_session(&answer);
    match answer.status() {
        401 => Ok(answer),
        202 => Err(Finding::NotOffered("authentication: everybody may push".into())),
        status @ (403 | 404 | 405 | 501) => {
            Err(Finding::NotOffered(format!("authentication: pushing is answered with {status}")))
        }
        _ => Err(answer.fail("status 401")),
    }
}

fn credentials<'a>(cx: &'a Context<'_>) -> Outcome<&'a Credentials> {
    demanded(cx)?;
    cx.registry().credentials().ok_or_else(|| Finding::NotOffered("judging with credentials: give --user".into()))
}

/// The Bearer challenge for pushing.
fn bearer(cx: &Context<'_>) -> Outcome<Challenge> {
    let found = demanded(cx)?.challenges().into_iter().find(|challenge| challenge.scheme == "bearer");
    found.ok_or_else(|| Finding::NotOffered("tokens: there is no challenge for Bearer".into()))
}

fn challenge(cx: &Context<'_>) -> Outcome {
    let answer = demanded(cx)?;
    answer.must_have("WWW-Authenticate")?;
    let usable = |challenge: &Challenge| match (challenge.scheme.as_str(), challenge.parameters.get("realm")) {
        ("basic", Some(_)) => true,
        ("bearer", Some(realm)) => Url::parse(realm).is_ok(),
        _ => false,
    };
    answer.must(answer.challenges().iter().any(usable), "WWW-Authenticate with Basic or Bearer, and a realm")
}

fn challenge_scope(cx: &Context<'_>) -> Outcome {
    let bearer = bearer(cx)?;
    let answer = demanded(cx)?;
    let scope = bearer.parameters.get("scope").map(String::as_str).unwrap_or_default();
    let held = scope.split(' ').filter_map(|one| one.rsplit_once(':')).any(|(resource, actions)| {
        resource == format!("repository:{}", cx.repository) && actions.split(',').any(|action| action == "push")
    });
    answer.must(held, format_args!("scope=\"repository:{}:pull,push\"", cx.repository))
}

fn error(cx: &Context<'_>) -> Outcome {
    let answer = demanded(cx)?;
    let Ok(document) = answer.must_be_json() else { return Err(Finding::NotOffered("errors in JSON".into())) };
    let named = document["errors"].as_array().is_some_and(|e| e.iter().any(|e| e["code"] == "UNAUTHORIZED"));
    answer.must(named, "an error with code UNAUTHORIZED")
}

fn anonymous_refused(cx: &Context<'_>) -> Outcome {
    demanded(cx)?;
    let path = |manifest: &[u8]| cx.path(&format!("manifests/{}", sha256(manifest)));
    // Nothing a stranger could spoil is needed for anything else. Without credentials none of it is there.
    let mut attempts = Vec::new();
    let stranger = br#"{"schemaVersion":2}"#;
    cx.will_have_manifest(&cx.repository, &sha256(stranger), stranger);
    attempts.push(Request::new(Method::PUT, path(stranger)).body(MANIFEST_TYPE, &stranger[..]));
    if cx.registry().credentials().is_some() {
        let (_, manifest) = cx.push_fresh_manifest("")?;
        attempts.push(Request::new(Method::DELETE, path(&manifest)));
        attempts.push(Request::new(Method::PATCH, cx.begin_upload()?).body(BYTES_TYPE, cx.fresh_bytes()));
    }
    for attempt in attempts {
        cx.send(attempt.anonymous())?.must_be(&[401, 403, 404])?;
    }
    Ok(())
}

/// Fails where strangers may pull: then nothing is hidden from them.
fn must_be_private(cx: &Context<'_>, path: String) -> Outcome<Exchange> {
    let answer = cx.send(Request::new(Method::GET, path).header("Accept", MANIFEST_TYPE).anonymous())?;
    if answer.status() == 200 {
        return Err(Finding::NotOffered("private repositories: everybody may pull".into()));
    }
    Ok(answer)
}

fn existence_hidden(cx: &Context<'_>) -> Outcome {
    credentials(cx)?;
    let there = must_be_private(cx, cx.path(&format!("manifests/{}", cx.image()?.tag)))?;
    let absent = must_be_private(cx, cx.path(&format!("manifests/{}", cx.fresh_name())))?;
    absent.must(absent.status() == there.status(), format_args!("status {}, as for what is there", there.status()))
}

/// Begins an upload as whoever an `Authorization` value says.
fn push_as(cx: &Context<'_>, authorization: &str) -> Outcome<Exchange> {
    let answer = cx.send(Request::new(Method::POST, cx.path("blobs/uploads/")).authorization(authorization))?;
    cx.note_session(&answer);
    Ok(answer)
}

fn basic(cx: &Context<'_>) -> Outcome {
    let credentials = credentials(cx)?;
    let offered = demanded(cx)?.challenges().iter().any(|challenge| challenge.scheme == "basic");
    let answer = push_as(cx, &credentials.basic())?;
    if answer.status() == 401 && !offered {
        return Err(Finding::NotOffered("Basic: it is answered with 401".into()));
    }
    answer.must_be(&[202])
}

/// Asks for a token with these credentials.
fn ask_token(cx: &Context<'_>, scope: &str, credentials: &Credentials) -> Outcome<Exchange> {
    let challenge = bearer(cx)?;
    let request = token_request(cx.registry().url(), &challenge, Some(scope), Some(credentials));
    cx.send(request.map_err(|why| Finding::Differs(format!("no token is asked for: {why}")))?)
}

/// How a login goes, by token where the registry has tokens.
fn log_in(cx: &Context<'_>, credentials: &Credentials) -> Outcome<Exchange> {
    match ask_token(cx, &format!("repository:{}:pull,push", cx.repository), credentials) {
        Err(Finding::NotOffered(_)) => push_as(cx, &credentials.basic()),
        asked => asked,
    }
}

fn password_wrong(cx: &Context<'_>) -> Outcome {
    let right = credentials(cx)?;
    for password in [format!("{}x", right.password()), String::new()] {
        let wrong = Credentials::new(right.user(), password);
        log_in(cx, &wrong)?.must_be(&[401])?;
        push_as(cx, &wrong.basic())?.must_be(&[401])?;
    }
    Ok(())
}

fn user_unknown(cx: &Context<'_>) -> Outcome {
    let right = credentials(cx)?;
    let wrong = log_in(cx, &Credentials::new(right.user(), format!("{}x", right.password())))?;
    let unknown = log_in(cx, &Credentials::new(cx.fresh_name(), right.password()))?;
    unknown.must(unknown.status() == wrong.status(), format_args!("status {}, as for a wrong password", wrong.status()))
}

/// A token for these actions in a repository.
fn token_for(cx: &Context<'_>, repository: &str, actions: &str) -> Outcome<String> {
    let credentials = credentials(cx)?;
    let answer = ask_token(cx, &format!("repository:{repository}:{actions}"), credentials)?;
    answer.must_be(&[200])?;
    token_of(&answer).ok_or_else(|| answer.fail("a member \"token\" or \"access_token\""))
}

fn token(cx: &Context<'_>) -> Outcome {
    push_as(cx, &format!("Bearer {}", token_for(cx, &cx.repository, "pull,push")?))?.must_be(&[202])
}

fn token_lifetime(cx: &Context<'_>) -> Outcome {
    let answer = ask_token(cx, &format!("repository:{}:pull", cx.repository), credentials(cx)?)?;
    answer.must_be(&[200])?;
    match answer.must_be_json()?.get("expires_in") {
        // Not said it is 60 seconds.
        None => Ok(()),
        Some(seconds) => {
            let held = seconds.as_f64().is_some_and(|seconds| seconds >= TOKEN_LIFETIME_S);
            answer.must(held, format_args!("expires_in of {TOKEN_LIFETIME_S} at least"))
        }
    }
}

/// The token with another letter in the middle of its last part, and, if it is a JSON Web Token, with no signature.
fn forged(token: &str) -> Vec<String> {
    let start = token.rfind('.').map_or(0, |dot| dot + 1);
    let middle = start + (token.len() - start) / 2;
    let changed = |(at, c)| if at == middle { if c == 'A' { 'B' } else { 'A' } } else { c };
    let mut forged = vec![token.char_indices().map(changed).collect()];
    if let [_, payload, _] = token.split('.').collect::<Vec<_>>()[..] {
        let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"none","typ":"JWT"}"#);
        forged.push(format!("{header}.{payload}."));
    }
    forged
}

fn token_forged(cx: &Context<'_>) -> Outcome {
    for token in forged(&token_for(cx, &cx.repository, "pull,push")?) {
        push_as(cx, &format!("Bearer {token}"))?.must_be(&[401])?;
    }
    Ok(())
}

fn token_scope(cx: &Context<'_>) -> Outcome {
    let token = token_for(cx, &cx.repository, "pull,push")?;
    let bytes = cx.fresh_bytes();
    let digest = sha256(&bytes);
    let (_, upload) = cx.begin_upload_in(&cx.other_repository)?;
    cx.will_have_mounted(&digest);
    cx.send(cx.close_request(&upload, &digest, &bytes))?.must_be(&[201])?;
    let path = format!("/v2/{}/blobs/{digest}", cx.other_repository);
    must_be_private(cx, path.clone())?;
    let answer = cx.send(Request::new(Method::GET, path).authorization(format!("Bearer {token}")))?;
    answer.must_be(&[401, 403, 404])
}

fn token_action(cx: &Context<'_>) -> Outcome {
    let token = token_for(cx, &cx.repository, "pull")?;
    push_as(cx, &format!("Bearer {token}"))?.must_be(&[401, 403])
}

fn token_mount(cx: &Context<'_>) -> Outcome {
    let token = token_for(cx, &cx.other_repository, "pull,push")?;
    let digest = cx.push_blob(&cx.fresh_bytes())?;
    must_be_private(cx, cx.path(&format!("blobs/{digest}")))?;
    cx.will_have_mounted(&digest);
    let path = format!("/v2/{}/blobs/uploads/?mount={digest}&from={}", cx.other_repository, cx.repository);
    let answer = cx.send(Request::new(Method::POST, path).authorization(format!("Bearer {token}")))?;
    cx.note_session(&answer);
    answer.must(answer.status() != 201, "no status 201")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forged_token_is_another_one() {
        for token in ["abc.def.ghi", "opaque-AAAA", "x"] {
            let forged = forged(token);
            assert!(forged.iter().all(|forged| forged != token), "{forged:?}");
            assert_eq!(forged.len(), if token.contains('.') { 2 } else { 1 });
        }
    }
}
