//! What containers are called: names given, and names made up.

use crate::error::{Error, Result};
use crate::files;

/// The longest name (a file's).
const NAME_LIMIT_BYTES: usize = 255;

const MANNERS: [&str; 32] = [
    "able", "amber", "bold", "brisk", "calm", "clear", "cosy", "deft", "early", "fair", "fleet", "frank", "gentle", "glad",
    "grand", "hardy", "jolly", "keen", "lively", "lucky", "merry", "neat", "nimble", "proud", "quick", "quiet", "ready",
    "steady", "sunny", "swift", "trusty", "witty",
];

const THINGS: [&str; 32] = [
    "anchor", "barge", "beacon", "boom", "bosun", "bow", "buoy", "cargo", "clipper", "crane", "cutter", "derrick", "dock",
    "ferry", "gangway", "harbour", "hawser", "hoist", "hull", "jetty", "keel", "ketch", "lighter", "mast", "pier", "quay",
    "rigger", "schooner", "sloop", "tide", "wharf", "winch",
];

/// A name for who was given none. It may be taken.
pub(super) fn random() -> Result<String> {
    let digits = files::random_hex(2)?;
    let number = usize::from_str_radix(&digits, 16).unwrap_or_default();
    Ok(format!("{}_{}", MANNERS[number % MANNERS.len()], THINGS[number / MANNERS.len() % THINGS.len()]))
}

/// Whether a container can be called that.
pub(super) fn check(name: &str) -> Result<()> {
    check_name("container name", name)
}

/// Whether something can be called that: docker's rule for containers and volumes.
pub(crate) fn check_name(what: &'static str, name: &str) -> Result<()> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    let good = name.len() > 1
        && name.len() <= NAME_LIMIT_BYTES
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(allowed);
    if good {
        return Ok(());
    }
    Err(Error::Name { what, input: name.to_owned(), why: "it must match [a-zA-Z0-9][a-zA-Z0-9_.-]+" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_part_of_a_path_and_names_made_up_are_names() {
        for _ in 0..100 {
            check(&random().unwrap()).unwrap();
        }
        check("a1").unwrap();
        check("web_1.example-x").unwrap();
        for bad in ["", "a", ".", "..", ".a", "-a", "a/b", "../x", "a b", "é1", "a\n", &"a".repeat(256)] {
            assert!(check(bad).is_err(), "{bad:?}");
        }
    }
}
