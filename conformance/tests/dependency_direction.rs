//! Who may know whom, and where what is unsafe lives: the rules of the design, held by a test.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The longest a source file may be before it has to be split, its tests not counted.
const FILE_LIMIT_LINES: usize = 600;

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// What cargo knows of the workspace and of everything it depends on.
fn metadata() -> serde_json::Value {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--locked", "--offline", "--filter-platform", "host-tuple"])
        .current_dir(workspace())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn text(value: &serde_json::Value) -> String {
    value.as_str().unwrap().to_owned()
}

fn list(value: &serde_json::Value) -> Vec<serde_json::Value> {
    value.as_array().unwrap().clone()
}

/// What each package of the workspace reaches by normal dependencies, however indirectly.
fn reached() -> BTreeMap<String, BTreeSet<String>> {
    let metadata = metadata();
    let names: BTreeMap<_, _> = list(&metadata["packages"]).iter().map(|p| (text(&p["id"]), text(&p["name"]))).collect();
    let is_normal = |d: &serde_json::Value| list(&d["dep_kinds"]).iter().any(|kind| kind["kind"].is_null());
    let direct: BTreeMap<_, Vec<_>> = list(&metadata["resolve"]["nodes"])
        .iter()
        .map(|n| (text(&n["id"]), list(&n["deps"]).iter().filter(|d| is_normal(d)).map(|d| text(&d["pkg"])).collect()))
        .collect();
    let mut reached = BTreeMap::new();
    for member in list(&metadata["workspace_members"]) {
        let mut seen = BTreeSet::new();
        let mut open = direct[&text(&member)].clone();
        while let Some(id) = open.pop() {
            if seen.insert(names[&id].clone()) {
                open.extend(direct[&id].iter().cloned());
            }
        }
        reached.insert(names[&text(&member)].clone(), seen);
    }
    reached
}

#[test]
fn dependencies_point_the_way_the_design_says() {
    let forbidden: &[(&str, &[&str])] = &[
        (
            "longshore-runtime",
            &[
                "tokio",
                "reqwest",
                "axum",
                "hyper",
                "rustls",
                "sled",
                "longshore-client",
                "longshore-server",
                "longshore-conformance",
            ],
        ),
        ("longshore-client", &["axum", "sled", "longshore-server", "longshore-conformance"]),
        ("longshore-server", &["longshore-conformance"]),
        ("longshore-conformance", &["longshore-runtime", "longshore-client", "longshore-server"]),
    ];
    let reached = reached();
    assert_eq!(reached.keys().map(String::as_str).collect::<BTreeSet<_>>(), forbidden.iter().map(|(name, _)| *name).collect());
    for (package, names) in forbidden {
        let found: Vec<_> = names.iter().filter(|name| reached[*package].contains(**name)).collect();
        assert!(found.is_empty(), "{package} must not reach {found:?}");
    }
    // The walk itself: what is certainly there is found.
    assert!(reached["longshore-conformance"].contains("tokio"));
}

#[test]
fn every_direct_dependency_is_explained() {
    let page = std::fs::read_to_string(workspace().join("DEPENDENCIES.md")).unwrap();
    let rows = page.lines().filter_map(|line| line.strip_prefix("| ")?.split_once(" |")).map(|(first, _)| first);
    let explained: BTreeSet<_> = rows.flat_map(|first| first.split([' ', ','])).collect();
    let metadata = metadata();
    let members = list(&metadata["workspace_members"]);
    for package in list(&metadata["packages"]).iter().filter(|p| members.contains(&p["id"])) {
        for dependency in list(&package["dependencies"]).iter().filter(|d| d["path"].is_null()) {
            let name = text(&dependency["name"]);
            assert!(explained.contains(name.as_str()), "DEPENDENCIES.md does not say why {name} is here");
        }
    }
}

/// Every Rust file of the four crates, by its path below the workspace; what was built in them is not theirs.
fn sources() -> Vec<(PathBuf, String)> {
    let root = workspace();
    let mut open: Vec<_> = ["runtime", "client", "server", "conformance"].iter().map(|c| root.join(c)).collect();
    let mut files = Vec::new();
    while let Some(directory) = open.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && path.file_name().is_some_and(|name| name != "target") {
                open.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                files.push((path.strip_prefix(&root).unwrap().to_owned(), std::fs::read_to_string(&path).unwrap()));
            }
        }
    }
    assert!(files.len() > 10, "no sources found below {}", root.display());
    files
}

#[test]
fn unsafe_lives_in_one_file() {
    let home = Path::new("runtime/src/sys.rs");
    // Put together here, so that this file does not hold the words itself.
    let opening = ["{", "fn", "impl", "extern", "trait"].map(|what| format!("{} {what}", "unsafe"));
    let allowing = ["allow", "expect"].map(|what| format!("{what}({}_code", "unsafe"));
    for (path, text) in sources().iter().filter(|(path, _)| path != home) {
        // The crate's root is where that file is let in.
        let words = if path == Path::new("runtime/src/lib.rs") { &opening[..] } else { &[&opening[..], &allowing[..]].concat() };
        let mut code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
        let found = code.find(|line| words.iter().any(|word| line.contains(word)));
        assert!(found.is_none(), "{}: {}", path.display(), found.unwrap_or_default().trim());
    }
}

#[test]
fn every_file_says_its_subject_first_and_stays_readable() {
    for (path, text) in sources() {
        assert!(text.starts_with("//! "), "{}: the first line says the file's one subject: //! ...", path.display());
        if path.components().any(|c| c.as_os_str() == "src") {
            let lines = text.lines().take_while(|line| *line != "#[cfg(test)]").count();
            assert!(lines <= FILE_LIMIT_LINES, "{}: {lines} lines, look for the second subject", path.display());
        }
    }
}
