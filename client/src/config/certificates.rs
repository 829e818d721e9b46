//! `certs.d`: a host's certificates, where docker and containers' programs look for them (containers-certs.d.5).
//!
//! The directory `HOST[:PORT]` holds `*.crt`, who may have signed the host's certificate, and `NAME.cert` with
//! `NAME.key`, which it may demand.

use std::path::{Path, PathBuf};

use super::paths::{bad, config_home, etc, names_in};
use crate::error::Result;

/// Files in the directory of one host.
const FILES_LIMIT: usize = 256;

/// What is there for a host.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Certificates {
    pub(super) authorities: Vec<PathBuf>,
    /// The first pair.
    pub(super) client: Option<(PathBuf, PathBuf)>,
}

/// The directories that hold those of hosts, the first that has one for a host counts.
fn directories() -> Vec<PathBuf> {
    let user = |name: &str| config_home().map(|home| home.join(name).join("certs.d"));
    let machine = |name: &str| Some(etc().join(name).join("certs.d"));
    [user("containers"), machine("containers"), user("docker"), machine("docker")].into_iter().flatten().collect()
}

/// Where an authority's certificate for a host would be found: in messages.
pub(crate) fn advised_directory(host: &str) -> PathBuf {
    let directory = directories().into_iter().next().unwrap_or_else(|| etc().join("containers/certs.d"));
    directory.join(host)
}

/// The certificates of a host.
pub(super) fn find(host: &str) -> Result<Option<Certificates>> {
    let found = directories().into_iter().map(|directory| directory.join(host)).find(|directory| directory.is_dir());
    found.map(|directory| sort(&directory, &names_in(&directory, FILES_LIMIT)?)).transpose()
}

fn sort(directory: &Path, names: &[String]) -> Result<Certificates> {
    let has = |name: &str| names.iter().any(|other| other == name);
    let mut certificates = Certificates::default();
    for name in names {
        if name.ends_with(".crt") {
            certificates.authorities.push(directory.join(name));
        } else if let Some(stem) = name.strip_suffix(".cert") {
            let key = format!("{stem}.key");
            if !has(&key) {
                return Err(bad(
                    &directory.join(name),
                    format_args!("its private key {key} is not there; an authority's certificate ends in .crt"),
                ));
            }
            certificates.client.get_or_insert_with(|| (directory.join(name), directory.join(&key)));
        } else if let Some(stem) = name.strip_suffix(".key") {
            let certificate = format!("{stem}.cert");
            if !has(&certificate) {
                return Err(bad(&directory.join(name), format_args!("its certificate {certificate} is not there")));
            }
        }
    }
    Ok(certificates)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sorted(names: &[&str]) -> Result<Certificates> {
        let mut names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        names.sort();
        sort(Path::new("/d"), &names)
    }

    #[test]
    fn files_are_told_apart_by_their_names() {
        let found = sorted(&["ca.crt", "b.cert", "b.key", "a.cert", "a.key", "old.crt", "README"]).unwrap();
        assert_eq!(found.authorities, [Path::new("/d/ca.crt"), Path::new("/d/old.crt")]);
        assert_eq!(found.client, Some(("/d/a.cert".into(), "/d/a.key".into())));
        assert_eq!(sorted(&[]).unwrap(), Certificates::default());
    }

    #[test]
    fn half_a_pair_is_an_error_that_names_the_other_half() {
        assert!(sorted(&["client.cert"]).unwrap_err().to_string().contains("client.key"));
        assert!(sorted(&["client.key", "client.crt"]).unwrap_err().to_string().contains("client.cert"));
    }

    proptest! {
        #[test]
        fn sorting_never_panics_and_stays_in_the_directory(names in proptest::collection::vec("[a-zé.]{0,6}(\\.crt|\\.cert|\\.key)?", 0..6)) {
            if let Ok(found) = sort(Path::new("/d"), &names) {
                prop_assert!(found.authorities.iter().all(|path| path.starts_with("/d")));
            }
        }
    }
}
