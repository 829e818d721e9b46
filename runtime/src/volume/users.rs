//! Who has which volume: containers, whether they run or not.

use serde::Deserialize;

use super::store::Volumes;
use crate::error::Result;
use crate::files;

/// What a claim to a volume begins with, in the file of claims that also has the digests of an image.
const CLAIM: &str = "volume ";

/// The largest `container.json` that is looked into for a name.
const RECORD_LIMIT_BYTES: u64 = 8 << 20;

/// Who has a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct User {
    /// The container's ID.
    pub(super) container: String,
    /// The volume's name.
    pub(super) volume: String,
}

/// The claim to a volume, without the end of its line.
pub(crate) fn claim(name: &str) -> String {
    format!("{CLAIM}{name}")
}

impl Volumes {
    /// Everybody who has a volume. Only meaningful under the store's exclusive lock.
    pub(super) fn users(&self) -> Result<Vec<User>> {
        let mut users = Vec::new();
        for claim in self.store.claimed_but_by(None)? {
            let volumes = claim.text.lines().filter_map(|line| line.strip_prefix(CLAIM));
            users.extend(volumes.map(|volume| User { container: claim.id.clone(), volume: volume.to_owned() }));
        }
        Ok(users)
    }

    /// What a user is called, for people: a container's name and ID.
    pub(super) fn describe(&self, user: &User) -> String {
        #[derive(Deserialize)]
        struct Record {
            name: String,
        }
        let id = user.container.get(..12).unwrap_or(&user.container);
        let path = self.store.root().join("containers").join(&user.container).join("container.json");
        let record = files::read_bounded(&path, RECORD_LIMIT_BYTES).ok();
        match record.and_then(|bytes| serde_json::from_slice::<Record>(&bytes).ok()) {
            Some(record) => format!("container {} ({id})", record.name),
            None => format!("container {id}"),
        }
    }
}
