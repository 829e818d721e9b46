//! A bundle: a directory with config.json and a root filesystem (runtime-spec bundle.md), edited before it is used.

use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::finding::{Finding, Outcome, here};

/// The names under which busybox is in a root filesystem made here.
const APPLETS: &str = "awk cat chgrp chmod chown cp cut dd df dirname echo env false find grep head hostname id ionice kill ln ls \
    mkdir mkfifo mknod mount mv nice printf ps pwd readlink rm rmdir sed seq setpriv sh sleep sort stat stty sync tail test touch \
    tr true tty umount uname uniq unshare wc xargs";

/// Where a static busybox is looked for.
const BUSYBOX_PLACES: [&str; 4] =
    ["/bin/busybox", "/usr/bin/busybox", "/bin/busybox.static", "/usr/lib/initramfs-tools/bin/busybox"];

/// A bundle in the making.
#[derive(Debug)]
pub(super) struct Bundle {
    /// The name of its container.
    pub(super) id: String,
    /// Where config.json and rootfs are.
    pub(super) directory: PathBuf,
    config: Value,
    edits: Vec<String>,
}

impl Bundle {
    /// A bundle in a new directory, with a root filesystem made of links to the files of `template`.
    pub(super) fn new(id: String, directory: PathBuf, template: &Path, config: Value) -> io::Result<Self> {
        make_directory(&directory)?;
        replicate(template, &directory.join("rootfs"), &|from, to| fs::hard_link(from, to))?;
        Ok(Self { id, directory, config, edits: Vec::new() })
    }

    /// The root filesystem, seen from the host.
    pub(super) fn rootfs(&self) -> PathBuf {
        self.directory.join("rootfs")
    }

    /// Sets what `path` leads to, as in `process/cwd`; objects on the way are made.
    pub(super) fn set(mut self, path: &str, value: impl Into<Value>) -> Self {
        let value = value.into();
        self.note(path, "=", &value);
        *self.at(path) = value;
        self
    }

    /// Appends to the list `path` leads to, which is made where there is none.
    pub(super) fn push(mut self, path: &str, value: impl Into<Value>) -> Self {
        let value = value.into();
        self.note(path, "+=", &value);
        match self.at(path) {
            Value::Array(list) => list.push(value),
            other => *other = json!([value]),
        }
        self
    }

    fn note(&mut self, path: &str, how: &str, value: &Value) {
        // Some values are more than anyone wants to read.
        let shown: String = value.to_string().chars().take(600).collect();
        self.edits.push(format!("{path} {how} {shown}"));
    }

    fn at(&mut self, path: &str) -> &mut Value {
        path.split('/').fold(&mut self.config, |value, key| &mut value[key])
    }

    /// The command of the container.
    pub(super) fn args(self, args: &[&str]) -> Self {
        self.set("process/args", json!(args))
    }

    /// The command of the container: a script of its shell.
    pub(super) fn script(self, script: &str) -> Self {
        self.args(&["/bin/sh", "-c", script])
    }

    /// A script that then says `ready` and stays.
    pub(super) fn stays(self, script: &str) -> Self {
        self.script(&format!("{script}\necho ready; exec sleep {}", crate::limits::CONTAINER_LIFE_S))
    }

    /// One more mount.
    pub(super) fn mount(self, destination: &str, kind: &str, source: &str, options: &[&str]) -> Self {
        self.push("mounts", json!({ "destination": destination, "type": kind, "source": source, "options": options }))
    }

    /// A directory of the host, shared with the container as `/shared`.
    pub(super) fn share(self) -> Outcome<(Self, PathBuf)> {
        let shared = self.directory.join("shared");
        here(make_directory(&shared), "make a directory to share")?;
        let source = shared.to_string_lossy().into_owned();
        Ok((self.mount("/shared", "bind", &source, &["bind", "rw"]), shared))
    }

    /// The container is in the runtime's own namespace of this kind.
    pub(super) fn without_namespace(mut self, kind: &str) -> Self {
        self.edits.push(format!("linux/namespaces without {kind}"));
        if let Value::Array(namespaces) = self.at("linux/namespaces") {
            namespaces.retain(|namespace| namespace["type"] != kind);
        }
        self
    }

    /// The container is in a new namespace of this kind, or in the one at `path`.
    pub(super) fn with_namespace(self, kind: &str, path: Option<&str>) -> Self {
        let namespace = path.map_or_else(|| json!({ "type": kind }), |path| json!({ "type": kind, "path": path }));
        self.without_namespace(kind).push("linux/namespaces", namespace)
    }

    /// Takes away what `path` leads to.
    pub(super) fn remove(mut self, path: &str) -> Self {
        self.edits.push(format!("without {path}"));
        let (parent, key) = path.rsplit_once('/').unwrap_or(("", path));
        let parent = if parent.is_empty() { &mut self.config } else { self.at(parent) };
        if let Some(object) = parent.as_object_mut() {
            object.remove(key);
        }
        self
    }

    /// Takes a mount away, where there is one.
    pub(super) fn without_mount(mut self, destination: &str) -> Self {
        self.edits.push(format!("mounts without {destination}"));
        if let Value::Array(mounts) = self.at("mounts") {
            mounts.retain(|mount| mount["destination"] != destination);
        }
        self
    }

    /// All five sets of capabilities.
    pub(super) fn capabilities(self, sets: &Value) -> Self {
        self.set("process/capabilities", sets.clone())
    }

    /// Writes config.json, for the last time but where a check wants to change it later.
    pub(super) fn write(&self) -> Outcome {
        here(fs::write(self.config_path(), self.config.to_string()), "write config.json")
    }

    /// Where config.json is.
    pub(super) fn config_path(&self) -> PathBuf {
        self.directory.join("config.json")
    }

    /// What was changed against the typical configuration, a line each.
    pub(super) fn edits(&self) -> String {
        self.edits.iter().map(|edit| format!("# {edit}\n")).collect()
    }
}

/// The cgroup of a container: below one of the run, so that all can be found and removed.
pub(super) fn cgroups_path(id: &str) -> String {
    format!("/{}/{id}", id.rsplit_once('-').map_or(id, |(run, _)| run))
}

/// Makes a directory that the users of a user namespace may pass through.
pub(super) fn make_directory(path: &Path) -> io::Result<()> {
    fs::create_dir(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))
}

/// Makes the root filesystem that all bundles share the files of: a copy of `source`, or busybox and links to it.
pub(super) fn make_template(template: &Path, source: Option<&Path>) -> anyhow::Result<()> {
    use anyhow::Context as _;

    if let Some(source) = source {
        let copied = replicate(source, template, &|from, to| fs::copy(from, to).map(drop));
        return copied.with_context(|| format!("copy the root filesystem {}", source.display()));
    }
    let busybox = BUSYBOX_PLACES.iter().map(Path::new).find(|path| path.is_file());
    let busybox = busybox.context(
        "there is no /bin/busybox to put into containers: install a static one (Debian: busybox-static) or name a root filesystem \
         with --rootfs",
    )?;
    let make = || -> io::Result<()> {
        make_directory(template)?;
        for directory in ["bin", "dev", "etc", "proc", "root", "sys", "tmp"] {
            make_directory(&template.join(directory))?;
        }
        fs::copy(busybox, template.join("bin/busybox"))?;
        fs::write(template.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000:user:/:/bin/sh\n")?;
        fs::write(template.join("etc/group"), "root:x:0:\nuser:x:1000:\n")?;
        APPLETS.split_whitespace().try_for_each(|applet| symlink("busybox", template.join("bin").join(applet)))
    };
    make().context("make a root filesystem")
}

/// Makes `to` a directory with the content of `from`: directories and links anew, files by `put`.
fn replicate(from: &Path, to: &Path, put: &dyn Fn(&Path, &Path) -> io::Result<()>) -> io::Result<()> {
    fs::create_dir(to)?;
    fs::set_permissions(to, fs::metadata(from)?.permissions())?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type()?;
        if kind.is_dir() {
            replicate(&source, &target, put)?;
        } else if kind.is_symlink() {
            symlink(fs::read_link(&source)?, &target)?;
        } else if kind.is_file() {
            put(&source, &target)?;
        }
        // Devices, sockets and pipes of a given root filesystem are none that a check needs.
    }
    Ok(())
}

/// A file that is sure not to be the template's: the old name is removed first, as its content is shared.
pub(super) fn write_file(path: &Path, text: &str) -> Outcome {
    let _ = fs::remove_file(path);
    here(fs::write(path, text), format_args!("write {}", path.display()))
}

/// A program: a script for the shell that is `/bin/sh` where it runs.
pub(super) fn write_program(path: &Path, script: &str) -> Outcome {
    write_file(path, &format!("#!/bin/sh\n{script}\n"))?;
    here(fs::set_permissions(path, fs::Permissions::from_mode(0o755)), "make a program")
}

/// Waits for what has no event to wait for; fails with `expected` when it does not come.
pub(super) fn wait_until(expected: &str, mut done: impl FnMut() -> Outcome<bool>) -> Outcome {
    let deadline = std::time::Instant::now() + crate::limits::CONTAINER_TIMEOUT;
    loop {
        if done()? {
            return Ok(());
        }
        if std::time::Instant::now() > deadline {
            return Err(Finding::Fail(format!("{expected}, within {} s", crate::limits::CONTAINER_TIMEOUT.as_secs())));
        }
        std::thread::sleep(crate::limits::POLL_INTERVAL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bundle_is_the_typical_one_with_edits_and_files_of_its_own() {
        let directory = tempfile::tempdir().unwrap();
        let template = directory.path().join("template");
        make_directory(&template).unwrap();
        fs::write(template.join("file"), "shared").unwrap();
        let typical = super::super::typical::config();
        let bundle = Bundle::new("run-x-1".into(), directory.path().join("1"), &template, typical).unwrap();
        let bundle = bundle.set("linux/sysctl", json!({ "a.b": "1" })).push("hooks/prestart", json!({ "path": "/x" }));
        let bundle = bundle.with_namespace("network", Some("/proc/1/ns/net")).without_namespace("ipc");
        bundle.write().unwrap();
        write_file(&bundle.rootfs().join("file"), "own").unwrap();
        assert_eq!(fs::read_to_string(template.join("file")).unwrap(), "shared");

        let config: Value = serde_json::from_slice(&fs::read(bundle.config_path()).unwrap()).unwrap();
        assert_eq!(config["linux"]["sysctl"]["a.b"], "1");
        assert_eq!(config["hooks"]["prestart"][0]["path"], "/x");
        assert_eq!(cgroups_path("run-x-1"), "/run-x/run-x-1");
        let namespaces = config["linux"]["namespaces"].as_array().unwrap();
        assert_eq!(namespaces.len(), 5);
        assert_eq!(namespaces[4], json!({ "type": "network", "path": "/proc/1/ns/net" }));
        assert!(bundle.edits().contains("# linux/sysctl = {\"a.b\":\"1\"}"), "{}", bundle.edits());
    }
}
