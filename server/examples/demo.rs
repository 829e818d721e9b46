//! `cargo demo`: host a registry, push, pull and run, with the real programs, in a temporary directory.
//!
//! Needs a Rust toolchain and a C compiler: the image is made on the spot from a static C program.
#![allow(clippy::print_stdout, reason = "a demonstration speaks on standard output")]

use std::error::Error;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use flate2::Compression;
use flate2::write::GzEncoder;
use longshore_runtime::image::media_type;
use longshore_runtime::name::{Digest, Platform};
use serde_json::json;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// What runs in the container: says who and where it is.
const PROGRAM: &str = r#"
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
int main(int argc, char **argv) {
    char host[65] = "", greeting[128] = "";
    FILE *file = fopen("/etc/greeting", "r");
    if (!file || !fgets(greeting, sizeof greeting, file)) return 1;
    gethostname(host, sizeof host - 1);
    printf("%s  I am process %d, user %d, on host %s; my root directory is my own.\n", greeting, getpid(), getuid(), host);
    return argc > 1 ? atoi(argv[1]) : 0;
}
"#;

fn main() -> Result<()> {
    let bin = build()?;
    let work = tempfile::tempdir()?;
    let dir = work.path();
    println!("\nEverything happens in {} and is gone afterwards.", dir.display());

    let layout = dir.join("image");
    step("Make an image: one static C program, one file", || make_image(dir, &layout))?;

    let mut registry = Registry::start(&bin, &dir.join("registry"))?;
    let name = format!("{}/demo/hello:1.0", registry.address);
    let root = dir.join("store");
    let client = |program: &str, args: &[&str]| {
        let mut command = Command::new(bin.join(program));
        // A bridge would stay behind.
        command.args(args).env("LONGSHORE_ROOT", &root).env("LONGSHORE_NETWORK", "none");
        command
    };
    let source = format!("oci:{}", layout.display());
    show(client("rpush", &[&source, &name]), 0)?;
    show(client("rpull", &[&name]), 0)?;
    show(client("rbox", &["images"]), 0)?;
    show(client("rrun", &["--rm", "--hostname", "longshore", &name]), 0)?;
    println!("  (the container's exit code is rrun's own:)");
    show(client("rrun", &["--rm", &name, "7"]), 7)?;
    show(client("rbox", &["rmi", &name]), 0)?;
    registry.stop()?;
    let bin = bin.strip_prefix(std::env::current_dir()?).unwrap_or(&bin);
    println!("\nHosted, pushed, pulled, run. The programs are in {}.", bin.display());
    Ok(())
}

/// Builds the programs as a user would, and says where they are.
fn build() -> Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").ok_or("run this as `cargo demo`")?;
    let built = Command::new(cargo)
        .args(["build", "--release", "--bins", "-p", "longshore-server", "-p", "longshore-client"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status()?;
    if !built.success() {
        return Err("the build failed".into());
    }
    let example = std::env::current_exe()?;
    Ok(example.ancestors().nth(2).ok_or("this program is not where cargo puts examples")?.to_owned())
}

/// Runs a command as shown and checks how it ends.
fn show(mut command: Command, expected: i32) -> Result<()> {
    let program = Path::new(command.get_program()).file_name().unwrap_or_default().to_string_lossy().into_owned();
    let args: Vec<String> = command.get_args().map(|arg| arg.to_string_lossy().into_owned()).collect();
    step(&format!("$ {program} {}", args.join(" ")), || {
        let status = command.status()?;
        if status.code() == Some(expected) { Ok(()) } else { Err(format!("{program} ended with {status}").into()) }
    })
}

fn step(what: &str, work: impl FnOnce() -> Result<()>) -> Result<()> {
    println!("\n\u{1b}[1m{what}\u{1b}[0m");
    std::io::stdout().flush()?;
    let started = Instant::now();
    work()?;
    println!("  [{:.1} ms]", started.elapsed().as_secs_f64() * 1e3);
    Ok(())
}

/// A registry on a free port of the loopback.
struct Registry {
    child: Child,
    address: String,
}

impl Registry {
    fn start(bin: &Path, data: &Path) -> Result<Self> {
        println!("\n\u{1b}[1m$ rhub serve --listen 127.0.0.1:0 &\u{1b}[0m");
        let started = Instant::now();
        let mut command = Command::new(bin.join("rhub"));
        command.args(["serve", "--listen", "127.0.0.1:0", "--data"]).arg(data);
        let mut child = command.stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().ok_or("no standard output")?).read_line(&mut line)?;
        let address = line.split("http://").nth(1).and_then(|rest| rest.split(',').next());
        let address = address.ok_or_else(|| format!("rhub did not start: {line}"))?.to_owned();
        print!("{line}");
        println!("  [ready after {:.1} ms]", started.elapsed().as_secs_f64() * 1e3);
        Ok(Self { child, address })
    }

    fn stop(&mut self) -> Result<()> {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        // Only after a failed step is it still running.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Writes an OCI image layout with one layer.
fn make_image(dir: &Path, layout: &Path) -> Result<()> {
    let program = dir.join("hello");
    let mut compiler = Command::new("cc");
    compiler.args(["-O2", "-static", "-x", "c", "-", "-o"]).arg(&program).stdin(Stdio::piped());
    let mut compiling = compiler.spawn().map_err(|e| format!("cannot run the C compiler `cc`: {e}"))?;
    compiling.stdin.take().ok_or("no standard input")?.write_all(PROGRAM.as_bytes())?;
    if !compiling.wait()?.success() {
        return Err("the C compiler failed".into());
    }

    let mut tar = tar::Builder::new(Vec::new());
    add(&mut tar, "bin/hello", 0o755, &fs::read(&program)?)?;
    add(&mut tar, "etc/greeting", 0o644, b"Hello from a container!\n")?;
    let plain = tar.into_inner()?;
    let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
    gzip.write_all(&plain)?;
    let layer = gzip.finish()?;

    let platform = Platform::host();
    let config = json!({
        "created": "2026-11-01T00:00:00Z",
        "architecture": platform.architecture,
        "os": platform.os,
        "config": { "Entrypoint": ["/bin/hello"] },
        "rootfs": { "type": "layers", "diff_ids": [Digest::of(&plain)] },
    });
    let blobs = layout.join("blobs/sha256");
    fs::create_dir_all(&blobs)?;
    let store = |media_type: &str, bytes: &[u8]| -> Result<serde_json::Value> {
        let digest = Digest::of(bytes);
        fs::write(blobs.join(digest.hex()), bytes)?;
        Ok(json!({ "mediaType": media_type, "digest": digest, "size": bytes.len() }))
    };
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": media_type::OCI_MANIFEST,
        "config": store(media_type::OCI_CONFIG, config.to_string().as_bytes())?,
        "layers": [store(media_type::OCI_LAYER_GZIP, &layer)?],
    });
    let index = json!({ "schemaVersion": 2, "manifests": [store(media_type::OCI_MANIFEST, manifest.to_string().as_bytes())?] });
    fs::write(layout.join("index.json"), index.to_string())?;
    fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)?;
    Ok(())
}

fn add(tar: &mut tar::Builder<Vec<u8>>, path: &str, mode: u32, content: &[u8]) -> Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(mode);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    tar.append_data(&mut header, path, content)?;
    Ok(())
}
