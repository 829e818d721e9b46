//! Credentials given to one command, in place of those that are kept: by a flag, a file or the environment.

use std::path::{Path, PathBuf};

use clap::Args;
use longshore_runtime::{Error, files};

use crate::credentials::Credentials;
use crate::error::Result;

/// The longest file of credentials, in bytes; access tokens are some thousand.
const LIMIT_BYTES: u64 = 64 << 10;

/// For the two sides of a copy.
#[derive(Debug, Args)]
pub(super) struct BothCredentials {
    /// For the registry copied from, in place of those kept; others on this machine can see them: better $LONGSHORE_SRC_CREDS
    #[arg(long, value_name = "USER:PASSWORD")]
    src_creds: Option<String>,
    /// The same, from a file of one line
    #[arg(long, value_name = "FILE", conflicts_with = "src_creds")]
    src_creds_file: Option<PathBuf>,
    /// For the registry copied to; better $LONGSHORE_DEST_CREDS
    #[arg(long, value_name = "USER:PASSWORD")]
    dest_creds: Option<String>,
    /// The same, from a file of one line
    #[arg(long, value_name = "FILE", conflicts_with = "dest_creds")]
    dest_creds_file: Option<PathBuf>,
}

impl BothCredentials {
    pub(super) fn source(&self) -> Result<Option<Credentials>> {
        find(self.src_creds.as_deref(), self.src_creds_file.as_deref(), "LONGSHORE_SRC_CREDS")
    }

    pub(super) fn destination(&self) -> Result<Option<Credentials>> {
        find(self.dest_creds.as_deref(), self.dest_creds_file.as_deref(), "LONGSHORE_DEST_CREDS")
    }
}

/// For one registry.
#[derive(Debug, Args)]
pub(super) struct OneCredentials {
    /// For the registry, in place of those kept; others on this machine can see them: better $LONGSHORE_CREDS
    #[arg(long, value_name = "USER:PASSWORD")]
    creds: Option<String>,
    /// The same, from a file of one line
    #[arg(long, value_name = "FILE", conflicts_with = "creds")]
    creds_file: Option<PathBuf>,
}

impl OneCredentials {
    pub(super) fn get(&self) -> Result<Option<Credentials>> {
        find(self.creds.as_deref(), self.creds_file.as_deref(), "LONGSHORE_CREDS")
    }
}

fn find(flag: Option<&str>, file: Option<&Path>, variable: &str) -> Result<Option<Credentials>> {
    if let Some(text) = flag {
        return parse(text, "the flag").map(Some);
    }
    if let Some(path) = file {
        let text = String::from_utf8_lossy(&files::read_bounded(path, LIMIT_BYTES)?).into_owned();
        return parse(text.trim_end_matches(['\r', '\n']), &path.display().to_string()).map(Some);
    }
    match std::env::var(variable) {
        Ok(text) if !text.is_empty() => parse(&text, &format!("${variable}")).map(Some),
        _ => Ok(None),
    }
}

/// Never says what it was given.
fn parse(text: &str, place: &str) -> Result<Credentials> {
    match text.split_once(':') {
        Some((user, password)) if !user.is_empty() && !text.contains(['\r', '\n']) => {
            Ok(Credentials::Basic { user: user.into(), password: password.into() })
        }
        _ => Err(Error::invalid(format_args!("credentials of {place}"), "they must read USER:PASSWORD").into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_split_at_the_first_colon_and_never_shown() {
        let Ok(Credentials::Basic { user, password }) = parse("me:a:b", "x") else { panic!() };
        assert_eq!((user.as_str(), password.as_str()), ("me", "a:b"));
        for bad in ["", "secret", ":secret", "secret:\nx"] {
            let said = parse(bad, "the flag").unwrap_err().to_string();
            assert!(!said.contains("secret"), "{said}");
        }
    }
}
