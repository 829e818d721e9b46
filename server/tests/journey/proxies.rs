//! Registries that are reached through a proxy: Debian's tinyproxy, in a network namespace of their own, for the loopback
//! is never reached through one; and one that speaks SOCKS, which knows names that nobody else does.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use super::authority::Authority;
use super::common::needs::{installed, root};
use super::common::{Rhub, wait_until};
use super::image::{Image, tar};
use super::networks::Namespace;
use super::tools::{User, program_path, stderr};

/// The address that a machine's other hosts see.
const ADDRESS: &str = "198.51.100.1";

/// A proxy that demands a password, and a registry behind it.
struct Behind {
    namespace: Namespace,
    authority: Authority,
    secure: Rhub,
    plain: Rhub,
    proxy: Child,
    directory: tempfile::TempDir,
}

impl Drop for Behind {
    fn drop(&mut self) {
        let _ = self.proxy.kill();
        let _ = self.proxy.wait();
    }
}

impl Behind {
    fn new(more: &str) -> Option<Self> {
        if !root() || !["tinyproxy", "unshare", "nsenter", "ip"].iter().all(|program| installed(program)) {
            return None;
        }
        let (authority, namespace, directory) = (Authority::new()?, Namespace::new(), tempfile::tempdir().unwrap());
        namespace.lead_outside();
        authority.sign("server", ADDRESS);
        let listen = format!("{ADDRESS}:0");
        let mut serve = Command::new(program_path("rhub"));
        let secure = Rhub::start_command(namespace.inside(authority.serve_command(&listen, "server").arg("--insecure")));
        let plain = Rhub::start_command(
            namespace
                .inside(serve.args(["serve", "--insecure", "--listen", &listen, "--data"]).arg(directory.path().join("plain"))),
        );
        let log = directory.path().join("log");
        let config = format!(
            "Port 8888\nListen {ADDRESS}\nBasicAuth user hunter2\nLogLevel Connect\nLogFile \"{}\"\n{more}",
            log.display()
        );
        std::fs::write(directory.path().join("config"), config).unwrap();
        let mut proxy = Command::new("tinyproxy");
        proxy.arg("-d").arg("-c").arg(directory.path().join("config"));
        let proxy = namespace.inside(&proxy).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let behind = Self { namespace, authority, secure, plain, proxy, directory };
        wait_until("the proxy listens", || behind.namespace.sh("ss -ltn").contains(":8888"));
        Some(behind)
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    fn log_path(&self) -> PathBuf {
        self.directory.path().join("log")
    }

    /// A user who knows the registry's authority.
    fn user(&self) -> User {
        let user = User::new();
        let certificates = user.home().join(".config/containers/certs.d").join(&self.secure.address);
        self.authority.put(&certificates, &[("ca.crt", "ca.crt")]);
        let own = format!("[{:?}]\nplain-http = true\n", self.plain.address);
        std::fs::create_dir_all(user.home().join(".config/longshore")).unwrap();
        std::fs::write(user.home().join(".config/longshore/registries.toml"), own).unwrap();
        user
    }

    /// What a command with these variables says; whether it succeeded.
    fn run(&self, user: &User, variables: &[(&str, &str)], program: &str, args: &[&str]) -> (bool, String) {
        let mut command = user.command(program, args);
        command.envs(variables.iter().copied());
        let output = self.namespace.inside(&command).output().unwrap();
        (output.status.success(), stderr(&output))
    }
}

fn push_source() -> (tempfile::TempDir, String) {
    let layout = tempfile::tempdir().unwrap();
    Image::new(&[tar(&[("a", b"x")])]).write_layout(layout.path(), "1");
    let source = format!("oci:{}:1", layout.path().display());
    (layout, source)
}

#[test]
fn https_goes_through_a_tunnel_and_http_is_passed_on_and_exceptions_go_straight() {
    let Some(behind) = Behind::new("") else { return };
    let (user, (_layout, source)) = (behind.user(), push_source());
    let (secure, plain) = (format!("{}/app:1", behind.secure.address), format!("{}/app:1", behind.plain.address));
    let url = format!("http://user:hunter2@{ADDRESS}:8888");
    for (name, variable) in [(&secure, "HTTPS_PROXY"), (&plain, "http_proxy"), (&plain, "ALL_PROXY")] {
        let before = behind.log().len();
        let (succeeded, said) = behind.run(&user, &[(variable, &url)], "rpush", &[&source, name]);
        assert!(succeeded, "{variable}: {said}");
        let news = behind.log().split_off(before);
        assert!(news.contains(name.split('/').next().unwrap()), "{variable}: {news}");
        assert_eq!(news.contains(": CONNECT "), name == &secure, "{variable}: {news}");
    }
    let before = behind.log().len();
    for exception in [&behind.secure.address, "198.51.100.0/24", ADDRESS, "*"] {
        let variables = [("HTTPS_PROXY", &*url), ("NO_PROXY", exception)];
        let (succeeded, said) = behind.run(&user, &variables, "rpull", &[&secure]);
        assert!(succeeded, "{exception}: {said}");
        user.succeed("rbox", &["rmi", &secure]);
    }
    assert_eq!(behind.log().len(), before, "{}", behind.log());
    // docker's file says what the environment does not.
    let config = serde_json::json!({ "proxies": { "default": { "httpsProxy": url } } }).to_string();
    std::fs::create_dir_all(user.home().join(".docker")).unwrap();
    std::fs::write(user.home().join(".docker/config.json"), config).unwrap();
    assert!(behind.run(&user, &[], "rpull", &[&secure]).0);
    assert!(behind.log().len() > before);
}

#[test]
fn what_a_proxy_refuses_is_said_to_be_its_doing_and_no_password_with_it() {
    let Some(behind) = Behind::new("ConnectPort 443\n") else { return };
    let user = behind.user();
    let (secure, plain) = (format!("{}/app:1", behind.secure.address), format!("{}/app:1", behind.plain.address));
    let named = format!("through the proxy http://{ADDRESS}:8888");
    for (name, variable) in [(&secure, "HTTPS_PROXY"), (&plain, "HTTP_PROXY")] {
        let (_, said) = behind.run(&user, &[(variable, &format!("{ADDRESS}:8888"))], "rpull", &[name]);
        assert!(said.contains(&named) && said.contains(variable), "{said}");
        assert!(said.contains("user name and a password"), "{said}");
    }
    let wrong = format!("http://user:hunter3@{ADDRESS}:8888");
    let (_, said) = behind.run(&user, &[("HTTPS_PROXY", &wrong)], "rpull", &[&secure]);
    assert!(said.contains(&named) && said.contains("does not take the password") && !said.contains("hunter"), "{said}");
    let right = format!("http://user:hunter2@{ADDRESS}:8888");
    let (_, said) = behind.run(&user, &[("HTTPS_PROXY", &right)], "rpull", &[&secure]);
    assert!(said.contains(&named) && said.contains("it refuses to connect there"), "{said}");
    let (_, said) = behind.run(&user, &[("HTTPS_PROXY", &format!("http://{ADDRESS}:1"))], "rpull", &[&secure]);
    assert!(said.contains(&format!("through the proxy http://{ADDRESS}:1 (HTTPS_PROXY)")), "{said}");
}

/// A SOCKS proxy (RFC 1928, RFC 1929) that demands `user` and `hunter2`, and takes every name for one address. Gives its
/// own; its threads end with the test's process.
fn socks(target: &str) -> String {
    let (listener, target) = (TcpListener::bind("127.0.0.1:0").unwrap(), target.to_owned());
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            let target = target.clone();
            // Who hangs up too early gets nothing.
            std::thread::spawn(move || drop(serve_socks(connection.unwrap(), &target)));
        }
    });
    address
}

fn serve_socks(mut client: TcpStream, target: &str) -> std::io::Result<()> {
    let read = |length: usize, client: &mut TcpStream| -> std::io::Result<Vec<u8>> {
        let mut bytes = vec![0; length];
        client.read_exact(&mut bytes).map(|()| bytes)
    };
    let methods = read(2, &mut client)?[1];
    read(methods.into(), &mut client)?;
    client.write_all(&[5, 2])?;
    let user = read(2, &mut client)?[1];
    assert_eq!(read(user.into(), &mut client)?, b"user");
    let password = read(1, &mut client)?[0];
    assert_eq!(read(password.into(), &mut client)?, b"hunter2");
    client.write_all(&[1, 0])?;
    let request = read(5, &mut client)?;
    assert_eq!(request[..4], [5, 1, 0, 3], "a connection to a name");
    assert_eq!(read(usize::from(request[4]) + 2, &mut client)?, b"hidden.example\x00\x50");
    let mut server = TcpStream::connect(target)?;
    client.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0])?;
    let (mut from, mut to) = (client.try_clone()?, server.try_clone()?);
    std::thread::spawn(move || std::io::copy(&mut from, &mut to));
    std::io::copy(&mut server, &mut client).map(drop)
}

#[test]
fn a_name_that_only_a_socks_proxy_knows_is_asked_there() {
    let (data, user, (_layout, source)) = (tempfile::tempdir().unwrap(), User::new(), push_source());
    let rhub = Rhub::start(data.path());
    let own = user.home().join(".config/longshore/registries.toml");
    std::fs::create_dir_all(own.parent().unwrap()).unwrap();
    std::fs::write(own, "[\"hidden.example\"]\nplain-http = true\n").unwrap();
    let mut command = user.command("rpush", &[&source, "hidden.example/app:1"]);
    let output = command.env("ALL_PROXY", format!("socks5h://user:hunter2@{}", socks(&rhub.address))).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(rhub.get("/v2/app/manifests/1").status, 200);
}
