//! The client programs, run as a user runs them.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// What leads out of a user's home.
const ELSEWHERE: [&str; 12] = [
    "XDG_CONFIG_HOME",
    "XDG_DATA_HOME",
    "XDG_RUNTIME_DIR",
    "DOCKER_CONFIG",
    "REGISTRY_AUTH_FILE",
    "LONGSHORE_REGISTRIES",
    "CONTAINERS_REGISTRIES_CONF",
    "CONTAINERS_REGISTRIES_CONF_DIR",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "NO_PROXY",
];

/// A user with an empty home: a store, a configuration directory.
pub struct User {
    home: tempfile::TempDir,
}

/// A test that fails leaves none of its containers, either.
impl Drop for User {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let ids = self.output("rbox", &["ps", "-aq"]).stdout;
            let ids = String::from_utf8_lossy(&ids).into_owned();
            let ids: Vec<&str> = ids.lines().collect();
            self.output("rbox", &[&["rm", "-f"][..], &ids].concat());
        }
    }
}

impl User {
    pub fn new() -> Self {
        Self { home: tempfile::tempdir().unwrap() }
    }

    pub fn store(&self) -> PathBuf {
        self.home.path().join("store")
    }

    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// Makes `docker.io` mean this registry.
    pub fn use_for_docker_hub(&self, address: &str) {
        let dir = self.home().join(".config/longshore");
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join("registries.toml"), format!("[\"docker.io\"]\nuse = \"http://{address}\"\n")).unwrap();
    }

    pub fn command(&self, program: &str, args: &[&str]) -> Command {
        let mut command = Command::new(program_path(program));
        command.args(args).env("HOME", self.home()).env("LONGSHORE_ROOT", self.store());
        // Networks are for tests in a network namespace of their own: bridges and rules would stay behind here.
        command.env("LONGSHORE_NETWORK", "none");
        // What fails here fails at once or not at all: nobody is spared by waiting.
        command.env("LONGSHORE_TEST_TIMING", "backoff=1");
        // What is configured for this machine is not under test.
        command.env("LONGSHORE_TEST_ETC", self.home().join("etc"));
        for variable in ELSEWHERE {
            command.env_remove(variable).env_remove(variable.to_lowercase());
        }
        command
    }

    pub fn output(&self, program: &str, args: &[&str]) -> Output {
        self.command(program, args).output().unwrap()
    }

    /// What a command that must succeed prints.
    pub fn succeed(&self, program: &str, args: &[&str]) -> String {
        let output = self.output(program, args);
        assert!(output.status.success(), "{program} {args:?}: {}\n{}", output.status, stderr(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    /// What a command that must fail says; it must say it as an error, not as a panic.
    pub fn fail(&self, program: &str, args: &[&str]) -> String {
        let output = self.output(program, args);
        let said = stderr(&output);
        assert!(
            output.status.code().is_some_and(|code| code != 0 && code != 101),
            "{program} {args:?}: {}\n{said}",
            output.status
        );
        said
    }

    /// Asserts that everything in the store is whole: each blob is its digest, no scratch is left, and
    /// gives the digests of blobs and the DiffIDs of layers.
    pub fn check_store(&self) -> (Vec<String>, Vec<String>) {
        let names = |dir: &str| -> Vec<String> {
            let entries = std::fs::read_dir(self.store().join(dir)).unwrap();
            let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
            names.sort();
            names
        };
        let known = [
            "blobs",
            "containers",
            "events",
            "index.json",
            "layers",
            "leases",
            "lock",
            "manifests",
            "names",
            "networks",
            "oci-layout",
            "partial",
            "scratch",
            "userns",
            "volumes",
        ];
        let strange: Vec<_> = names(".").into_iter().filter(|name| !known.contains(&name.as_str())).collect();
        assert!(strange.is_empty(), "{strange:?} in the store");
        let blobs = names("blobs/sha256");
        for blob in &blobs {
            let bytes = std::fs::read(self.store().join("blobs/sha256").join(blob)).unwrap();
            assert_eq!(longshore_runtime::name::Digest::of(&bytes).hex(), blob, "a blob is not its digest");
        }
        for leftover in ["scratch", "leases"] {
            assert_eq!(names(leftover), Vec::<String>::new(), "{leftover} is not empty");
        }
        let layers = names("layers/sha256").iter().map(|name| name.trim_end_matches(".erofs").to_owned()).collect();
        (blobs, layers)
    }
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The client programs lie beside `rhub` once the workspace is built.
pub fn program_path(program: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_BIN_EXE_rhub")).with_file_name(program);
    assert!(path.exists(), "{} is not built: run `cargo test --workspace`", path.display());
    path
}
