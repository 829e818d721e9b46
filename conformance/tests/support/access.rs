//! Users: Basic, and Bearer tokens from a token server of the registry's own.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::json;

use super::handlers::error;
use super::http::{Request, Response};
use super::{Fault, PASSWORD, Scheme, State, USER, digest_of};

/// What a token's signature is made with.
const KEY: &str = "the key of this test";

/// Who asks, as far as credentials say.
enum Caller {
    Nobody,
    User,
    /// The scopes of a token.
    Token(String),
    Wrong,
}

/// The refusal of a request, if it is refused.
pub(super) fn check(state: &State, request: &Request) -> Option<Response> {
    let scheme = state.users?;
    if request.path == "/v2/token" {
        return Some(if scheme == Scheme::Bearer { token(state, request) } else { error(404, "NAME_UNKNOWN") });
    }
    let (repository, action) = wanted(request);
    let allowed = match caller(state, request) {
        Caller::User => !(state.has(Fault::OffersBasicInVain) && action == "push"),
        Caller::Token(scopes) => repository.is_none_or(|repository| {
            opens(state, &scopes, repository, action) && !(state.has(Fault::RefusesPushesByToken) && action == "push")
        }),
        Caller::Nobody | Caller::Wrong => false,
    };
    let strange = request.method == "PUT" && request.path.contains("/manifests/") && state.has(Fault::LetsStrangersPutManifests);
    if strange && matches!(caller(state, request), Caller::Nobody) {
        return Some(Response::new(201).with("Location", request.path.clone()));
    }
    (!allowed).then(|| unauthorized(state, request, scheme))
}

/// Whether whoever asks may mount what is in `source`.
pub(super) fn may_mount(state: &State, request: &Request, source: &str) -> bool {
    match (state.users, caller(state, request)) {
        (None, _) | (_, Caller::User) => true,
        (_, Caller::Token(scopes)) => state.has(Fault::MountsFromAnywhere) || opens(state, &scopes, source, "pull"),
        (_, Caller::Nobody | Caller::Wrong) => false,
    }
}

/// The repository of a request, and what it does there.
fn wanted(request: &Request) -> (Option<&str>, &'static str) {
    let path = request.path.strip_prefix("/v2/").unwrap_or_default();
    let ends = ["/blobs/", "/manifests/", "/tags/", "/referrers/"].iter().filter_map(|part| path.rfind(part));
    let action = match request.method.as_str() {
        "GET" | "HEAD" => "pull",
        "DELETE" => "delete",
        _ => "push",
    };
    (ends.max().map(|end| &path[..end]), action)
}

fn opens(state: &State, scopes: &str, repository: &str, action: &str) -> bool {
    scopes.split(' ').filter_map(|scope| scope.rsplit_once(':')).any(|(resource, actions)| {
        (resource == format!("repository:{repository}") || state.has(Fault::IgnoresTokenRepository))
            && (actions.split(',').any(|allowed| allowed == action) || state.has(Fault::IgnoresTokenActions))
    })
}

fn unauthorized(state: &State, request: &Request, scheme: Scheme) -> Response {
    let absent = request.is_read() && request.path.contains("/manifests/") && {
        let (repository, reference) = request.path["/v2/".len()..].split_once("/manifests/").unwrap_or_default();
        !state.tags.contains_key(&(repository.to_owned(), reference.to_owned()))
    };
    if absent && state.has(Fault::TellsWhatExists) {
        return error(404, "MANIFEST_UNKNOWN");
    }
    let response = error(401, if state.has(Fault::UnauthorizedIsDenied) { "DENIED" } else { "UNAUTHORIZED" });
    if scheme == Scheme::Basic {
        let challenge = if state.has(Fault::OmitsRealm) { "Basic" } else { "Basic realm=\"test\"" };
        return response.with("WWW-Authenticate", challenge);
    }
    let response = match state.has(Fault::OffersBasicInVain) {
        true => response.with("WWW-Authenticate", "Basic realm=\"test\""),
        false => response,
    };
    let address = &state.address;
    let challenge = format!("Bearer realm=\"http://{address}/v2/token\",service=\"{address}\"");
    let (repository, action) = wanted(request);
    let Some(repository) = repository.filter(|_| !state.has(Fault::OmitsChallengeScope)) else {
        return response.with("WWW-Authenticate", challenge);
    };
    let actions = if action == "push" { "pull,push" } else { action };
    let from = request.query.get("from").map(|from| format!(" repository:{from}:pull")).unwrap_or_default();
    response.with("WWW-Authenticate", format!("{challenge},scope=\"repository:{repository}:{actions}{from}\""))
}

fn caller(state: &State, request: &Request) -> Caller {
    let Some(authorization) = request.header("authorization") else { return Caller::Nobody };
    if let Some(token) = authorization.strip_prefix("Bearer ") {
        return read_token(state, token).map_or(Caller::Wrong, Caller::Token);
    }
    match login(authorization) {
        Some((user, password)) if user == USER && (password == PASSWORD || state.has(Fault::AcceptsAnyPassword)) => Caller::User,
        _ => Caller::Wrong,
    }
}

fn login(authorization: &str) -> Option<(String, String)> {
    let raw = STANDARD.decode(authorization.strip_prefix("Basic ")?).ok()?;
    let text = String::from_utf8(raw).ok()?;
    text.split_once(':').map(|(user, password)| (user.to_owned(), password.to_owned()))
}

/// The token server.
fn token(state: &State, request: &Request) -> Response {
    let known = request.header("authorization").and_then(login).is_some_and(|(user, _)| user == USER);
    if !matches!(caller(state, request), Caller::User) {
        let status = if !known && state.has(Fault::TellsUnknownUsers) { 403 } else { 401 };
        return error(status, "UNAUTHORIZED").with("WWW-Authenticate", "Basic realm=\"test\"");
    }
    let scopes = request.scopes.join(" ").replace("%3A", ":").replace("%2F", "/").replace("%2C", ",");
    let payload = URL_SAFE_NO_PAD.encode(scopes);
    let token = format!("{}.{payload}.{}", URL_SAFE_NO_PAD.encode("{}"), signature(&payload));
    let lifetime_s = if state.has(Fault::OutdatesTokens) { 5 } else { 300 };
    let mut response = Response::new(200).with("Content-Type", "application/json");
    response.body = json!({"token": token, "expires_in": lifetime_s}).to_string().into_bytes();
    response
}

fn signature(payload: &str) -> String {
    digest_of(format!("{KEY}{payload}").as_bytes())["sha256:".len()..].to_owned()
}

/// The scopes of a token.
fn read_token(state: &State, token: &str) -> Option<String> {
    let [_, payload, signed] = token.split('.').collect::<Vec<_>>()[..] else { return None };
    if signed != signature(payload) && !state.has(Fault::TrustsForgedTokens) {
        return None;
    }
    String::from_utf8(URL_SAFE_NO_PAD.decode(payload).ok()?).ok()
}
