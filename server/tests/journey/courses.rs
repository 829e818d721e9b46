//! The example every course has: a database, and a web application in front of it that finds it by name.

use std::process::Command;

use super::common::needs::installed;
use super::common::wait_until;
use super::fixture::{Kind, Mounts, layout, nothing_left};
use super::networks::{Net, as_both};
use super::tools::stderr;

/// Counts its visits in the database.
const APPLICATION: &str = r#"
import http.server, signal, subprocess, sys

def ask(sql):
    words = ["mariadb", "-h", "db", "-u", "app", "-psecret", "--skip-ssl", "--batch", "--skip-column-names", "shop", "-e", sql]
    return subprocess.run(words, capture_output=True, text=True, timeout=20)

class Shop(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        answer = ask("insert into visits values (null); select count(*) from visits")
        self.send_response(200 if answer.returncode == 0 else 500)
        self.end_headers()
        self.wfile.write((answer.stdout or answer.stderr).encode())

signal.signal(signal.SIGINT, lambda *_: (print("closing", flush=True), sys.exit(3)))
print("open", flush=True)
http.server.HTTPServer(("", 80), Shop).serve_forever()
"#;

/// An image of the application: the database's with one more layer and another command.
fn application(database: &str, directory: &std::path::Path) -> String {
    let (path, tag) = database.rsplit_once(':').unwrap();
    let copy = directory.join("application");
    std::fs::write(directory.join("shop.py"), APPLICATION).unwrap();
    let (image, made) = (format!("{}:{tag}", copy.display()), format!("{}:shop", copy.display()));
    let program = directory.join("shop.py");
    for command in [
        &["cp", "-a", path, copy.to_str().unwrap()][..],
        &["umoci", "insert", "--image", &image, "--tag", "shop", program.to_str().unwrap(), "/srv/shop.py"],
        &[
            "umoci",
            "config",
            "--image",
            &made,
            "--config.entrypoint=python3",
            "--config.cmd=/srv/shop.py",
            "--config.stopsignal=SIGINT",
        ],
        &["umoci", "config", "--image", &made, "--config.exposedports=80/tcp"],
    ] {
        let output = Command::new(command[0]).args(&command[1..]).output().unwrap();
        assert!(output.status.success(), "{command:?}: {}", stderr(&output));
    }
    made
}

as_both! { a_web_application_finds_its_database_by_name_and_the_data_outlives_both }

fn a_web_application_finds_its_database_by_name_and_the_data_outlives_both(net: &Net) {
    let Some(database) = layout(Kind::Mysql) else { return };
    if !installed("umoci") {
        return;
    }
    let made = tempfile::tempdir().unwrap();
    let shop = application(&database, made.path());
    for (from, name) in [(&database, "mysql:5.7"), (&shop, "shop")] {
        net.provide(from, name);
    }
    let user = net.user();
    let before = Mounts::now(user);
    let rbox = |args: &[&str]| net.rbox(args);
    let mark = format!("MARK={}", user.store().display());
    let start = || {
        let run = ["-d", "-e", &mark, "--network", "tiers"];
        let db = ["--name", "db", "-v", "data:/var/lib/mysql", "mysql:5.7", "mariadbd", "--bind-address=0.0.0.0"];
        let web = ["--name", "web", "-p", "8080:80", "shop"];
        // For an ordinary user's there need be no cgroup.
        let limits = [&["--memory", "900m"], &["--cpus", "0.9"]].map(|limit| if net.is_root_s() { &limit[..] } else { &[] });
        [(limits[0], &db[..]), (limits[1], &web)]
            .map(|(limit, own)| net.rbox(&[&["run"][..], &run, limit, own].concat()).trim().to_owned())
    };
    // Its log is read while it runs.
    let ready = || {
        wait_until("the database is ready", || {
            let log = net.output("rbox", &["logs", "db"]);
            [log.stdout, log.stderr].concat().windows(21).any(|text| text == b"ready for connections")
        });
    };
    let visits = || {
        let mut command = Command::new("python3");
        command.args(["-c", "import urllib.request as r; print(r.urlopen('http://127.0.0.1:8080/').read().decode(), end='')"]);
        let output = net.inside(&command).output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        String::from_utf8(output.stdout).unwrap()
    };

    rbox(&["network", "create", "tiers"]);
    let first = start();
    ready();
    let sql = "create database shop; create table shop.visits (id int auto_increment primary key); \
               create user app@'%' identified by 'secret'; grant all on shop.* to app@'%'";
    rbox(&["exec", "-u", "mysql", "db", "mariadb", "-e", sql]);
    wait_until("the application is open", || rbox(&["logs", "web"]) == "open\n");
    assert_eq!((visits(), visits()), ("1\n".into(), "2\n".into()));
    assert_eq!(rbox(&["port", "web"]), "80/tcp -> 0.0.0.0:8080\n");
    let stats: Vec<serde_json::Value> =
        rbox(&["stats", "--no-stream", "--format", "json"]).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |name: &str| stats.iter().find(|row| row["Name"] == name).unwrap();
    assert!(!net.is_root_s() || of("db")["MemUsage"].as_str().unwrap().ends_with("/ 900MiB"), "{stats:?}");
    assert!(of("web")["PIDs"].as_str().unwrap().parse::<u32>().unwrap() >= 1, "{stats:?}");

    // By the stop signal of each: the application says so and has a code of its own, the database ends well.
    assert_eq!(rbox(&["stop", "web", "db"]), "web\ndb\n");
    assert_eq!(rbox(&["logs", "web"]), "open\nclosing\n");
    assert_eq!(rbox(&["wait", "web", "db"]), "3\n0\n");
    rbox(&["rm", "web", "db"]);
    assert_eq!(rbox(&["volume", "ls", "-q"]), "data\n");

    let second = start();
    ready();
    wait_until("the application is open", || rbox(&["logs", "web"]) == "open\n");
    assert_eq!(visits(), "3\n");
    rbox(&["rm", "-f", "web", "db"]);
    rbox(&["network", "rm", "tiers"]);
    rbox(&["volume", "rm", "data"]);
    net.nothing_connected();
    let ids: Vec<&str> = first.iter().chain(&second).map(String::as_str).collect();
    nothing_left(user, &before, &ids);
}
