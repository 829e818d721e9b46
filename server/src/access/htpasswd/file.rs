//! An htpasswd file's text: lines of `name:hash`, empty lines, and comments after `#`.

use std::collections::HashMap;
use std::fmt;
use std::path::Path;

use crate::error::{Error, Result};
use crate::limits::{BCRYPT_COST_LIMIT, USER_NAME_LIMIT_BYTES};

/// The bcrypt hash of a password, known to be well formed.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Hash {
    text: Box<str>,
    cost: u32,
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hash(...)")
    }
}

impl Hash {
    /// A hash as it stands in the file; else why it cannot be used.
    pub(super) fn parse(text: &str) -> std::result::Result<Self, String> {
        let advice = "only bcrypt is accepted; set the password anew with `rhub user passwd` or `htpasswd -B`";
        // `$2x$` marks hashes of an implementation with a fault: not the same function.
        if !["$2a$", "$2b$", "$2y$"].iter().any(|prefix| text.starts_with(prefix)) {
            let kind = match text {
                _ if text.starts_with("$apr1$") || text.starts_with("$1$") => "an MD5 hash",
                _ if text.starts_with("{SHA}") => "a SHA-1 hash",
                _ if text.starts_with("$5$") || text.starts_with("$6$") => "a SHA-2 crypt hash",
                _ => "no bcrypt hash",
            };
            return Err(format!("what stands for the password is {kind}; {advice}"));
        }
        let parts: bcrypt::HashParts = text.parse().map_err(|_| format!("the bcrypt hash is damaged; {advice}"))?;
        let cost = parts.get_cost();
        if !(4..=BCRYPT_COST_LIMIT).contains(&cost) {
            return Err(format!("the bcrypt hash has cost {cost}, which is not between 4 and {BCRYPT_COST_LIMIT}"));
        }
        Ok(Self { text: text.into(), cost })
    }

    /// Of a new password.
    pub(super) fn of(password: &str, cost: u32) -> Result<Self> {
        let hashed = bcrypt::hash(password, cost);
        let text = hashed.map_err(|e| longshore_runtime::Error::io("hash a password", std::io::Error::other(e)))?;
        Ok(Self { text: text.into(), cost })
    }

    /// One that nobody's password has, as costly to verify as those of this cost.
    pub(super) fn of_nobody(cost: u32) -> Self {
        // The last 31 characters are all zero bits; no input is known that comes to that.
        Self { text: format!("$2b${cost:02}$abcdefghijklmnopqrstuu{}", ".".repeat(31)).into(), cost }
    }

    pub(super) fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether this is the hash of `password`, in constant time for all passwords.
    pub(super) fn verify(&self, password: &str) -> bool {
        // Other implementations end a password at a NUL, ours would not.
        bcrypt::verify(password, &self.text).unwrap_or(false) & !password.contains('\0')
    }
}

/// The users of a file and their passwords' hashes.
pub(super) fn parse(path: &Path, text: &str) -> Result<HashMap<Box<str>, Hash>> {
    let mut users = HashMap::new();
    for (at, line) in text.lines().enumerate() {
        let unusable = |why: String| unusable(format_args!("{}, line {}", path.display(), at + 1), why);
        let Some((name, hash)) = entry(line).map_err(|why| unusable(why.into()))? else { continue };
        let hash = Hash::parse(hash).map_err(|why| unusable(format!("user {name}: {why}")))?;
        if users.insert(name.into(), hash).is_some() {
            return Err(unusable(format!("user {name} stands in an earlier line already; remove one of the two")));
        }
    }
    Ok(users)
}

/// The cost that verifying a password takes at most.
pub(super) fn highest_cost<'a>(hashes: impl Iterator<Item = &'a Hash>) -> Option<u32> {
    hashes.map(|hash| hash.cost).max()
}

/// The name and the hash of a line, unless it is empty or a comment. Neither is in the error: a line
/// that was meant otherwise may be a password.
pub(super) fn entry(line: &str) -> std::result::Result<Option<(&str, &str)>, &'static str> {
    let line = line.trim_end();
    if line.is_empty() || line.starts_with('#') {
        return Ok(None);
    }
    let (name, hash) = line.split_once(':').ok_or("a line must read name:hash")?;
    check_user_name(name)?;
    Ok(Some((name, hash)))
}

/// Whether this can be a user's name: what an htpasswd line, a Basic header and a log line can carry.
///
/// # Errors
/// Why not.
pub fn check_user_name(name: &str) -> std::result::Result<(), &'static str> {
    if name.is_empty() || name.len() > USER_NAME_LIMIT_BYTES {
        return Err("a user's name must have 1 to 128 bytes");
    }
    if name.contains(':') || name.chars().any(char::is_control) {
        return Err("a user's name must have neither colons nor control characters");
    }
    if name.starts_with('#') || name.trim() != name {
        return Err("a user's name must not start with '#' or start or end with a space");
    }
    Ok(())
}

pub(super) fn unusable(what: impl fmt::Display, why: impl fmt::Display) -> Error {
    longshore_runtime::Error::invalid(format_args!("htpasswd file {what}"), why).into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GOOD: &str = "$2y$05$c4WoMPo3SXsafkva.HHa6uXQZWr7oboPiC2bT/r7q1BB8I2s0BRqC";

    fn parse_text(text: &str) -> Result<HashMap<Box<str>, Hash>> {
        parse(Path::new("users"), text)
    }

    #[test]
    fn users_are_read_with_comments_and_empty_lines() {
        let text = format!("# people\r\n\r\nalice:{GOOD}\r\n  \nbj\u{f6}rn o:{}\n", GOOD.replace("2y", "2b"));
        let users = parse_text(&text).unwrap();
        assert_eq!(users.len(), 2);
        assert_eq!(users["alice"].as_str(), GOOD);
        assert!(users.contains_key("bj\u{f6}rn o"));
        assert!(parse_text("").unwrap().is_empty());
    }

    #[test]
    fn what_htpasswd_made_is_verified() {
        // htpasswd -nbB -C 5 u myPassword (the example of its manual).
        let hash = Hash::parse(GOOD).unwrap();
        assert!(hash.verify("myPassword"));
        for wrong in ["mypassword", "", "myPassword ", "myPassword\0", "myPassword\0x"] {
            assert!(!hash.verify(wrong), "{wrong:?}");
        }
        let nobody = Hash::of_nobody(4);
        assert_eq!(Hash::parse(nobody.as_str()).unwrap(), nobody);
        assert!(!nobody.verify("") && !nobody.verify("x"));
    }

    #[test]
    fn other_hashes_are_refused_and_the_line_is_named() {
        for (hash, said) in [
            ("$apr1$r31.....$HqJZimcKQFAMYayBlzkrA/", "MD5"),
            ("{SHA}VBPuJHI7uixaa6LQGWx4s+5GKNE=", "SHA-1"),
            ("$6$salt$IxDD3jeSOb5eB1CX5LBsqZFVkJdido3OUILO5Ifz5iwMuTS4XMS130MTSuDDl3aCI6WouIL9AjRbLCelDCy.g.", "SHA-2"),
            ("rqXexS6ZhobKA", "no bcrypt"),
            ("hunter2", "no bcrypt"),
            ("", "no bcrypt"),
            (&GOOD.replace("2y", "2x"), "no bcrypt"),
            (&GOOD[..59], "damaged"),
            (&GOOD.replace("$05$", "$31$"), "cost 31"),
        ] {
            let error = parse_text(&format!("# x\nalice:{GOOD}\nbob:{hash}\n")).expect_err(hash).to_string();
            assert!(error.contains("users, line 3") && error.contains("user bob") && error.contains(said), "{error}");
            assert!(hash.is_empty() || !error.contains(hash), "{error}");
        }
        for line in ["hunter2", ":x", "a\u{7}:x", " a:x", "#"] {
            let outcome = parse_text(&format!("{line}\n"));
            assert_eq!(outcome.is_ok(), line == "#", "{line}");
            assert!(outcome.is_ok() || !outcome.unwrap_err().to_string().contains("hunter2"));
        }
        assert!(parse_text(&format!("a:{GOOD}\na:{GOOD}")).unwrap_err().to_string().contains("line 2"));
    }

    proptest! {
        #[test]
        fn no_text_panics_and_what_is_read_is_well_formed(text in "([a-c#:$. 2y05]{0,12}\n){0,6}", other in "\\PC{0,80}") {
            for text in [text, other] {
                for (name, hash) in parse_text(&text).unwrap_or_default() {
                    prop_assert!(check_user_name(&name).is_ok() && Hash::parse(hash.as_str()).is_ok());
                }
            }
        }
    }
}
