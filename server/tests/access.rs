//! Who may do what, through the real program: roles, actions and endpoints; credentials that are none;
//! what must not be learned.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

mod common;
#[path = "common/users.rs"]
mod users;

use common::{OCI_MANIFEST, Reply, error, image_manifest};
use longshore_runtime::name::Digest;
use users::{Hub, PASSWORD, SERVICE, basic, claims, forge};

/// The roles of the matrix, in the order of its columns.
const ROLES: [&str; 5] = ["anonymous", "reader", "creator", "writer", "admin"];

const RULES: &str = r#"
[[access.rules]]
who = ["anonymous"]
repositories = ["public/**"]
allow = ["pull"]
[[access.rules]]
who = ["user:reader", "user:creator", "user:writer"]
repositories = ["team/*"]
allow = ["pull"]
[[access.rules]]
who = ["user:creator"]
repositories = ["team/*"]
allow = ["create"]
[[access.rules]]
who = ["user:writer"]
repositories = ["team/*"]
allow = ["push"]
[[access.rules]]
who = ["user:admin"]
repositories = ["**"]
allow = ["pull", "push", "delete"]
"#;

fn hub() -> Hub {
    Hub::start(&ROLES[1..], RULES)
}

/// With one image in each of `team/app`, `public/app` and `secret/app`.
fn filled() -> Hub {
    let hub = hub();
    ["team/app", "public/app", "secret/app"].iter().for_each(|repo| hub.push_image(repo, "v1", repo));
    hub
}

/// How a role shows who it is.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Scheme {
    Basic,
    Bearer,
}

/// One of the roles, asking.
struct Caller<'a> {
    hub: &'a Hub,
    role: &'static str,
    scheme: Scheme,
}

impl Caller<'_> {
    fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Reply {
        let authorization = match (self.role, self.scheme) {
            ("anonymous", Scheme::Basic) => None,
            (role, Scheme::Basic) => Some(basic(role, PASSWORD)),
            (role, Scheme::Bearer) => {
                // What docker asks for; a client that meets a challenge asks for what that says.
                let repo = path.strip_prefix("/v2/").unwrap().split(['?', '&']).next().unwrap();
                let end = ["/blobs/", "/manifests/", "/tags/", "/referrers/"].iter().find_map(|end| repo.find(end));
                let scope = end.map_or("registry:catalog:*".to_owned(), |end| format!("repository:{}:*", &repo[..end]));
                let scope = match path.split_once("from=") {
                    Some((_, from)) => format!("{scope} repository:{from}:pull"),
                    None => scope,
                };
                let user = (role != "anonymous").then_some((role, PASSWORD));
                Some(format!("Bearer {}", self.hub.token(user, &scope)))
            }
        };
        let mut headers = headers.to_vec();
        headers.extend(authorization.as_ref().map(|value| ("authorization", value.as_str())));
        self.hub.rhub.send(method, path, &headers, body)
    }

    /// A name no other call has.
    fn own(&self, prefix: &str) -> String {
        format!("{prefix}-{}-{:?}", self.role, self.scheme).to_lowercase()
    }

    fn put_manifest(&self, repo: &str, tag: &str, layer: &str) -> Reply {
        let manifest = image_manifest(b"{}", layer.as_bytes());
        self.send("PUT", &format!("/v2/{repo}/manifests/{tag}"), &[("content-type", OCI_MANIFEST)], manifest.as_bytes())
    }
}

/// A line of the matrix: what is asked, and the status for each of [`ROLES`].
type Line = (&'static str, fn(&Caller<'_>) -> Reply, [u16; 5]);

fn get(caller: &Caller<'_>, path: &str) -> Reply {
    caller.send("GET", path, &[], b"")
}

fn blob(content: &str) -> Digest {
    Digest::of(content.as_bytes())
}

/// A session of the caller's own if it may have one, else one of the admin's.
fn session(caller: &Caller<'_>, repo: &str) -> String {
    let own = caller.send("POST", &format!("/v2/{repo}/blobs/uploads/"), &[], b"");
    if own.status == 202 {
        return own.header("location").to_owned();
    }
    let headers = [("authorization", basic("admin", PASSWORD))];
    let headers = headers.each_ref().map(|(name, value)| (*name, value.as_str()));
    caller.hub.rhub.send("POST", &format!("/v2/{repo}/blobs/uploads/"), &headers, b"").header("location").to_owned()
}

#[rustfmt::skip]
const MATRIX: &[Line] = &[
    //                                                                                                 anonymous reader creator writer admin
    ("the catalog", |c| get(c, "/v2/_catalog"),                                                             [200, 200, 200, 200, 200]),

    ("GET manifest of public", |c| get(c, "/v2/public/app/manifests/v1"),                                   [200, 200, 200, 200, 200]),
    ("GET manifest of team", |c| get(c, "/v2/team/app/manifests/v1"),                                       [401, 200, 200, 200, 200]),
    ("HEAD manifest of team", |c| c.send("HEAD", "/v2/team/app/manifests/v1", &[], b""),                    [401, 200, 200, 200, 200]),
    ("GET manifest of secret", |c| get(c, "/v2/secret/app/manifests/v1"),                                   [401, 403, 403, 403, 200]),
    ("GET manifest that is not there", |c| get(c, "/v2/team/app/manifests/v0"),                             [401, 404, 404, 404, 404]),
    ("GET manifest below team/*", |c| get(c, "/v2/team/app/deep/manifests/v1"),                             [401, 403, 403, 403, 404]),
    ("GET blob of team", |c| get(c, &format!("/v2/team/app/blobs/{}", blob("team/app"))),                   [401, 200, 200, 200, 200]),
    ("HEAD blob of team", |c| c.send("HEAD", &format!("/v2/team/app/blobs/{}", blob("team/app")), &[], b""), [401, 200, 200, 200, 200]),
    ("HEAD blob of secret", |c| c.send("HEAD", &format!("/v2/secret/app/blobs/{}", blob("secret/app")), &[], b""), [401, 403, 403, 403, 200]),
    ("HEAD blob of secret in team", |c| c.send("HEAD", &format!("/v2/team/app/blobs/{}", blob("secret/app")), &[], b""), [401, 404, 404, 404, 404]),
    ("tags of public", |c| get(c, "/v2/public/app/tags/list"),                                              [200, 200, 200, 200, 200]),
    ("tags of team", |c| get(c, "/v2/team/app/tags/list"),                                                  [401, 200, 200, 200, 200]),
    ("tags of secret", |c| get(c, "/v2/secret/app/tags/list"),                                              [401, 403, 403, 403, 200]),

    ("referrers in public", |c| get(c, &format!("/v2/public/app/referrers/{}", blob("x"))),                 [200, 200, 200, 200, 200]),
    ("referrers in team", |c| get(c, &format!("/v2/team/app/referrers/{}", blob("x"))),                     [401, 200, 200, 200, 200]),
    ("referrers in secret", |c| get(c, &format!("/v2/secret/app/referrers/{}", blob("x"))),                 [401, 403, 403, 403, 200]),
    ("referrers where nothing is", |c| get(c, &format!("/v2/secret/none/referrers/{}", blob("x"))),         [401, 403, 403, 403, 200]),

    ("POST upload to public", |c| c.send("POST", "/v2/public/app/blobs/uploads/", &[], b""),                [401, 403, 403, 403, 202]),
    ("POST upload to team", |c| c.send("POST", "/v2/team/app/blobs/uploads/", &[], b""),                    [401, 403, 202, 202, 202]),
    ("POST upload to secret", |c| c.send("POST", "/v2/secret/app/blobs/uploads/", &[], b""),                [401, 403, 403, 403, 202]),
    ("POST whole blob to team", |c| c.send("POST", &format!("/v2/team/app/blobs/uploads/?digest={}", blob("whole")), &[], b"whole"), [401, 403, 201, 201, 201]),
    ("GET status of an upload", |c| get(c, &session(c, "team/app")),                                        [401, 403, 204, 204, 204]),
    ("PATCH an upload", |c| c.send("PATCH", &session(c, "team/app"), &[], b"x"),                            [401, 403, 202, 202, 202]),
    ("PUT an upload", |c| c.send("PUT", &format!("{}?digest={}", session(c, "team/app"), blob("x")), &[], b"x"), [401, 403, 201, 201, 201]),
    ("DELETE an upload", |c| c.send("DELETE", &session(c, "team/app"), &[], b""),                           [401, 403, 204, 204, 204]),

    ("mount from public", |c| mount(c, "public/app"),                                                       [401, 403, 201, 201, 201]),
    ("mount from secret", |c| mount(c, "secret/app"),                                                       [401, 403, 202, 202, 201]),
    ("mount from nowhere", |c| mount(c, "secret/none"),                                                     [401, 403, 202, 202, 202]),

    ("PUT a new tag", |c| c.put_manifest("team/app", &c.own("new"), "team/app"),                            [401, 403, 201, 201, 201]),
    ("PUT a tag again", |c| c.put_manifest("team/app", "v1", "team/app"),                                   [401, 403, 201, 201, 201]),
    ("PUT a tag elsewhere", move_tag,                                                                       [401, 403, 403, 201, 201]),
    ("PUT one new and one old tag", |c| c.put_manifest("team/app", &format!("{}?tag=v1", other_digest(c)), "other"), [401, 403, 403, 201, 201]),
    ("PUT by digest", |c| c.put_manifest("team/app", Digest::of(image_manifest(b"{}", b"team/app").as_bytes()).as_str(), "team/app"), [401, 403, 201, 201, 201]),
    ("PUT a tag of public", |c| c.put_manifest("public/app", &c.own("new"), "public/app"),                  [401, 403, 403, 403, 201]),

    ("DELETE a tag", |c| delete_tag(c, "team/app"),                                                         [401, 403, 403, 403, 202]),
    ("DELETE a tag of public", |c| delete_tag(c, "public/app"),                                             [401, 403, 403, 403, 202]),
    ("DELETE a manifest", |c| c.send("DELETE", &format!("/v2/team/app/manifests/{}", blob("none")), &[], b""), [401, 403, 403, 403, 404]),
    ("DELETE a blob", |c| c.send("DELETE", &format!("/v2/team/app/blobs/{}", blob("none")), &[], b""),       [401, 403, 403, 403, 404]),
];

fn mount(caller: &Caller<'_>, from: &str) -> Reply {
    // Into a repository of the scheme's own, so that nothing is there already.
    let to = format!("team/{}", caller.own("mount"));
    caller.send("POST", &format!("/v2/{to}/blobs/uploads/?mount={}&from={from}", blob(from)), &[], b"")
}

fn move_tag(caller: &Caller<'_>) -> Reply {
    let tag = caller.own("moving");
    caller.hub.push_image("team/app", &tag, "before");
    caller.hub.push_image("team/app", "after", "after");
    caller.put_manifest("team/app", &tag, "after")
}

/// Of a manifest that is in the repository without being tagged `v1`, as that is put back.
fn other_digest(caller: &Caller<'_>) -> Digest {
    caller.hub.push_image("team/app", "v1", "team/app");
    caller.hub.push_image("team/app", "other", "other");
    Digest::of(image_manifest(b"{}", b"other").as_bytes())
}

fn delete_tag(caller: &Caller<'_>, repo: &str) -> Reply {
    let tag = caller.own("going");
    caller.hub.push_image(repo, &tag, repo);
    caller.send("DELETE", &format!("/v2/{repo}/manifests/{tag}"), &[], b"")
}

#[test]
fn every_role_may_do_what_the_rules_allow_and_nothing_else() {
    let hub = &filled();
    let mut wrong = Vec::new();
    for (what, ask, expected) in MATRIX {
        for scheme in [Scheme::Basic, Scheme::Bearer] {
            for (role, expected) in ROLES.into_iter().zip(expected) {
                let reply = ask(&Caller { hub, role, scheme });
                if reply.status != *expected {
                    wrong.push(format!("{what}: {role} by {scheme:?}: {} instead of {expected}", reply.status));
                }
                match (reply.status, reply.body.is_empty()) {
                    (401, false) => assert_eq!(reply.error(), error(401, "UNAUTHORIZED"), "{what}"),
                    (403, false) => assert_eq!(reply.error(), error(403, "DENIED"), "{what}"),
                    _ => {}
                }
                assert_eq!(reply.find_header("www-authenticate").is_some(), reply.status == 401, "{what}: {reply:?}");
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn credentials_that_are_none_open_nothing_not_even_what_is_public() {
    let hub = filled();
    hub.add_user("removed");
    let removed = hub.token(Some(("removed", PASSWORD)), "repository:team/app:pull");
    let changed = hub.token(Some(("reader", PASSWORD)), "repository:team/app:pull");
    let good = hub.token(Some(("writer", PASSWORD)), "repository:public/app:pull,push");
    hub.remove_user("removed");
    hub.change_password("reader", "another");

    let key = hub.signing_key();
    let ours = claims("admin", SERVICE, 0, 300);
    let stampless = forge(&key, &ours);
    let expired = forge(&key, &hub.with_stamp_of(&good, claims("writer", SERVICE, -400, -100)));
    let not_yet = forge(&key, &hub.with_stamp_of(&good, claims("writer", SERVICE, 100, 400)));
    let elsewhere = forge(&key, &hub.with_stamp_of(&good, claims("writer", "other.example", 0, 300)));
    let signed_by_another = forge(b"another key", &hub.with_stamp_of(&good, claims("writer", SERVICE, 0, 300)));
    let as_it_should_be = forge(&key, &hub.with_stamp_of(&good, claims("writer", SERVICE, 0, 300)));
    let unsigned = format!("{}.", as_it_should_be.rsplit_once('.').unwrap().0);
    let bearer = |token: &str| vec![format!("Bearer {token}")];
    let status = |authorization: &[String], method: &str, path: &str| {
        let headers: Vec<_> = authorization.iter().map(|value| ("authorization", value.as_str())).collect();
        let reply = hub.rhub.send(method, path, &headers, b"");
        assert_eq!(reply.find_header("www-authenticate").is_some(), reply.status == 401, "{reply:?}");
        reply.status
    };
    assert_eq!(status(&bearer(&as_it_should_be), "GET", "/v2/public/app/manifests/v1"), 200, "the forger knows how");
    for (what, authorization) in [
        ("wrong password", vec![basic("admin", "wrong")]),
        ("no password", vec![basic("admin", "")]),
        ("unknown user", vec![basic("nobody", PASSWORD)]),
        ("removed user", vec![basic("removed", PASSWORD)]),
        ("old password", vec![basic("reader", PASSWORD)]),
        ("no user", vec![basic("", "")]),
        ("two headers", vec![basic("admin", PASSWORD), basic("admin", PASSWORD)]),
        ("no scheme", vec![PASSWORD.to_owned()]),
        ("other scheme", vec!["Negotiate abc".to_owned()]),
        ("token of a removed user", bearer(&removed)),
        ("token from before the password was changed", bearer(&changed)),
        ("token without the user's stamp", bearer(&stampless)),
        ("expired token", bearer(&expired)),
        ("token for later", bearer(&not_yet)),
        ("token of another service", bearer(&elsewhere)),
        ("token of another key", bearer(&signed_by_another)),
        ("unsigned token", bearer(&unsigned)),
        ("no token", bearer("x")),
        ("a password for a token", bearer(PASSWORD)),
    ] {
        for (method, path) in [
            ("GET", "/v2/"),
            ("GET", "/v2/_catalog"),
            ("GET", "/v2/public/app/manifests/v1"),
            ("GET", "/v2/team/app/manifests/v1"),
            ("HEAD", "/v2/secret/app/manifests/v1"),
            ("POST", "/v2/team/app/blobs/uploads/"),
            ("DELETE", "/v2/team/app/manifests/v1"),
            ("GET", "/v2/token?scope=repository:public/app:pull"),
        ] {
            assert_eq!(status(&authorization, method, path), 401, "{what}: {method} {path}");
        }
    }
}

#[test]
fn a_user_who_is_removed_or_gets_another_password_loses_access_while_the_server_runs() {
    let hub = filled();
    let token = format!("Bearer {}", hub.token(Some(("reader", PASSWORD)), "repository:team/app:pull"));
    let status =
        |authorization: &str| hub.rhub.send("GET", "/v2/team/app/manifests/v1", &[("authorization", authorization)], b"").status;
    let password = basic("reader", PASSWORD);
    assert_eq!((status(&password), status(&token)), (200, 200));
    std::fs::write(hub.htpasswd(), "reader:hunter2\n").unwrap();
    common::wait_until("the broken file is noticed", || {
        let _ = status(&password);
        hub.log().contains("users stay as they were")
    });
    assert_eq!((status(&password), status(&token)), (200, 200), "a broken file changes nothing");
    assert!(!hub.log().contains("hunter2"), "{}", hub.log());
    hub.write_users(&ROLES[2..]);
    common::wait_until("the removed user is kept out", || status(&password) == 401 && status(&token) == 401);
    hub.write_users(&ROLES[1..]);
    common::wait_until("the user is back", || status(&password) == 200);
    assert_eq!(status(&token), 401, "but as another: the token is not theirs");
}

#[test]
fn the_challenge_says_where_to_get_which_token() {
    let hub = filled();
    let challenge = |method: &str, path: &str, headers: &[(&str, &str)]| {
        let reply = hub.rhub.send(method, path, headers, b"");
        assert_eq!(reply.count("www-authenticate"), 1, "one scheme: see access::origin");
        reply.header("www-authenticate").to_owned()
    };
    let base = format!("Bearer realm=\"http://{SERVICE}/v2/token\",service=\"{SERVICE}\"");
    assert_eq!(challenge("GET", "/v2/", &[("x-forwarded-proto", "https"), ("x-forwarded-host", "evil")]), base);
    for (method, path, scope) in [
        ("GET", "/v2/team/app/manifests/v1", "repository:team/app:pull"),
        (
            "HEAD",
            "/v2/no/such/blobs/sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            "repository:no/such:pull",
        ),
        ("POST", "/v2/team/app/blobs/uploads/", "repository:team/app:pull,push"),
        ("PUT", "/v2/team/app/manifests/v1", "repository:team/app:pull,push"),
        ("DELETE", "/v2/team/app/manifests/v1", "repository:team/app:delete"),
    ] {
        assert_eq!(challenge(method, path, &[]), format!("{base},scope=\"{scope}\""));
    }
    let narrow = format!("Bearer {}", hub.token(Some(("admin", PASSWORD)), "repository:team/app:pull"));
    let wider = challenge("POST", "/v2/team/app/blobs/uploads/", &[("authorization", &narrow)]);
    assert_eq!(wider, format!("{base},scope=\"repository:team/app:pull,push\",error=\"insufficient_scope\""));
    let catalog = challenge("GET", "/v2/_catalog", &[("authorization", &narrow)]);
    assert_eq!(catalog, format!("{base},scope=\"registry:catalog:*\",error=\"insufficient_scope\""));
    assert_eq!(challenge("GET", "/v2/", &[("authorization", "Bearer x")]), format!("{base},error=\"invalid_token\""));

    let injected = "GET /v2/ HTTP/1.1\r\nhost: a\",realm=\"evil\r\nconnection: close\r\n\r\n";
    assert_eq!(Reply::read(hub.rhub.raw(injected)).unwrap().status, 400);
}

#[test]
fn the_public_url_is_what_clients_are_told() {
    let hub = Hub::start_with(&["alice"], "", "public_url = \"https://hub.example\"\n");
    let said = hub.rhub.get("/v2/").header("www-authenticate").to_owned();
    assert_eq!(said, "Bearer realm=\"https://hub.example/v2/token\",service=\"hub.example\"");
    let token = hub.token(Some(("alice", PASSWORD)), "");
    assert_eq!(hub.rhub.send("GET", "/v2/", &[("authorization", &format!("Bearer {token}"))], b"").status, 200);
}

#[test]
fn a_token_is_for_what_was_asked_and_allowed() {
    let hub = filled();
    let bearer = |user: Option<&str>, scope: &str| format!("Bearer {}", hub.token(user.map(|user| (user, PASSWORD)), scope));
    let status = |token: &str, method: &str, path: &str| hub.rhub.send(method, path, &[("authorization", token)], b"").status;
    let pull = bearer(Some("admin"), "repository:team/app:pull");
    assert_eq!(status(&pull, "GET", "/v2/team/app/manifests/v1"), 200);
    assert_eq!(status(&pull, "GET", "/v2/secret/app/manifests/v1"), 401, "another repository");
    assert_eq!(status(&pull, "DELETE", "/v2/team/app/manifests/v1"), 401, "another action");
    let both = bearer(Some("admin"), "repository:team/app:pull repository:secret/app:pull,push x:y:z");
    assert_eq!(status(&both, "GET", "/v2/team/app/manifests/v1"), 200);
    assert_eq!(status(&both, "POST", "/v2/secret/app/blobs/uploads/"), 202);
    let beyond = bearer(Some("reader"), "repository:team/app:pull,push,delete");
    assert_eq!(status(&beyond, "GET", "/v2/team/app/manifests/v1"), 200);
    assert_eq!(status(&beyond, "POST", "/v2/team/app/blobs/uploads/"), 403);
    let nobody = bearer(None, "repository:public/app:pull,push repository:team/app:pull");
    assert_eq!(status(&nobody, "GET", "/v2/"), 200);
    assert_eq!(status(&nobody, "GET", "/v2/public/app/manifests/v1"), 200);
    assert_eq!(status(&nobody, "GET", "/v2/team/app/manifests/v1"), 401);
    assert_eq!(status(&pull, "GET", "/v2/token?scope=repository:team/app:push"), 401, "no token begets another");
}

#[test]
fn tokens_are_had_as_clients_ask_for_them() {
    let hub = hub();
    let admin = basic("admin", PASSWORD);
    let get = |query: &str| hub.rhub.send("GET", &format!("/v2/token?{query}"), &[("authorization", &admin)], b"");
    let reply = get(&format!(
        "account=admin&client_id=docker&offline_token=true&service={SERVICE}&scope=repository%3Aa%2Fb%3Apull%2Cpush&scope=repository:c:*",
    ));
    assert_eq!((reply.status, reply.header("cache-control")), (200, "no-store"));
    let said = reply.json();
    assert_eq!((&said["token"], &said["expires_in"]), (&said["access_token"], &serde_json::json!(300)));
    let claims = users::payload(said["token"].as_str().unwrap());
    assert_eq!(
        claims["access"],
        serde_json::json!([
            {"type": "repository", "name": "a/b", "actions": ["pull", "push"]},
            {"type": "repository", "name": "c", "actions": ["pull", "push", "delete"]},
        ])
    );
    assert_eq!((&claims["sub"], &claims["aud"]), (&"admin".into(), &SERVICE.into()));
    assert_eq!(get("service=other.example").status, 400);
    assert_eq!(get(&"scope=repository:a:pull&".repeat(40)).status, 400);

    let post = |form: &str| {
        let headers = [("content-type", "application/x-www-form-urlencoded")];
        hub.rhub.send("POST", "/v2/token", &headers, form.as_bytes())
    };
    let form = format!("grant_type=password&username=admin&password={PASSWORD}&client_id=containerd-client");
    let scope = "scope=repository%3Aa%3Apull+repository%3Ab%3Apull";
    let reply = post(&format!("{form}&service={SERVICE}&{scope}"));
    assert_eq!(users::payload(reply.json()["access_token"].as_str().unwrap())["access"].as_array().unwrap().len(), 2);
    let wrong = post(&form.replace(PASSWORD, "wrong"));
    assert_eq!((wrong.error(), wrong.header("www-authenticate")), (error(401, "UNAUTHORIZED"), "Basic realm=\"rhub\""));
    for (bad, status) in [
        ("grant_type=refresh_token&refresh_token=x".to_owned(), 400),
        ("".to_owned(), 400),
        ("grant_type=password".to_owned(), 401),
        ("grant_type=password&username=%zz".to_owned(), 400),
        (format!("{form}&pad={}", "x".repeat(20_000)), 400),
    ] {
        assert_eq!(post(&bad).status, status, "{bad:.80}");
    }
    assert_eq!(hub.rhub.send("DELETE", "/v2/token", &[], b"").status, 405);
}

#[test]
fn cve_2024_39897_a_blob_of_another_repository_is_neither_mounted_nor_seen() {
    let hub = filled();
    let secret = blob("secret/app");
    let as_creator =
        |method: &str, path: &str| hub.rhub.send(method, path, &[("authorization", &basic("creator", PASSWORD))], b"");
    let mount = |from: &str| as_creator("POST", &format!("/v2/team/new/blobs/uploads/?mount={secret}&from={from}"));
    let (there, absent) = (mount("secret/app"), mount("secret/none"));
    assert_eq!((there.status, absent.status), (202, 202));
    assert_eq!(there.header_names(), absent.header_names(), "nothing tells the one from the other");
    assert_eq!(as_creator("HEAD", &format!("/v2/team/new/blobs/{secret}")).status, 404);
    let named = image_manifest(b"{}", b"secret/app");
    let headers = [("authorization", basic("creator", PASSWORD)), ("content-type", OCI_MANIFEST.to_owned())];
    let headers = headers.each_ref().map(|(name, value)| (*name, value.as_str()));
    let put = hub.rhub.send("PUT", "/v2/team/new/manifests/v1", &headers, named.as_bytes());
    assert_eq!(put.error(), error(404, "MANIFEST_BLOB_UNKNOWN"), "nor is it had by naming it");
}

#[test]
fn cve_2024_39897_a_blob_is_mounted_from_anywhere_the_caller_may_pull_from() {
    let hub = hub();
    let mount = |authorization: &str, content: &str| {
        let to = format!("/v2/team/new-{content}/blobs/uploads/?mount={}", blob(content));
        hub.rhub.send("POST", &to, &[("authorization", authorization)], b"").status
    };
    let bearer = |content: &str, scope: &str| {
        format!("Bearer {}", hub.token(Some(("admin", PASSWORD)), &format!("repository:team/new-{content}:push {scope}")))
    };
    // Each content once: what was mounted is in one more place.
    for (content, repo, authorization, expected) in [
        ("a", "public/app", basic("creator", PASSWORD), 201),
        ("b", "team/app", basic("creator", PASSWORD), 201),
        ("c", "secret/app", basic("creator", PASSWORD), 202),
        ("d", "secret/app", basic("admin", PASSWORD), 201),
        ("e", "secret/app", bearer("e", ""), 202),
        ("f", "secret/app", bearer("f", "repository:secret/app:pull"), 201),
    ] {
        hub.push_blob(repo, content.as_bytes());
        assert_eq!(mount(&authorization, content), expected, "{content} of {repo}");
    }
    assert_eq!(mount(&basic("admin", PASSWORD), "nowhere"), 202);
}

#[test]
fn cve_2026_31801_who_may_create_may_not_move_a_tag() {
    let hub = filled();
    let creator = Caller { hub: &hub, role: "creator", scheme: Scheme::Basic };
    hub.push_image("team/app", "other", "other");
    assert_eq!(creator.put_manifest("team/app", "v1", "other").error(), error(403, "DENIED"));
    let stands = get(&creator, "/v2/team/app/manifests/v1");
    assert_eq!(stands.body, image_manifest(b"{}", b"team/app").as_bytes());
    assert_eq!(creator.put_manifest("team/app", "v2", "other").status, 201);
}

#[test]
fn cve_2020_29662_nothing_tells_what_is_absent_from_what_is_not_yours() {
    let hub = filled();
    let digest = blob("secret/app");
    for (role, status) in [("anonymous", 401), ("reader", 403)] {
        let caller = Caller { hub: &hub, role, scheme: Scheme::Basic };
        for (method, path) in [
            ("GET", "/v2/REPO/manifests/v1".to_owned()),
            ("HEAD", "/v2/REPO/manifests/v1".to_owned()),
            ("PUT", "/v2/REPO/manifests/v1".to_owned()),
            ("DELETE", "/v2/REPO/manifests/v1".to_owned()),
            ("GET", format!("/v2/REPO/blobs/{digest}")),
            ("HEAD", format!("/v2/REPO/blobs/{digest}")),
            ("DELETE", format!("/v2/REPO/blobs/{digest}")),
            ("GET", "/v2/REPO/tags/list".to_owned()),
            ("GET", format!("/v2/REPO/referrers/{digest}")),
            ("POST", "/v2/REPO/blobs/uploads/".to_owned()),
            ("GET", format!("/v2/REPO/blobs/uploads/{}", "0".repeat(64))),
            ("PATCH", format!("/v2/REPO/blobs/uploads/{}", "0".repeat(64))),
        ] {
            let answers = ["secret/app", "secret/nil"].map(|repo| {
                let reply = caller.send(method, &path.replace("REPO", repo), &[], b"");
                let challenge = reply.find_header("www-authenticate").map(|value| value.replace(repo, "REPO"));
                (reply.status, reply.header_names(), challenge, String::from_utf8_lossy(&reply.body).replace(repo, "REPO"))
            });
            assert_eq!(answers[0], answers[1], "{role} {method} {path}");
            assert_eq!(answers[0].0, status, "{role} {method} {path}");
        }
    }
}

/// All pages of the catalog, as pages, and every link there was.
fn catalog(caller: &Caller<'_>, n: usize) -> (Vec<Vec<String>>, String) {
    let (mut path, mut pages, mut links) = (format!("/v2/_catalog?n={n}"), Vec::new(), String::new());
    loop {
        let reply = get(caller, &path);
        assert_eq!(reply.status, 200, "{reply:?}");
        let repositories = reply.json()["repositories"].as_array().unwrap().clone();
        pages.push(repositories.iter().map(|name| name.as_str().unwrap().to_owned()).collect());
        let Some(link) = reply.find_header("link") else { return (pages, links) };
        links.push_str(link);
        path = link.strip_prefix('<').unwrap().strip_suffix(">; rel=\"next\"").unwrap().to_owned();
        assert!(pages.len() < 1000, "the list does not end");
    }
}

#[test]
fn cve_2020_29662_the_catalog_shows_what_the_caller_may_pull() {
    // Two repositories a page, so twenty are looked at for one.
    let hub = Hub::start_with(&ROLES[1..], RULES, "");
    let hub = hub.restarted(&["--set", "limits.catalog_entries=2"]);
    let digest = hub.push_blob("public/a", b"shared");
    let add = |repo: &str| {
        let path = format!("/v2/{repo}/blobs/uploads/?mount={digest}&from=public/a");
        assert_eq!(hub.rhub.send("POST", &path, &[("authorization", &basic("admin", PASSWORD))], b"").status, 201);
    };
    let mut hidden: Vec<String> = (0..70).map(|n| format!("public0/hidden{n:02}")).collect();
    hidden.extend((0..3).map(|n| format!("aaa/hidden{n}")));
    hidden.iter().for_each(|repo| add(repo));
    ["public/b", "public/c", "team/x", "zzz/y"].iter().for_each(|repo| add(repo));

    let caller = |role| Caller { hub: &hub, role, scheme: Scheme::Basic };
    let (pages, links) = catalog(&caller("anonymous"), 2);
    assert_eq!(pages.concat(), ["public/a", "public/b", "public/c"]);
    assert_eq!(pages[0].len(), 2);
    assert!(!links.contains("hidden") && !links.contains("zzz"), "{links}");
    let (pages, links) = catalog(&caller("reader"), 2);
    assert_eq!(pages.concat(), ["public/a", "public/b", "public/c", "team/x"]);
    assert!(!links.contains("hidden") && !links.contains("zzz"), "{links}");
    let by_token = Caller { hub: &hub, role: "reader", scheme: Scheme::Bearer };
    assert_eq!(catalog(&by_token, 1).0.concat(), pages.concat());
    assert_eq!(catalog(&caller("admin"), 1000).0.concat().len(), hidden.len() + 5);
    assert_eq!(get(&caller("anonymous"), "/v2/_catalog?last=~abc").status, 400);
}

#[test]
fn an_upload_belongs_to_whoever_started_it() {
    let hub = filled();
    let caller = |role| Caller { hub: &hub, role, scheme: Scheme::Basic };
    let location = session(&caller("writer"), "team/app");
    let digest = blob("x");
    let short = &location[..location.len() - 32];
    for role in ["creator", "admin"] {
        for path in [location.as_str(), short] {
            for (method, path) in [
                ("GET", path.to_owned()),
                ("PATCH", path.to_owned()),
                ("PUT", format!("{path}?digest={digest}")),
                ("DELETE", path.to_owned()),
            ] {
                let reply = caller(role).send(method, &path, &[], b"x");
                assert_eq!(reply.error(), error(404, "BLOB_UPLOAD_UNKNOWN"), "{role} {method}");
            }
        }
    }
    let elsewhere = location.replace("team/app", "team/other");
    assert_eq!(get(&caller("writer"), &elsewhere).status, 404, "and to its repository");
    assert_eq!(caller("writer").send("PATCH", &location, &[], b"x").header("location"), location);
    let hub = hub.restarted(&[]);
    let writer = Caller { hub: &hub, role: "writer", scheme: Scheme::Bearer };
    assert_eq!(get(&writer, &location).status, 204, "however they show who they are, and after a restart");
    assert_eq!(writer.send("PUT", &format!("{location}?digest={digest}"), &[], b"").status, 201);
}

#[test]
fn cve_2025_48374_no_secret_is_in_a_log_line_an_error_or_the_process_title() {
    let hub = Hub::start_verbose(&ROLES[1..], RULES);
    let secrets = ["hunter2-basic", "hunter2-form", "hunter2-query", "hunter2-token"];
    let mut said = Vec::new();
    let mut send = |method: &str, path: &str, headers: &[(&str, &str)], body: &str| {
        said.push(format!("{:?}", hub.rhub.send(method, path, headers, body.as_bytes())));
    };
    send("GET", "/v2/team/app/manifests/v1", &[("authorization", &basic("admin", secrets[0]))], "");
    send("GET", "/v2/token", &[("authorization", &basic("no\u{1b}[31mbody", secrets[0]))], "");
    send("GET", "/v2/token", &[("authorization", &basic("eve", secrets[0]))], "");
    let form = format!("grant_type=password&username=admin&password={}", secrets[1]);
    send("POST", "/v2/token", &[("content-type", "application/x-www-form-urlencoded")], &form);
    send("POST", "/v2/token", &[("content-type", "text/plain")], &form);
    send("POST", "/v2/token", &[("content-type", "application/x-www-form-urlencoded")], &format!("{form}%zz"));
    send("POST", &format!("/v2/token?password={}", secrets[2]), &[], "");
    send("GET", &format!("/v2/token?password={}%zz", secrets[2]), &[], "");
    send("GET", "/v2/", &[("authorization", &format!("Bearer {}", secrets[3]))], "");
    send("GET", "/v2/", &[("authorization", secrets[3])], "");
    let token = hub.token(Some(("admin", PASSWORD)), "repository:team/app:pull");
    send("GET", "/v2/team/app/manifests/v1", &[("authorization", &format!("Bearer {token}"))], "");

    common::wait_until("the last request is logged", || hub.log().matches("/v2/team/app/manifests/v1").count() >= 2);
    let (log, said) = (hub.log(), said.join("\n"));
    let title = std::fs::read_to_string(format!("/proc/{}/cmdline", hub.rhub.pid())).unwrap();
    let signature = token.rsplit_once('.').unwrap().1;
    for secret in secrets.into_iter().chain([PASSWORD, signature, "$2b$"]) {
        assert!(!log.contains(secret) && !said.contains(secret) && !title.contains(secret), "{secret}\n{log}\n{said}");
    }
    assert!(log.contains("login failed") && log.contains("user=eve") && log.contains("127.0.0.1:"), "{log}");
    assert!(!log.contains("\u{1b}[31mbody"), "a user's name cannot colour the log");
}

#[test]
fn cve_2026_4404_nobody_is_there_by_default_and_nobody_makes_themselves_one() {
    let hub = Hub::start(&[], "");
    for (user, password) in
        [("admin", "admin"), ("admin", ""), ("admin", "password"), ("root", "root"), ("rhub", "rhub"), ("", "")]
    {
        for path in ["/v2/", "/v2/token", "/v2/a/tags/list"] {
            assert_eq!(hub.rhub.send("GET", path, &[("authorization", &basic(user, password))], b"").status, 401, "{user}");
        }
    }
    let form = "grant_type=password&username=admin&password=x&is_admin=true&sysadmin_flag=true";
    let headers = [("content-type", "application/x-www-form-urlencoded")];
    for path in ["/v2/token", "/v2/users", "/api/users", "/v2/token/register"] {
        assert!([401, 404].contains(&hub.rhub.send("POST", path, &headers, form.as_bytes()).status), "{path}");
    }
    assert_eq!(std::fs::read_to_string(hub.htpasswd()).unwrap(), "");
}

#[test]
fn rules_without_users_are_for_anybody() {
    let rules = "[[access.rules]]\nwho = [\"anonymous\"]\nrepositories = [\"open/**\"]\nallow = [\"pull\", \"push\"]\n";
    let hub = Hub::start_without_users(rules);
    assert_eq!(hub.rhub.get("/v2/").status, 200);
    hub.rhub.push_image("open/app", "v1", "layer");
    assert_eq!(hub.rhub.get("/v2/open/app/manifests/v1").status, 200);
    assert_eq!(hub.rhub.send("DELETE", "/v2/open/app/manifests/v1", &[], b"").error(), error(403, "DENIED"));
    assert_eq!(hub.rhub.get("/v2/other/manifests/v1").error(), error(403, "DENIED"), "there is nothing to log in with");
    assert_eq!(hub.rhub.get("/v2/token").status, 404);
    assert_eq!(hub.rhub.get("/v2/_catalog").json(), serde_json::json!({"repositories": ["open/app"]}));
}
