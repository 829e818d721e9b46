//! The volumes of a store: made, found, listed, removed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};

use super::mount::{Source, Volume, destination};
use crate::container::check_name as check_docker_name;
use crate::error::{Attempt, Error, Result};
use crate::events::{self, Event};
use crate::files;
use crate::image::ContainerConfig;
use crate::lifecycle::rfc3339;
use crate::spec::RunOptions;
use crate::store::{Lease, Store};
use crate::usage::disk_bytes;

/// The largest `volume.json` that is read back.
const FILE_LIMIT_BYTES: u64 = 1 << 20;

/// The most volumes an image may declare.
const IMAGE_VOLUMES_LIMIT: usize = 256;

/// The label of a volume that nobody gave a name, docker's.
const ANONYMOUS: &str = "com.docker.volume.anonymous";

/// A user's volumes on this machine, kept in a store.
#[derive(Debug, Clone)]
pub struct Volumes {
    pub(super) store: Store,
}

/// A volume as it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Info {
    /// What it is called.
    pub name: String,
    /// When it was made, RFC 3339.
    pub created: String,
    /// What was said about it.
    pub labels: BTreeMap<String, String>,
    /// What it was made with: where its files are, if not here.
    pub options: BTreeMap<String, String>,
}

impl Info {
    /// Whether nobody gave it a name.
    #[must_use]
    pub fn is_anonymous(&self) -> bool {
        self.labels.contains_key(ANONYMOUS)
    }
}

/// `volume.json`
#[derive(Serialize, Deserialize)]
struct Record {
    created: String,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    options: BTreeMap<String, String>,
}

/// Whether a volume can be called that: docker's rule.
pub(super) fn check_name(name: &str) -> Result<()> {
    check_docker_name("volume name", name)
}

/// Adds the image's volumes to those the user asked for, and makes up the names nobody gave.
///
/// # Errors
///
/// [`Error::Invalid`] when two are mounted at the same place, or the image declares what cannot be a volume.
pub fn complete(options: &mut RunOptions, image: &ContainerConfig) -> Result<()> {
    let mut taken = BTreeSet::new();
    let own = options.volumes.iter().map(|volume| &volume.destination);
    for place in own.chain(options.tmpfs.iter().map(|tmpfs| &tmpfs.destination)) {
        if !taken.insert(place.clone()) {
            return Err(Error::invalid(format!("mount point {}", place.display()), "something is mounted there twice"));
        }
    }
    if image.volumes.len() > IMAGE_VOLUMES_LIMIT {
        return Err(Error::invalid("image", format!("it declares more than {IMAGE_VOLUMES_LIMIT} volumes")));
    }
    for path in image.volumes.keys() {
        let destination = destination(path).map_err(|why| Error::invalid(format!("volume {path:?} of the image"), why))?;
        if taken.insert(destination.clone()) {
            options.volumes.push(Volume { destination, ..Volume::default() });
        }
    }
    for volume in &mut options.volumes {
        if let Source::Volume { volume: name, .. } = &mut volume.source
            && name.is_empty()
        {
            *name = files::random_hex(32)?;
        }
    }
    Ok(())
}

impl Volumes {
    /// The volumes kept in `store`.
    #[must_use]
    pub fn of(store: &Store) -> Self {
        Self { store: store.clone() }
    }

    pub(super) fn directory(&self, name: &str) -> PathBuf {
        self.store.root().join("volumes").join(name)
    }

    /// Where a volume's data is on the host.
    #[must_use]
    pub fn data_path(&self, name: &str) -> PathBuf {
        self.directory(name).join("_data")
    }

    /// Makes a volume; one that is there already is as good. Without a name one is made up.
    ///
    /// # Errors
    ///
    /// [`Error::Name`] when it cannot be called that, [`Error::Invalid`] for options that mean nothing here, or are not
    /// those of the one that is there.
    pub fn create(
        &self,
        name: Option<&str>,
        mut labels: BTreeMap<String, String>,
        options: &BTreeMap<String, String>,
    ) -> Result<Info> {
        device(options)?;
        let name = match name {
            Some(name) => {
                check_name(name)?;
                name.to_owned()
            }
            None => {
                labels.insert(ANONYMOUS.into(), String::new());
                files::random_hex(32)?
            }
        };
        let lease = self.store.lease()?;
        self.make(&name, labels, options.clone(), &lease)?;
        let made = self.get(&name)?;
        if !options.is_empty() && made.options != *options {
            return Err(Error::invalid(format!("volume {name}"), "it is there already, with other options"));
        }
        Ok(made)
    }

    /// Makes those of `wanted` that are not there, as far as they are volumes. Nobody removes them as long as the
    /// caller holds the store's lock, or a claim.
    pub(crate) fn provide(&self, wanted: &[Volume], lease: &Lease) -> Result<()> {
        for volume in wanted {
            let Some(name) = volume.volume() else { continue };
            if self.directory(name).exists() {
                continue;
            }
            let label = |label: &String| {
                let (key, value) = label.split_once('=').unwrap_or((label, ""));
                (key.to_owned(), value.to_owned())
            };
            let mut labels: BTreeMap<_, _> = volume.labels.iter().map(label).collect();
            if volume.is_anonymous() {
                labels.insert(ANONYMOUS.into(), String::new());
            }
            self.make(name, labels, BTreeMap::new(), lease)?;
        }
        Ok(())
    }

    fn make(&self, name: &str, labels: BTreeMap<String, String>, options: BTreeMap<String, String>, lease: &Lease) -> Result<()> {
        files::make_private_dir(&self.store.root().join("volumes"))?;
        let dir = lease.scratch().join("new-volumes").join(name);
        make_data(&dir)?;
        let record = Record { created: rfc3339(SystemTime::now()), labels, options };
        let attempted = || format!("make volume {name}");
        let text = serde_json::to_vec(&record).map_err(std::io::Error::from).attempt(attempted)?;
        std::fs::write(dir.join("volume.json"), text).attempt(attempted)?;
        match std::fs::rename(&dir, self.directory(name)) {
            // Somebody else has made it; what was made here goes with the lease.
            Err(error) if matches!(error.kind(), ErrorKind::DirectoryNotEmpty | ErrorKind::AlreadyExists) => Ok(()),
            other => other.attempt(attempted).map(|()| self.tell("create", name)),
        }
    }

    /// Adds to the store's events what has happened to a volume.
    fn tell(&self, action: &str, name: &str) {
        events::record(self.store.root(), &Event::now(events::VOLUME, action, name, [("driver", "local")]));
    }

    /// A volume by its name.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`]
    pub fn get(&self, name: &str) -> Result<Info> {
        let dir = self.directory(name);
        if check_name(name).is_err() || !dir.exists() {
            return Err(unknown(name));
        }
        let path = dir.join("volume.json");
        let bytes = match files::read_bounded(&path, FILE_LIMIT_BYTES) {
            Err(_) if !dir.exists() => return Err(unknown(name)),
            other => other?,
        };
        let record: Record = serde_json::from_slice(&bytes).map_err(|error| Error::invalid(path.display(), error))?;
        Ok(Info { name: name.to_owned(), created: record.created, labels: record.labels, options: record.options })
    }

    /// All volumes, by name. One whose file is damaged is reported and does not hide the others.
    pub fn list(&self) -> Result<Vec<Result<Info>>> {
        let dir = self.store.root().join("volumes");
        let entries = match std::fs::read_dir(&dir) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.attempt(|| format!("read {}", dir.display()))?,
        };
        let mut names: Vec<String> = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
        names.sort();
        Ok(names.iter().map(|name| self.get(name)).filter(|info| !matches!(info, Err(Error::NotFound { .. }))).collect())
    }

    /// The names of the volumes that some container has.
    pub fn in_use(&self) -> Result<BTreeSet<String>> {
        let _lock = self.lock()?;
        Ok(self.users()?.into_iter().map(|user| user.volume).collect())
    }

    /// Removes a volume with all that is in it. An ordinary user's process must be in the user namespace of
    /// [`crate::userns::enter_rootless`].
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`], and [`Error::Busy`] when a container has it, whether it runs or not.
    pub fn remove(&self, name: &str) -> Result<()> {
        // Dropped last: the slow part, removing a tree, then happens after the lock is given back.
        let lease = self.store.lease()?;
        let _lock = self.lock()?;
        if check_name(name).is_err() || !self.directory(name).exists() {
            return Err(unknown(name));
        }
        let users = self.users()?;
        if let Some(user) = users.iter().find(|user| user.volume == name) {
            let why = format!("{} has it; remove that container (`rbox rm`) first", self.describe(user));
            return Err(Error::Busy { what: format!("volume {name}"), why });
        }
        self.take_away(name, &lease)
    }

    /// Removes the volumes no container has, as far as they are `wanted`. Gives their names, and how many bytes
    /// they had on disk.
    pub fn prune(&self, wanted: &dyn Fn(&Info) -> bool) -> Result<(Vec<String>, u64)> {
        let lease = self.store.lease()?;
        let lock = self.lock()?;
        let users = self.users()?;
        let unused = |info: &Info| users.iter().all(|user| user.volume != info.name);
        let names: Vec<String> =
            self.list()?.into_iter().flatten().filter(|info| unused(info) && wanted(info)).map(|info| info.name).collect();
        names.iter().try_for_each(|name| self.take_away(name, &lease))?;
        drop(lock);
        let bytes = names.iter().map(|name| disk_bytes(&gone(&lease).join(name))).sum();
        Ok((names, bytes))
    }

    /// Removes those of a container's volumes that nobody gave a name and no other container has. The container is
    /// gone from its place already, under the store's exclusive lock, which is still held.
    pub(crate) fn release(&self, volumes: &[Volume], lease: &Lease) -> Result<()> {
        let names: Vec<&str> = volumes.iter().filter(|volume| volume.is_anonymous()).filter_map(Volume::volume).collect();
        if names.is_empty() {
            return Ok(());
        }
        let users = self.users()?;
        let unused = names.into_iter().filter(|name| users.iter().all(|user| user.volume != *name));
        unused.filter(|name| check_name(name).is_ok()).try_for_each(|name| self.take_away(name, lease))
    }

    /// Moves a volume, if it is there, to where it goes with the lease.
    fn take_away(&self, name: &str, lease: &Lease) -> Result<()> {
        files::make_private_dir(&gone(lease))?;
        match std::fs::rename(self.directory(name), gone(lease).join(name)) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            other => other.attempt(|| format!("remove volume {name}")).map(|()| self.tell("destroy", name)),
        }
    }

    /// How many bytes a volume takes on disk.
    #[must_use]
    pub fn disk_bytes(&self, name: &str) -> u64 {
        disk_bytes(&self.directory(name))
    }

    fn lock(&self) -> Result<File> {
        self.store.lock(FlockOperation::LockExclusive)
    }
}

/// The directory of this machine that a volume's options say it is.
///
/// # Errors
///
/// [`Error::Invalid`] for any that docker's driver would hand to mount(2) otherwise.
pub(super) fn device(options: &BTreeMap<String, String>) -> Result<Option<PathBuf>> {
    let refused = |why: String| Err(Error::invalid("options of a volume", why));
    // What follows depends on it.
    match options.get("type").map_or("none", String::as_str) {
        "none" | "bind" | "" => {}
        "tmpfs" => return refused("type=tmpfs: a container gets a file system in memory by --tmpfs".into()),
        kind => return refused(format!("type={kind}: mount it on this machine, and make that directory the volume")),
    }
    let (mut device, mut binds) = (None, false);
    for (name, value) in options {
        match (name.as_str(), value.as_str()) {
            ("type", _) => {}
            ("o", "bind" | "rbind") => binds = true,
            ("o", words) => return refused(format!("o={words}: it is o=bind, and nothing beside that")),
            ("device", path) if path.starts_with('/') => device = Some(PathBuf::from(path)),
            ("device", path) => return refused(format!("device={path}: it must be an absolute path")),
            (name, _) => return refused(format!("{name}: there are type=none, o=bind and device=DIR")),
        }
    }
    match (device, binds) {
        (None, true) => refused("o=bind needs device=DIR".into()),
        (Some(_), false) => refused("device=DIR needs o=bind".into()),
        (device, _) => Ok(device),
    }
}

/// Makes a volume's directory and in it that of its data, which any container's users may look into.
pub(super) fn make_data(dir: &Path) -> Result<()> {
    files::make_private_dir(dir)?;
    let data = dir.join("_data");
    std::fs::create_dir(&data)
        .and_then(|()| std::fs::set_permissions(&data, PermissionsExt::from_mode(0o755)))
        .attempt(|| format!("create directory {}", data.display()))
}

/// Where volumes are that go with a lease.
fn gone(lease: &Lease) -> PathBuf {
    lease.scratch().join("old-volumes")
}

fn unknown(name: &str) -> Error {
    Error::NotFound { what: format!("volume {name:?}"), hint: "`rbox volume ls` shows those there are".into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volume::claim;

    fn image(volumes: &str) -> ContainerConfig {
        serde_json::from_str(&format!(r#"{{"Volumes":{volumes}}}"#)).unwrap()
    }

    fn options(volumes: &[&str], tmpfs: &[&str]) -> RunOptions {
        RunOptions {
            volumes: volumes.iter().map(|volume| volume.parse().unwrap()).collect(),
            tmpfs: tmpfs.iter().map(|tmpfs| tmpfs.parse().unwrap()).collect(),
            ..RunOptions::default()
        }
    }

    #[test]
    fn an_image_s_volumes_are_where_nothing_else_is_and_get_names() {
        let mut options = options(&["data:/data", "/own"], &["/run"]);
        complete(&mut options, &image(r#"{"/data/":{},"/run":null,"/x/../more":{"a":[1]}}"#)).unwrap();
        let places: Vec<_> = options.volumes.iter().map(|volume| volume.destination.to_str().unwrap()).collect();
        assert_eq!(places, ["/data", "/own", "/more"]);
        let names: Vec<_> = options.volumes.iter().map(|volume| volume.volume().unwrap()).collect();
        assert!(names[0] == "data" && names[1].len() == 64 && names[2].len() == 64 && names[1] != names[2], "{names:?}");
        assert!(image("null").volumes.is_empty());
    }

    #[test]
    fn two_at_one_place_and_what_is_no_place_are_refused() {
        for bad in [options(&["/a:/x", "b1:/x/"], &[]), options(&["/a:/x"], &["/x"])] {
            assert!(complete(&mut bad.clone(), &image("{}")).unwrap_err().to_string().contains("twice"));
        }
        for bad in [r#"{"/":{}}"#, r#"{"data":{}}"#, r#"{"":{}}"#, r#"{"/..":{}}"#] {
            assert!(complete(&mut options(&[], &[]), &image(bad)).is_err(), "{bad}");
        }
        let many: BTreeMap<String, u8> = (0..=IMAGE_VOLUMES_LIMIT).map(|n| (format!("/{n}"), 0)).collect();
        assert!(complete(&mut options(&[], &[]), &image(&serde_json::to_string(&many).unwrap())).is_err());
    }

    #[test]
    fn a_volume_is_made_once_found_listed_and_removed() {
        let root = tempfile::tempdir().unwrap();
        let volumes = Volumes::of(&Store::open(root.path()).unwrap());
        assert!(volumes.list().unwrap().is_empty());
        let labels = BTreeMap::from([("a".to_owned(), "b".to_owned())]);
        let made = volumes.create(Some("data"), labels, &BTreeMap::new()).unwrap();
        assert_eq!(volumes.create(Some("data"), BTreeMap::new(), &BTreeMap::new()).unwrap(), made, "it stays as it is");
        let unnamed = volumes.create(None, BTreeMap::new(), &BTreeMap::new()).unwrap();
        assert!(unnamed.is_anonymous() && !made.is_anonymous());
        let longest = "v".repeat(255);
        volumes.create(Some(&longest), BTreeMap::new(), &BTreeMap::new()).unwrap();
        volumes.remove(&longest).unwrap();
        std::fs::write(volumes.data_path("data").join("x"), vec![0; 10_000]).unwrap();
        assert!(volumes.disk_bytes("data") >= 10_000);
        assert_eq!(volumes.list().unwrap().len(), 2);
        for bad in ["", ".", "..", "../x", "a/b", "x"] {
            assert!(volumes.create(Some(bad), BTreeMap::new(), &BTreeMap::new()).is_err(), "{bad}");
            assert!(matches!(volumes.remove(bad), Err(Error::NotFound { .. })), "{bad}");
        }
        let bytes = volumes.disk_bytes(&unnamed.name);
        assert_eq!(volumes.prune(&Info::is_anonymous).unwrap(), (vec![unnamed.name], bytes));
        volumes.remove("data").unwrap();
        assert!(matches!(volumes.get("data"), Err(Error::NotFound { .. })));
    }

    #[test]
    fn a_volume_may_be_a_directory_elsewhere_and_nothing_else() {
        let root = tempfile::tempdir().unwrap();
        let volumes = Volumes::of(&Store::open(root.path()).unwrap());
        let create = |name: &str, options: &[(&str, &str)]| {
            let options = options.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
            volumes.create(Some(name), BTreeMap::new(), &options)
        };
        let bound = [("type", "none"), ("o", "bind"), ("device", "/srv")];
        let made = create("bound", &bound).unwrap();
        assert_eq!(device(&made.options).unwrap(), Some(PathBuf::from("/srv")));
        assert_eq!(create("bound", &bound).unwrap(), made);
        assert_eq!(create("bound", &[]).unwrap(), made);
        assert!(create("bound", &[("o", "bind"), ("device", "/other")]).is_err(), "it is another");
        for (bad, word) in [
            (&[("type", "nfs"), ("o", "addr=1.2.3.4"), ("device", ":/x")][..], "nfs"),
            (&[("type", "tmpfs"), ("device", "tmpfs")], "--tmpfs"),
            (&[("o", "bind,ro"), ("device", "/srv")], "ro"),
            (&[("o", "bind"), ("device", "srv")], "absolute"),
            (&[("o", "bind")], "device"),
            (&[("device", "/srv")], "o=bind"),
            (&[("size", "1g")], "size"),
        ] {
            let said = create("bad", bad).unwrap_err().to_string();
            assert!(said.contains(word), "{bad:?}: {said}");
            assert!(volumes.get("bad").is_err());
        }
    }

    #[test]
    fn a_volume_somebody_claims_is_not_removed() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(root.path()).unwrap();
        let volumes = Volumes::of(&store);
        volumes.create(Some("data"), BTreeMap::new(), &BTreeMap::new()).unwrap();
        let container = root.path().join("containers/0123456789abcdef");
        std::fs::create_dir_all(&container).unwrap();
        std::fs::write(container.join("claims"), claim("data")).unwrap();
        let said = volumes.remove("data").unwrap_err().to_string();
        assert!(said.contains("in use") && said.contains("container 0123456789ab"), "{said}");
        assert_eq!(volumes.prune(&|_| true).unwrap().0, Vec::<String>::new());
        assert_eq!(volumes.in_use().unwrap().into_iter().collect::<Vec<_>>(), ["data"]);
        std::fs::remove_dir_all(&container).unwrap();
        volumes.remove("data").unwrap();
    }
}
