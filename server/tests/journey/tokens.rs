//! Tokens: how they are asked for, for what, how long they are used, and what is said when they are refused.

use std::process::Command;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::authority::Authority;
use super::common::Rhub;
use super::double::{Answer, Double, Request};
use super::image::{Image, tar};
use super::tools::User;

fn user_with(config: &serde_json::Value) -> User {
    let user = User::new();
    std::fs::create_dir(user.home().join(".docker")).unwrap();
    std::fs::write(user.home().join(".docker/config.json"), config.to_string()).unwrap();
    user
}

fn basic_user(registry: &str) -> User {
    user_with(&serde_json::json!({ "auths": { registry: { "auth": STANDARD.encode("user:hunter2") } } }))
}

/// The challenge of a registry whose token server is itself.
fn challenge(double: &Double, more: &str) -> Answer {
    let value = format!("Bearer realm=\"http://{}/token\",service=\"s\"{more}", double.address);
    Answer::new(401, r#"{"errors":[{"code":"UNAUTHORIZED"}]}"#).header("www-authenticate", value)
}

fn to_token_server(double: &Double) -> Vec<Request> {
    double.requests().into_iter().filter(|request| request.path.starts_with("/token")).collect()
}

const GET: &str = "GET /token?scope=repository%3Aapp%3Apull&service=s";

#[test]
fn an_identity_token_is_exchanged_by_oauth_and_never_sent_elsewhere() {
    let double = Double::start();
    let user = user_with(&serde_json::json!({ "auths": { &double.address: { "auth": "", "identitytoken": "r3fr3sh" } } }));
    double.on("/v2/app/manifests/1", challenge(&double, ""));
    double.on("POST /token", Answer::new(200, r#"{"access_token":"t"}"#));
    user.fail("rpull", &[&format!("{}/app:1", double.address)]);
    let asked = to_token_server(&double);
    assert_eq!(
        asked[0].body,
        "grant_type=refresh_token&refresh_token=r3fr3sh&client_id=longshore&service=s&scope=repository%3Aapp%3Apull"
    );
    let others = double.requests().into_iter().filter(|request| !request.path.starts_with("/token"));
    assert!(others.into_iter().all(|request| !format!("{request:?}").contains("r3fr3sh")));
}

#[test]
fn a_helper_gives_an_identity_token_under_the_name_token() {
    let double = Double::start();
    let user = user_with(&serde_json::json!({ "credHelpers": { &double.address: "cloud" } }));
    // Written by another process: what this one writes may still be open in a child of another test, and cannot be run
    // then. It answers without reading what it is asked, as some do.
    let script = r##"printf '#!/bin/sh\necho %s\n' "'$1'" > "$0" && chmod 755 "$0""##;
    let helper = user.home().join("docker-credential-cloud");
    let answer = r#"{"ServerURL":"x","Username":"<token>","Secret":"r3fr3sh"}"#;
    assert!(Command::new("sh").args(["-c", script]).arg(&helper).arg(answer).status().unwrap().success());
    double.on("/v2/app/manifests/1", challenge(&double, ""));
    double.on("POST /token", Answer::new(200, r#"{"access_token":"t"}"#));
    let path = format!("{}:{}", user.home().display(), std::env::var("PATH").unwrap());
    let mut command = user.command("rpull", &[&format!("{}/app:1", double.address)]);
    let said = super::tools::stderr(&command.env("PATH", path).output().unwrap());
    let asked = to_token_server(&double);
    assert!(asked.first().is_some_and(|asked| asked.body.contains("refresh_token=r3fr3sh")), "{said}");
    assert!(said.contains("the credentials of docker-credential-cloud for repository:app:pull"), "{said}");
}

#[test]
fn a_token_server_without_get_is_asked_by_post() {
    let double = Double::start();
    let user = basic_user(&double.address);
    double.on("/v2/app/manifests/1", challenge(&double, ""));
    double.on(GET, Answer::new(405, ""));
    double.on("POST /token", Answer::new(200, r#"{"access_token":"t"}"#));
    user.fail("rpull", &[&format!("{}/app:1", double.address)]);
    let asked = to_token_server(&double);
    assert_eq!((asked[0].method.as_str(), asked[1].method.as_str()), ("GET", "POST"));
    let form = "grant_type=password&username=user&password=hunter2&client_id=longshore&service=s&scope=repository%3Aapp%3Apull";
    assert_eq!(asked[1].body, form);
}

#[test]
fn no_credentials_follow_a_token_server_to_another_host() {
    let (double, other) = (Double::start(), Double::start_on("127.0.0.2:0"));
    let name = format!("{}/app:1", double.address);
    let away = |status| Answer::new(status, "").header("location", format!("http://{}/stolen", other.address));
    double.on("/v2/app/manifests/1", challenge(&double, ""));
    let token = user_with(&serde_json::json!({ "auths": { &double.address: { "auth": "", "identitytoken": "r3fr3sh" } } }));
    for status in [301, 307, 308] {
        double.on("POST /token", away(status));
        let said = token.fail("rpull", &[&name]);
        assert!(said.contains(&format!("to another host, {}, is refused", other.address)), "{said}");
    }
    let basic = basic_user(&double.address);
    double.on(GET, Answer::new(405, ""));
    basic.fail("rpull", &[&name]);
    assert!(other.requests().is_empty(), "{:?}", other.requests());
    double.on(GET, away(307));
    let said = basic.fail("rpull", &[&name]);
    assert!(said.contains("leads to another host"), "{said}");
    assert!(other.requests().iter().all(|request| !request.headers.contains_key("authorization")));
    // Within its host it may lead on.
    double.on(GET, Answer::new(307, "").header("location", "/token/there"));
    double.on("/token/there", Answer::new(200, r#"{"token":"t"}"#));
    basic.fail("rpull", &[&name]);
    assert!(to_token_server(&double).last().unwrap().headers["authorization"].starts_with("Basic "));
}

#[test]
fn one_token_serves_all_requests_for_the_same_and_a_refused_one_is_fetched_once_more() {
    let (double, image) = (Double::start(), Image::new(&[tar(&[("a", b"x")]), tar(&[("b", b"y")])]));
    double.host("app", "1", &image);
    let manifest = Answer::new(200, image.manifest.bytes.clone()).header("content-type", image.manifest.media_type);
    let config = format!("/v2/app/blobs/{}", image.config.digest());
    double.on("/v2/app/manifests/1", challenge(&double, "").then(manifest));
    double.on(&config, challenge(&double, "").then(Answer::new(200, image.config.bytes.clone())));
    let token = |value: &str| Answer::new(200, format!(r#"{{"token":"{value}","expires_in":300}}"#));
    double.on(GET, token("first").then(token("second")));
    User::new().succeed("rpull", &["--jobs", "1", &format!("{}/app:1", double.address)]);
    assert_eq!(to_token_server(&double).len(), 2);
    let sent = |path: &str| -> Vec<Option<String>> {
        let requests = double.requests();
        requests
            .iter()
            .filter(|request| request.path == path)
            .map(|request| request.headers.get("authorization").cloned())
            .collect()
    };
    let bearer = |value: &str| Some(format!("Bearer {value}"));
    assert_eq!(sent("/v2/app/manifests/1"), [None, bearer("first")]);
    assert_eq!(sent(&config), [bearer("first"), bearer("second")]);
    for layer in &image.layers {
        let tokens = sent(&format!("/v2/app/blobs/{}", layer.digest()));
        assert!(tokens.len() == 1 && tokens[0].is_some(), "{tokens:?}");
    }
}

#[test]
fn what_a_challenge_asks_for_is_added_to_what_is_needed() {
    let double = Double::start();
    let user = User::new();
    double.on("/v2/app/manifests/1", challenge(&double, ",scope=\"repository:app:pull,push repository:base:pull\""));
    user.fail("rpull", &[&format!("{}/app:1", double.address)]);
    let wanted = "/token?scope=repository%3Aapp%3Apull%2Cpush&scope=repository%3Abase%3Apull&service=s";
    assert_eq!(to_token_server(&double)[0].path, wanted);
}

#[test]
fn messages_say_whose_credentials_were_refused_for_what_and_what_to_do() {
    let double = Double::start();
    let (user, nobody) = (basic_user(&double.address), User::new());
    let name = format!("{}/app:1", double.address);
    double.on("/v2/app/manifests/1", challenge(&double, ""));
    double.on(GET, Answer::new(200, r#"{"token":"t"}"#));
    let said = user.fail("rpull", &[&name]);
    let file = user.home().join(".docker/config.json");
    let expected = format!(
        "it does not take the credentials of {} for repository:app:pull: `rbox login {}` replaces them",
        file.display(),
        double.address
    );
    assert!(said.contains(&expected) && !said.contains("hunter2"), "{said}");
    let said = nobody.fail("rpull", &[&name]);
    assert!(
        said.contains(&format!(
            "it wants credentials for repository:app:pull, and there are none: `rbox login {}`",
            double.address
        )),
        "{said}"
    );
    double.on(GET, Answer::new(401, ""));
    let said = user.fail("rpull", &[&name]);
    assert!(
        said.contains("fetch an access token for repository:app:pull") && said.contains(&file.display().to_string()),
        "{said}"
    );
}

#[test]
fn a_token_server_beside_the_registry_is_known_by_the_same_authority() {
    let Some(authority) = Authority::new() else { return };
    // Both on the same host, each at a port of its own, and over TLS.
    let user = User::new();
    let users = authority.path("users");
    longshore_server::access::htpasswd::add(&users, "user", "correct-horse-battery").unwrap();
    authority.sign("server", "127.0.0.1");
    let mut command = authority.serve_command("127.0.0.1:0", "server");
    command.arg("--htpasswd").arg(&users);
    let tokens = Rhub::start_command(command);
    let double = Double::start();
    let realm = format!("Bearer realm=\"https://{}/v2/token\",service=\"{0}\"", tokens.address);
    double.on("/v2/app/manifests/1", Answer::new(401, "").header("www-authenticate", realm));
    let name = format!("{}/app:1", double.address);
    let said = user.fail("rpull", &[&name]);
    assert!(said.contains(&tokens.address) && said.contains("UnknownIssuer"), "{said}");
    // By what is put down for itself.
    authority.put(&user.home().join("etc/docker/certs.d").join(&tokens.address), &[("ca.crt", "ca.crt")]);
    let said = user.fail("rpull", &[&name]);
    assert!(said.contains("it wants credentials for repository:app:pull"), "{said}");
}
