//! Where credentials go, and where they never go.

use super::double::{Answer, Double, Request};
use super::image::{Image, tar};
use super::tools::{User, stderr};
use serde_json::{Value, json};

/// `user:hunter2`
const BASIC: &str = "dXNlcjpodW50ZXIy";

fn user_with_credentials(registry: &str) -> User {
    let user = User::new();
    let dir = user.home().join(".docker");
    std::fs::create_dir(&dir).unwrap();
    std::fs::write(dir.join("config.json"), format!(r#"{{"auths":{{"{registry}":{{"auth":"{BASIC}"}}}}}}"#)).unwrap();
    user
}

fn image() -> Image {
    Image::new(&[tar(&[("a", b"x")])])
}

fn unauthorized(challenge: impl Into<String>) -> Answer {
    Answer::new(401, "").header("www-authenticate", challenge)
}

fn authorizations(requests: &[Request]) -> Vec<&String> {
    requests.iter().filter_map(|request| request.headers.get("authorization")).collect()
}

#[test]
fn a_token_is_fetched_where_the_registry_says_and_sent_with_the_next_request() {
    let double = Double::start();
    let user = user_with_credentials(&double.address);
    let manifest = "/v2/app/manifests/1";
    double.on(manifest, unauthorized(format!("Bearer realm=\"http://{}/token\",service=\"s\"", double.address)));
    double.on("/token?scope=repository%3Aapp%3Apull&service=s", Answer::new(200, r#"{"token":"t0k3n"}"#));
    let said = user.fail("rpull", &[&format!("{}/app:1", double.address)]);
    assert!(said.contains("credentials"), "{said}");
    assert!(!said.contains("hunter2") && !said.contains("t0k3n"), "no secret in an error: {said}");
    let requests = double.requests();
    let sent: Vec<_> = requests
        .iter()
        .map(|request| (request.path.as_str(), request.headers.get("authorization").map(String::as_str)))
        .collect();
    let basic = format!("Basic {BASIC}");
    let token = ("/token?scope=repository%3Aapp%3Apull&service=s", Some(basic.as_str()));
    assert_eq!(sent, [(manifest, None), token, (manifest, Some("Bearer t0k3n"))]);
}

#[test]
fn basic_credentials_are_sent_only_when_asked_for() {
    let double = Double::start();
    let user = user_with_credentials(&double.address);
    double.host("app", "1", &image());
    user.succeed("rpull", &[&format!("{}/app:1", double.address)]);
    assert_eq!(authorizations(&double.requests()), Vec::<&String>::new());
    double.on("/v2/app/manifests/2", unauthorized("Basic realm=\"x\""));
    user.fail("rpull", &[&format!("{}/app:2", double.address)]);
    assert_eq!(authorizations(&double.requests()), [&format!("Basic {BASIC}")]);
}

#[test]
fn cve_2026_48978_a_realm_on_another_host_gets_no_credentials() {
    let (double, other) = (Double::start(), Double::start_on("127.0.0.2:0"));
    let user = user_with_credentials(&double.address);
    double.on("/v2/app/manifests/1", unauthorized(format!("Bearer realm=\"http://{}/token\"", other.address)));
    let said = user.fail("rpull", &[&format!("{}/app:1", double.address)]);
    assert!(said.contains("nothing was sent"), "{said}");
    assert!(other.requests().is_empty());
}

#[test]
fn cve_2020_15157_a_redirect_to_another_host_carries_no_authorization() {
    let (double, other) = (Double::start(), Double::start_on("127.0.0.2:0"));
    let user = user_with_credentials(&double.address);
    let image = image();
    other.host("app", "1", &image);
    for blob in image.blobs() {
        let path = format!("/v2/app/blobs/{}", blob.digest());
        double.on(&path, Answer::new(307, "").header("location", format!("http://{}{path}", other.address)));
    }
    let manifest = "/v2/app/manifests/1";
    let redirect = Answer::new(307, "").header("location", format!("http://{}{manifest}", other.address));
    double.on(manifest, unauthorized("Basic realm=\"x\"").then(redirect));
    user.succeed("rpull", &[&format!("{}/app:1", double.address)]);
    assert!(authorizations(&double.requests()).len() > image.blobs().count(), "the registry itself does get it, each time");
    assert!(!other.requests().is_empty() && authorizations(&other.requests()).is_empty());
}

#[test]
fn cve_2026_50151_an_upload_location_on_another_host_gets_no_credentials() {
    let (double, other, layout) = (Double::start(), Double::start_on("127.0.0.2:0"), tempfile::tempdir().unwrap());
    let user = user_with_credentials(&double.address);
    let image = image();
    image.write_layout(layout.path(), "1");
    for blob in image.blobs() {
        double.on(format!("HEAD /v2/app/blobs/{}", blob.digest()), unauthorized("Basic realm=\"x\""));
    }
    let source = format!("oci:{}", layout.path().display());
    let name = format!("{}/app:1", double.address);
    user.fail("rpush", &[&source, &name]);
    assert!(!authorizations(&double.requests()).is_empty(), "the registry itself does get them");
    for blob in image.blobs() {
        double.on(format!("HEAD /v2/app/blobs/{}", blob.digest()), Answer::new(404, ""));
        other.on(format!("/up?digest={}", blob.digest().as_str().replace(':', "%3A")), unauthorized("Basic realm=\"x\""));
    }
    double.on("POST /v2/app/blobs/uploads/", Answer::new(202, "").header("location", format!("http://{}/up", other.address)));
    user.fail("rpush", &[&source, &name]);
    assert!(!other.requests().is_empty() && authorizations(&other.requests()).is_empty());
}

#[test]
fn cve_2021_41092_a_broken_helper_sends_nothing_anywhere() {
    let double = Double::start();
    let user = User::new();
    let dir = user.home().join(".docker");
    std::fs::create_dir(&dir).unwrap();
    let config = format!(r#"{{"auths":{{"{0}":{{"auth":"{BASIC}"}}}},"credHelpers":{{"{0}":"absent"}}}}"#, double.address);
    std::fs::write(dir.join("config.json"), config).unwrap();
    double.on("/v2/app/manifests/1", unauthorized("Basic realm=\"x\""));
    let said = user.fail("rpull", &[&format!("{}/app:1", double.address)]);
    assert!(said.contains("docker-credential-absent"), "{said}");
    assert!(authorizations(&double.requests()).is_empty());
}

#[test]
fn a_password_that_a_helper_keeps_is_not_kept_in_the_clear() {
    use std::os::unix::fs::PermissionsExt;
    let (double, user) = (Double::start(), User::new());
    double.on("/v2/", Answer::new(200, "{}"));
    let (config, helper) = (user.home().join("auth.json"), user.home().join("docker-credential-test"));
    std::fs::write(&helper, "#!/bin/sh\ncat > \"$HOME/said.$1\"\n").unwrap();
    std::fs::set_permissions(&helper, std::fs::Permissions::from_mode(0o755)).unwrap();
    let log_in = || {
        let mut command = user.command("rbox", &["login", "-u", "new", "-p", "secret", &double.address]);
        command
            .env("PATH", format!("{}:/usr/bin:/bin", user.home().display()))
            .env("REGISTRY_AUTH_FILE", "auth.json")
            .current_dir(user.home());
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
    };
    // A file by its name alone, which is made.
    log_in();
    let kept: Value = serde_json::from_slice(&std::fs::read(&config).unwrap()).unwrap();
    assert!(kept["auths"][&double.address]["auth"].is_string(), "{kept}");
    // From now on a helper has it.
    std::fs::write(&config, json!({ "auths": kept["auths"], "credsStore": "test" }).to_string()).unwrap();
    log_in();
    assert!(std::fs::read_to_string(user.home().join("said.store")).unwrap().contains("secret"));
    let kept: Value = serde_json::from_slice(&std::fs::read(&config).unwrap()).unwrap();
    assert_eq!(kept, json!({ "auths": { &*double.address: {} }, "credsStore": "test" }));
}

#[test]
fn a_registry_is_itself_however_its_host_is_written() {
    let (double, layout, image) = (Double::start(), tempfile::tempdir().unwrap(), image());
    let host = double.address.replace("127.0.0.1", "LocalHost");
    let user = user_with_credentials(&host);
    image.write_layout(layout.path(), "1");
    for blob in image.blobs() {
        let demand = unauthorized("Basic realm=\"x\"").then(Answer::new(404, ""));
        double.on(format!("HEAD /v2/app/blobs/{}", blob.digest()), demand);
        double.on(format!("PUT /up?digest={}", blob.digest().as_str().replace(':', "%3A")), Answer::new(201, ""));
    }
    let location = format!("http://{}/up", host.to_lowercase());
    double.on("POST /v2/app/blobs/uploads/", Answer::new(202, "").header("location", location));
    double.on("PUT /v2/app/manifests/1", Answer::new(201, ""));
    user.succeed("rpush", &[&format!("oci:{}", layout.path().display()), &format!("{host}/app:1")]);
    let sent: Vec<_> = double.requests().into_iter().filter(|request| request.path.starts_with("/up")).collect();
    assert_eq!((sent.len(), authorizations(&sent).len()), (2, 2), "a layer and the configuration");
    // And a list goes on there.
    let first = Answer::new(200, r#"{"tags":["1"]}"#).header("link", "</v2/app/tags/list?n=1000&last=1>; rel=\"next\"");
    double.on("/v2/app/tags/list?n=1000", first);
    double.on("/v2/app/tags/list?n=1000&last=1", Answer::new(200, r#"{"tags":["2"]}"#));
    assert_eq!(user.succeed("rbox", &["tags", &format!("{host}/app")]), "1\n2\n");
}
