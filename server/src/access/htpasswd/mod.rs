//! Users from an htpasswd file. The file is read again when it has changed, so that a user who is
//! removed or gets another password loses access within [`HTPASSWD_LOOK_INTERVAL`].

mod edit;
mod file;

use std::collections::HashMap;
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Instant;

use aws_lc_rs::hmac;
use tokio::sync::Semaphore;

pub use self::edit::{add, list, remove, set_password};
pub use self::file::check_user_name;
use self::file::{Hash, highest_cost, parse, unusable};
use super::key::random_key;
use crate::error::{Attempt, Error, Result};
use crate::file_stamp::FileStamp;
use crate::limits::{BCRYPT_COST, HTPASSWD_LIMIT_BYTES, HTPASSWD_LOOK_INTERVAL, LOGINS_WAITING_LIMIT, VERDICT_LIFETIME};

/// The users there are now.
pub(super) struct Users {
    path: PathBuf,
    opened: Instant,
    /// When to look at the file again, in milliseconds after `opened`.
    next_look_ms: AtomicU64,
    current: RwLock<Arc<Snapshot>>,
    /// Which file was read last, be it good or bad.
    seen: Mutex<FileStamp>,
    /// Of this process: under it a password leaves no trace that another one could be tried against.
    verdicts_key: hmac::Key,
    /// Those whose password is being hashed now, and those and the ones who wait for it.
    hashing: Semaphore,
    waiting: Semaphore,
}

impl fmt::Debug for Users {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Users of {}", self.path.display())
    }
}

/// The users of one version of the file. What was found out about their passwords goes with it.
struct Snapshot {
    users: HashMap<Box<str>, Arc<User>>,
    /// Verified for users there are not, so that they take as long as those there are.
    nobody: Arc<User>,
}

/// A user.
pub(super) struct User {
    pub(super) name: Arc<str>,
    hash: Hash,
    /// The last password found right, as a keyed hash, and when that was.
    verdict: Mutex<Option<(hmac::Tag, Instant)>>,
}

impl fmt::Debug for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "User({:?}, ...)", self.name)
    }
}

impl Users {
    /// Reads the file.
    ///
    /// # Errors
    /// When it is not there, or a line of it is no user with a bcrypt hash.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let (snapshot, seen) = load(path)?;
        // A password takes a core for itself: half of them are left for what is served meanwhile.
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Ok(Self {
            path: path.to_owned(),
            opened: Instant::now(),
            next_look_ms: AtomicU64::new(0),
            current: RwLock::new(Arc::new(snapshot?)),
            seen: Mutex::new(seen),
            verdicts_key: random_key()?,
            hashing: Semaphore::new((cores / 2).max(1)),
            waiting: Semaphore::new(LOGINS_WAITING_LIMIT),
        })
    }

    /// A user, if there is one of this name.
    pub(super) fn find(&self, name: &str) -> Option<Arc<User>> {
        self.current().users.get(name).cloned()
    }

    /// A user whose password this is.
    ///
    /// # Errors
    /// [`Error::TooMany`] when too many others wait for the same.
    pub(super) async fn verify(&self, name: &str, password: &str) -> Result<Option<Arc<User>>> {
        let snapshot = self.current();
        let (user, known) = match snapshot.users.get(name) {
            Some(user) => (user, true),
            None => (&snapshot.nobody, false),
        };
        if user.was_verified(&self.verdicts_key, password) {
            return Ok(Some(Arc::clone(user)));
        }
        let _place = self.waiting.try_acquire().map_err(|_| Error::TooMany("logins"))?;
        // Neither semaphore is ever closed.
        let _turn = self.hashing.acquire().await.map_err(|_| Error::TooMany("logins"))?;
        // Somebody with the same password may have been before us.
        if user.was_verified(&self.verdicts_key, password) {
            return Ok(Some(Arc::clone(user)));
        }
        let (hash, password) = (user.hash.clone(), password.to_owned());
        let tag = hmac::sign(&self.verdicts_key, password.as_bytes());
        let right = crate::blocking(move || Ok(hash.verify(&password))).await? & known;
        if right {
            *user.verdict.lock().unwrap_or_else(PoisonError::into_inner) = Some((tag, Instant::now()));
        }
        Ok(right.then(|| Arc::clone(user)))
    }

    fn current(&self) -> Arc<Snapshot> {
        let now_ms = u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX);
        let due_ms = self.next_look_ms.load(Ordering::Relaxed);
        let next_ms = now_ms.saturating_add(HTPASSWD_LOOK_INTERVAL.as_millis() as u64);
        let order = Ordering::Relaxed;
        // Whoever sets the time looks; the others go on with what is there.
        if now_ms >= due_ms && self.next_look_ms.compare_exchange(due_ms, next_ms, order, order).is_ok() {
            self.look();
        }
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes a changed file. One that cannot be used is said once, and the users stay as they are.
    fn look(&self) {
        let seen = *self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let there = FileStamp::at(&self.path);
        if there == seen {
            return;
        }
        let (loaded, read) = load(&self.path).unwrap_or_else(|e| (Err(e), there));
        match loaded {
            Ok(snapshot) => {
                tracing::info!("read {} again: {} users", self.path.display(), snapshot.users.len());
                *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(snapshot);
            }
            Err(e) => tracing::error!("{e}; the users stay as they were until it is put right"),
        }
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = read;
    }
}

impl User {
    /// The hash of the password, which no other password has, nor the same one set anew.
    pub(super) fn password_hash(&self) -> &str {
        self.hash.as_str()
    }

    fn was_verified(&self, key: &hmac::Key, password: &str) -> bool {
        let verdict = self.verdict.lock().unwrap_or_else(PoisonError::into_inner);
        verdict.as_ref().is_some_and(|(tag, at)| {
            at.elapsed() < VERDICT_LIFETIME && hmac::verify(key, password.as_bytes(), tag.as_ref()).is_ok()
        })
    }

    fn new(name: &str, hash: Hash) -> Arc<Self> {
        Arc::new(Self { name: name.into(), hash, verdict: Mutex::new(None) })
    }
}

/// The users of a file, or why there are none, and which version of the file that is.
fn load(path: &Path) -> Result<(Result<Snapshot>, FileStamp)> {
    let attempted = || format!("read htpasswd file {}", path.display());
    let file = File::open(path).attempt(attempted)?;
    let stamp = FileStamp::of(&file.metadata().attempt(attempted)?);
    let users = read_text(path, &file).and_then(|text| parse(path, &text));
    let snapshot = users.map(|users| {
        let nobody = User::new("", Hash::of_nobody(highest_cost(users.values()).unwrap_or(BCRYPT_COST)));
        let users = users.into_iter().map(|(name, hash)| (name.clone(), User::new(&name, hash)));
        Snapshot { users: users.collect(), nobody }
    });
    Ok((snapshot, stamp))
}

/// The text of a whole file of bounded length.
fn read(path: &Path) -> Result<String> {
    let file = File::open(path).attempt(|| format!("read htpasswd file {}", path.display()))?;
    read_text(path, &file)
}

fn read_text(path: &Path, file: &File) -> Result<String> {
    let mut bytes = Vec::new();
    let read = file.take(HTPASSWD_LIMIT_BYTES + 1).read_to_end(&mut bytes);
    read.attempt(|| format!("read htpasswd file {}", path.display()))?;
    if bytes.len() as u64 > HTPASSWD_LIMIT_BYTES {
        return Err(unusable(path.display(), format_args!("it is longer than {HTPASSWD_LIMIT_BYTES} bytes")));
    }
    String::from_utf8(bytes).map_err(|_| unusable(path.display(), "it is no text in UTF-8"))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// A file of users, each with the cheapest hash of a password there is.
    fn write(path: &Path, users: &[(&str, &str)]) {
        let lines = users.iter().map(|(name, password)| format!("{name}:{}\n", bcrypt::hash(password, 4).unwrap()));
        std::fs::write(path, lines.collect::<String>()).unwrap();
    }

    fn users(list: &[(&str, &str)]) -> (tempfile::TempDir, Users) {
        let dir = tempfile::tempdir().unwrap();
        write(&dir.path().join("users"), list);
        let users = Users::open(&dir.path().join("users")).unwrap();
        (dir, users)
    }

    impl Users {
        /// As if the interval were over.
        fn look_now(&self) {
            self.next_look_ms.store(0, Ordering::Relaxed);
        }
    }

    #[tokio::test]
    async fn a_password_opens_its_own_user_only() {
        let (_dir, users) = users(&[("alice", "one"), ("bob", "two")]);
        for (name, password, expected) in [
            ("alice", "one", true),
            ("alice", "one", true),
            ("alice", "two", false),
            ("bob", "one", false),
            ("alice", "", false),
            ("Alice", "one", false),
            ("carol", "one", false),
            ("", "", false),
        ] {
            let user = users.verify(name, password).await.unwrap();
            assert_eq!(user.map(|user| user.name.to_string()), expected.then(|| name.to_owned()), "{name} {password}");
        }
    }

    #[tokio::test]
    async fn a_verdict_is_kept_for_a_while_without_the_password() {
        let (_dir, users) = users(&[("alice", "hunter2")]);
        let alice = users.verify("alice", "hunter2").await.unwrap().unwrap();
        assert!(alice.was_verified(&users.verdicts_key, "hunter2"));
        assert!(!alice.was_verified(&users.verdicts_key, "hunter3"));
        let kept = alice.verdict.lock().unwrap().take().unwrap();
        assert!(!kept.0.as_ref().windows(7).any(|seven| seven == b"hunter2"));
        let Some(long_ago) = kept.1.checked_sub(VERDICT_LIFETIME + Duration::from_secs(1)) else { return };
        *alice.verdict.lock().unwrap() = Some((kept.0, long_ago));
        assert!(!alice.was_verified(&users.verdicts_key, "hunter2"));
    }

    #[tokio::test]
    async fn a_changed_file_counts_at_once_and_a_broken_one_not_at_all() {
        let (dir, users) = users(&[("alice", "one"), ("bob", "two")]);
        let path = dir.path().join("users");
        assert!(users.verify("alice", "one").await.unwrap().is_some());
        write(&path, &[("alice", "new"), ("carol", "three")]);
        users.look_now();
        assert!(users.verify("alice", "one").await.unwrap().is_none(), "the verdict went with the old file");
        assert!(users.verify("alice", "new").await.unwrap().is_some());
        assert!(users.find("bob").is_none() && users.find("carol").is_some());
        for broken in ["alice:plain\n", "\u{0}\n"] {
            std::fs::write(&path, broken).unwrap();
            users.look_now();
            assert!(users.find("carol").is_some(), "{broken:?}");
        }
        std::fs::remove_file(&path).unwrap();
        users.look_now();
        assert!(users.find("carol").is_some());
        write(&path, &[("bob", "two")]);
        users.look_now();
        assert!(users.find("carol").is_none() && users.find("bob").is_some());
    }

    #[tokio::test]
    async fn the_file_is_looked_at_once_in_a_while_only() {
        let (dir, users) = users(&[("alice", "one")]);
        assert!(users.find("alice").is_some());
        users.next_look_ms.store(u64::MAX, Ordering::Relaxed);
        write(&dir.path().join("users"), &[]);
        assert!(users.find("alice").is_some());
        users.look_now();
        assert!(users.find("alice").is_none());
    }

    #[tokio::test]
    async fn cve_2023_20902_an_unknown_user_costs_as_much_as_a_known_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("users");
        add(&path, "alice", "one").unwrap();
        let users = Users::open(&path).unwrap();
        let mut fastest = [Duration::MAX; 2];
        for _ in 0..3 {
            for (name, fastest) in ["alice", "nobody"].into_iter().zip(&mut fastest) {
                let start = Instant::now();
                assert!(users.verify(name, "wrong").await.unwrap().is_none());
                *fastest = start.elapsed().min(*fastest);
            }
        }
        let [known, unknown] = fastest;
        assert!(unknown * 2 > known && known * 2 > unknown, "known {known:?}, unknown {unknown:?}");
    }

    #[tokio::test]
    async fn logins_waiting_are_bounded() {
        let (_dir, users) = users(&[("alice", "one")]);
        let all = users.waiting.acquire_many(u32::try_from(LOGINS_WAITING_LIMIT).unwrap()).await.unwrap();
        assert!(matches!(users.verify("alice", "one").await, Err(Error::TooMany(_))));
        drop(all);
        assert!(users.verify("alice", "one").await.unwrap().is_some());
    }
}
