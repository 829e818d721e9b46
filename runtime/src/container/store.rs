//! The containers of a store: made, found, listed, put right.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::process::{Pid, PidfdFlags};

use super::log_options::{LogDriver, LogOptions};
use super::names;
use super::prepare;
use super::record::{Config, End, Phase, Status};
use super::restart::RestartPolicy;
use crate::erofs::Shared;
use crate::error::{Attempt, Error, Result};
use crate::files;
use crate::image::{Declared, Healthcheck};
use crate::lifecycle::{Directory, Runtime, apart, boot, process_start_ticks, rfc3339};
use crate::name::Digest;
use crate::spec::{Network, RunOptions};
use crate::store::{Image, Lease, Store};
use crate::userns;
use crate::volume::{self, Volume, Volumes};

/// The largest `container.json` or `status.json` that is read back.
const FILE_LIMIT_BYTES: u64 = 8 << 20;

/// How many made-up names are tried before one gets a part of the ID behind it.
const NAME_TRIES: usize = 4;

/// A user's containers on this machine, kept in a store. Cheap to open; any number of processes may share them.
#[derive(Debug, Clone)]
pub struct Containers {
    pub(super) store: Store,
    /// What runs: its root is the directory of all containers.
    pub(super) runtime: Runtime,
}

/// A container as it was found.
#[derive(Debug, Clone)]
pub struct Container {
    /// What it was made of.
    pub config: Config,
    /// Where it stands.
    pub status: Status,
}

impl Container {
    /// What it was made of, if it runs.
    ///
    /// # Errors
    ///
    /// [`Error::Busy`] when it does not.
    pub(crate) fn running(&self) -> Result<&Config> {
        if self.status.phase == Phase::Running { Ok(&self.config) } else { Err(not_running(&self.config)) }
    }
}

/// A container to be made.
#[derive(Debug, Clone, Default)]
pub struct Create {
    /// What it is to be called, else a name is made up.
    pub name: Option<String>,
    /// The image as the user named it.
    pub image: String,
    /// How it is to be run.
    pub options: RunOptions,
    /// Its standard input stays open, though nobody writes to it.
    pub interactive: bool,
    /// It goes when it ends.
    pub auto_remove: bool,
    /// What `stop` sends.
    pub stop_signal: Option<String>,
    /// How long `stop` waits.
    pub stop_timeout_s: Option<u32>,
    /// What becomes of its output.
    pub log: LogOptions,
    /// Whether it is started again when it has ended.
    pub restart: RestartPolicy,
    /// How its health is looked at, in place of what its image says of that; one that is `NONE` for not at all.
    pub health: Healthcheck,
    /// What people say of it.
    pub labels: BTreeMap<String, String>,
    /// Its standard input ends with that of the first who is attached.
    pub stdin_once: bool,
    /// Its input and output are those of the command that [runs it in the foreground](Containers::run_here).
    pub direct: bool,
    /// Where it listens, beside what its image says: `PORT/PROTOCOL` each.
    pub exposed: Vec<String>,
}

impl Containers {
    /// The containers kept in `store`.
    pub fn open(store: &Store) -> Result<Self> {
        for dir in ["containers", "names"] {
            files::make_private_dir(&store.root().join(dir))?;
        }
        Ok(Self { store: store.clone(), runtime: Runtime::new(store.root().join("containers")) })
    }

    /// A container's directory.
    pub fn directory(&self, id: &str) -> PathBuf {
        self.store.root().join("containers").join(id)
    }

    /// The volumes in the same store.
    pub fn volumes(&self) -> Volumes {
        Volumes::of(&self.store)
    }

    /// Makes a container, which is not started yet. `lease` must hold the image ([`Store::find_leased`]); its ID
    /// is the container's ID.
    ///
    /// # Errors
    ///
    /// [`Error::Busy`] when the name is taken.
    pub fn create(&self, lease: &Lease, image: &Image, mut create: Create) -> Result<Config> {
        create.name.as_deref().map_or(Ok(()), names::check)?;
        // What is wrong is wrong now, not when it is started.
        lease.id().clone_into(&mut create.options.id);
        create.options.hostname()?;
        create.options.networking.check()?;
        create.log.check_taker()?;
        // What is the caller's own is so now, whoever starts it again.
        for variable in create.options.env.iter_mut().filter(|variable| !variable.contains('=')) {
            if let Ok(value) = std::env::var(&*variable) {
                variable.extend(["=", &value]);
            }
        }
        let dir = lease.scratch().join("container");
        files::make_private_dir(&dir)?;
        prepare::make_directories(&self.store, &dir, image.diff_ids(), &mut Shared::new())?;
        volume::complete(&mut create.options, &image.config.config)?;
        let volumes = create.options.volumes.iter().filter_map(Volume::volume).map(volume::claim);
        let claims = image.blobs().chain(image.diff_ids()).map(Digest::to_string).chain(volumes);
        let claims: String = claims.map(|claim| claim + "\n").collect();
        std::fs::write(dir.join("claims"), claims).attempt(|| "write a container's claims")?;
        // One that is not a run's says how one ended: this is before the first.
        End::write(Some(&End::before_the_first()), &files::open_lock(&dir.join("lock"))?)?;
        if create.direct {
            create.log.driver = LogDriver::None;
        }
        let mut image_config = image.config.config.clone();
        image_config.exposed_ports.extend(create.exposed.into_iter().map(|port| (port, Declared {})));
        let given = create.name.clone();
        let mut config = Config {
            id: lease.id().to_owned(),
            name: given.clone().map_or_else(names::random, Ok)?,
            created: rfc3339(SystemTime::now()),
            image: create.image,
            image_id: image.id().clone(),
            layers: image.diff_ids().to_vec(),
            image_config,
            options: create.options,
            interactive: create.interactive,
            auto_remove: create.auto_remove,
            stop_signal: create.stop_signal,
            stop_timeout_s: create.stop_timeout_s,
            log: create.log,
            restart: create.restart,
            health: create.health.over(image.config.config.healthcheck.as_ref()),
            labels: create.labels,
            stdin_once: create.stdin_once,
            direct: create.direct,
        };
        write_new(&dir, "status.json", &Status::new())?;
        // Only under this lock do names and directories come and go: a name without a container is what a
        // killed process left.
        let lock = self.store.lock(FlockOperation::LockExclusive)?;
        let mut tried = 0;
        loop {
            match self.claim(&config) {
                Err(Error::Busy { .. }) if given.is_none() && tried < NAME_TRIES => {
                    tried += 1;
                    config.name = names::random()?;
                    if tried == NAME_TRIES {
                        config.name = format!("{}_{}", config.name, &config.id[..8]);
                    }
                }
                claimed => break claimed?,
            }
        }
        let made = self
            .volumes()
            .provide(&config.options.volumes, lease)
            .and_then(|()| write_new(&dir, "container.json", &config))
            .and_then(|()| std::fs::rename(&dir, self.directory(&config.id)).attempt(|| "put a container in its place"));
        if made.is_err() {
            let _ = std::fs::remove_file(self.name_path(&config.name));
        }
        drop(lock);
        made?;
        self.tell("create", &config, &[]);
        Ok(config)
    }

    fn name_path(&self, name: &str) -> PathBuf {
        self.store.root().join("names").join(name)
    }

    /// Takes the name. Only under the store's exclusive lock.
    fn claim(&self, config: &Config) -> Result<()> {
        let path = self.name_path(&config.name);
        let link = || std::os::unix::fs::symlink(&config.id, &path);
        let linked = match link() {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                let owner = std::fs::read_link(&path).attempt(|| format!("look up name {:?}", config.name))?;
                let owner = owner.to_string_lossy().into_owned();
                if self.has_name(&owner, &config.name) {
                    let why = format!(
                        "by container {owner}; remove (`rbox rm`) that container to be able to reuse the name, or choose another"
                    );
                    return Err(Error::Busy { what: format!("container name \"/{}\"", config.name), why });
                }
                std::fs::remove_file(&path).and_then(|()| link())
            }
            linked => linked,
        };
        linked.attempt(|| format!("take the name {:?}", config.name))
    }

    /// Whether container `id` has that name: not if it has gone, or has another since.
    fn has_name(&self, id: &str, name: &str) -> bool {
        // Of one whose file is damaged nobody can tell: it keeps what leads to it.
        self.directory(id).exists() && self.config(id).map_or(true, |config| config.name == name)
    }

    /// Calls a container something else, whether it runs or not.
    ///
    /// # Errors
    ///
    /// [`Error::Busy`] when the name is taken, [`Error::Name`] when it is none.
    pub fn rename(&self, id: &str, name: &str) -> Result<()> {
        names::check(name)?;
        // Whatever moment this ends at, one of the two is its name, and the other leads nowhere.
        let _lock = self.store.lock(FlockOperation::LockExclusive)?;
        let mut config = self.config(id)?;
        let old = std::mem::replace(&mut config.name, name.to_owned());
        self.claim(&config)?;
        let renamed = save(&self.directory(id), "container.json", &config);
        if renamed.is_ok() && config.options.network == Network::Networks {
            self.networks().rename(id, name)?;
        }
        // What stays is recognised by who wants it next.
        let _ = std::fs::remove_file(self.name_path(if renamed.is_ok() { &old } else { name }));
        renamed.map(|()| self.tell("rename", &config, &[("oldName", &format!("/{old}"))]))
    }

    /// Gives back every name whose container has gone, or never came because its maker was killed. Only under the
    /// store's exclusive lock.
    pub(super) fn give_names_back(&self) {
        let names = std::fs::read_dir(self.store.root().join("names")).into_iter().flatten().flatten();
        for path in names.map(|entry| entry.path()) {
            if std::fs::read_link(&path).is_ok_and(|owner| !self.directory(&owner.to_string_lossy()).exists()) {
                // One that stays is recognised by who wants it next.
                let _ = std::fs::remove_file(path);
            }
        }
    }

    /// The container a user means by `text`: an ID, a name, or the beginning of an ID.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`], and [`Error::Name`] when several IDs begin so.
    pub fn get(&self, text: &str) -> Result<Container> {
        self.look_up(text)?.ok_or_else(|| unknown(text))
    }

    /// As [`Containers::get`], where none is no error.
    pub fn look_up(&self, text: &str) -> Result<Option<Container>> {
        let Some(id) = self.find(text.strip_prefix('/').unwrap_or(text))? else { return Ok(None) };
        match self.load(&id) {
            Err(Error::NotFound { .. }) => Ok(None),
            other => other.map(Some),
        }
    }

    fn find(&self, text: &str) -> Result<Option<String>> {
        if text.is_empty() || text.contains('/') {
            return Ok(None);
        }
        if is_id(text) && self.directory(text).exists() {
            return Ok(Some(text.to_owned()));
        }
        if let Ok(id) = std::fs::read_link(self.name_path(text))
            && self.has_name(&id.to_string_lossy(), text)
        {
            return Ok(Some(id.to_string_lossy().into_owned()));
        }
        let ids = self.ids()?;
        let mut found = ids.into_iter().filter(|id| id.starts_with(text));
        match (found.next(), found.next()) {
            (Some(_), Some(_)) => {
                Err(Error::Name { what: "container ID", input: text.to_owned(), why: "several containers' IDs begin so" })
            }
            (first, _) => Ok(first),
        }
    }

    fn ids(&self) -> Result<Vec<String>> {
        let dir = self.store.root().join("containers");
        let entries = std::fs::read_dir(&dir).attempt(|| format!("read {}", dir.display()))?;
        Ok(entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).filter(|name| is_id(name)).collect())
    }

    /// All containers, the newest first. One whose files are damaged is reported as an error and does not hide
    /// the others; one whose monitor was killed is put right first, or has gone if that was what it was to do.
    pub fn list(&self) -> Result<Vec<Result<Container>>> {
        self.list_those(|_| true)
    }

    /// As [`Containers::list`], of those that run or are about to: of the others no more is read than that they do not.
    pub fn list_live(&self) -> Result<Vec<Result<Container>>> {
        // What cannot be read is reported by who reads all of it.
        self.list_those(|id| self.status(id).map_or(true, |status| status.is_live()))
    }

    fn list_those(&self, wanted: impl Fn(&str) -> bool) -> Result<Vec<Result<Container>>> {
        self.networks().repair();
        let mut list: Vec<_> = self
            .ids()?
            .iter()
            .filter(|id| wanted(id))
            .map(|id| self.load(id))
            // One that went this moment.
            .filter(|loaded| !matches!(loaded, Err(Error::NotFound { .. })))
            .collect();
        list.sort_by(|a, b| {
            let created = |one: &Result<Container>| one.as_ref().map(|one| one.config.created.clone()).unwrap_or_default();
            created(b).cmp(&created(a))
        });
        Ok(list)
    }

    /// A container as it is now, put right if its monitor was killed.
    pub(super) fn load(&self, id: &str) -> Result<Container> {
        let dir = self.directory(id);
        let gone = |error: Error| if dir.exists() { error } else { unknown(id) };
        let config = self.config(id).map_err(gone)?;
        let mut status: Status = read(&dir, "status.json").map_err(gone)?;
        if status.is_live() && !self.is_held(id).map_err(gone)? {
            status = self.put_right(&config).map_err(gone)?;
        } else if config.direct && !status.is_live() && !self.store.is_leased(id) {
            // Who made it was killed before it was started, or before it was removed.
            self.discard_killed(&config)?;
            return Err(unknown(id));
        }
        Ok(Container { config, status })
    }

    /// What a container was made of.
    pub(super) fn config(&self, id: &str) -> Result<Config> {
        read(&self.directory(id), "container.json")
    }

    /// The status alone, as it stands on the disk.
    pub(super) fn status(&self, id: &str) -> Result<Status> {
        read(&self.directory(id), "status.json")
    }

    pub(super) fn save_status(&self, id: &str, status: &Status) -> Result<()> {
        save(&self.directory(id), "status.json", status)
    }

    /// Ends and clears away what a killed monitor left.
    fn put_right(&self, config: &Config) -> Result<Status> {
        let id = &config.id;
        // One does it at a time; the others find it done, and perhaps started again.
        let directory = Directory::open(&self.store.root().join("containers"), id)?;
        directory.lock()?;
        let mut status = self.status(id)?;
        // Shared, as those have it who look; until it is given back nobody starts the container.
        let lock = self.open_lock(id)?;
        let is_free =
            files::try_lock(&lock, FlockOperation::NonBlockingLockShared)? && files::leads_to(&self.lock_path(id), &lock)?;
        if !status.is_live() || !is_free {
            return Ok(status);
        }
        if status.boot == boot() {
            self.privileged("end what is left of a container", &mut || self.runtime.end(id))?;
        }
        userns::strike_out_killed(self.store.root());
        // What stays is found by who wants it next.
        let _ = self.release_network(config, &status.endpoints);
        let _ = std::fs::remove_file(self.directory(id).join("state.json"));
        let endpoints = status.endpoints.clone();
        status.end(End::read(&lock));
        self.tell_end(config, &endpoints, status.exit_code);
        if config.auto_remove {
            self.discard_killed(config)?;
            return Err(unknown(id));
        }
        // On a full disk it stays as it was, and is put right each time somebody looks.
        let _ = self.save_status(id, &status);
        Ok(status)
    }

    /// Removes what goes when it ends, and whose monitor or command was killed.
    fn discard_killed(&self, config: &Config) -> Result<()> {
        self.privileged("remove a container", &mut || {
            if !rustix::process::geteuid().is_root() {
                userns::enter_rootless()?;
            }
            self.discard(config, true)
        })
    }

    /// Does what may take this process into another user namespace. An ordinary user's process goes nowhere: a
    /// copy of it does.
    pub(super) fn privileged(&self, what: &str, work: &mut dyn FnMut() -> Result<()>) -> Result<()> {
        if rustix::process::geteuid().is_root() { work() } else { apart(what, work) }
    }

    /// The namespace of a kind, as `/proc/PID/ns` calls it, of a container that is known to have been started.
    ///
    /// # Errors
    ///
    /// [`Error::Busy`] when it has ended since.
    pub(crate) fn namespace(&self, config: &Config, kind: &str) -> Result<OwnedFd> {
        let process = self.runtime.first_process(&config.id)?.ok_or_else(|| not_running(config))?;
        process.open(&format!("ns/{kind}"), OFlags::RDONLY)?.ok_or_else(|| not_running(config))
    }

    /// A container's monitor, or the command that watches it, if that lives.
    pub(super) fn monitor(&self, status: &Status) -> Option<OwnedFd> {
        let (pid, ticks) = status.monitor;
        if !status.is_up() || status.boot != boot() {
            return None;
        }
        let pidfd = rustix::process::pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()?;
        // Only now: the number cannot be given to another process while this one is looked at.
        (process_start_ticks(pid) == Some(ticks)).then_some(pidfd)
    }
}

/// Whether a directory's name is a container's.
fn is_id(name: &str) -> bool {
    name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

pub(super) fn unknown(text: &str) -> Error {
    Error::NotFound { what: format!("container {text:?}"), hint: "`rbox ps --all` shows those there are".into() }
}

/// An action that needs the container to run.
pub(super) fn not_running(config: &Config) -> Error {
    Error::Busy { what: format!("container {}", config.name), why: "it is not running; `rbox start` starts it".into() }
}

pub(super) fn read<T: serde::de::DeserializeOwned>(dir: &Path, name: &str) -> Result<T> {
    let path = dir.join(name);
    let bytes = files::read_replaced(&path, FILE_LIMIT_BYTES)?;
    serde_json::from_slice(&bytes)
        .map_err(|error| Error::invalid(path.display(), format!("{error}; remove this container's directory {}", dir.display())))
}

/// Writes a file in a directory that nobody sees yet.
fn write_new<T: serde::Serialize>(dir: &Path, name: &str, value: &T) -> Result<()> {
    let attempted = || format!("write {name} in {}", dir.display());
    let text = serde_json::to_vec(value).map_err(std::io::Error::from).attempt(attempted)?;
    std::fs::write(dir.join(name), text).attempt(attempted)
}

/// Replaces a file as a whole: what a killed process was writing nobody sees.
pub(super) fn save<T: serde::Serialize>(dir: &Path, name: &str, value: &T) -> Result<()> {
    let attempted = || format!("write {name} in {}", dir.display());
    let text = serde_json::to_vec(value).map_err(std::io::Error::from).attempt(attempted)?;
    let fd = rustix::fs::open(dir, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).attempt(attempted)?;
    crate::lifecycle::replace_file(fd.as_fd(), name, &text).attempt(attempted)
}
