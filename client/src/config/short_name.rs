//! Names without a host: docker's meaning, unless an alias gives another.
//!
//! One word means the same in every command: an image here that has it under docker's name, else an alias of it. What is
//! written to a registry, or deleted there, is never found by an alias.
//!
//! A list of registries to search is never followed: what `alpine` is would depend on who registers that name where.

use longshore_runtime::Store;
use longshore_runtime::name::Reference;

use super::registries_conf::RegistriesConf;
use crate::error::Result;

/// The image in a registry that a text names, aliases of `registries.conf` and its additions (`shortnames.conf`) resolved.
pub fn image_name(text: &str) -> Result<Reference> {
    let plain: Reference = text.parse()?;
    Ok(aliased(text)?.unwrap_or(plain))
}

/// The name or ID in the store that a text means: itself, or, where nothing here has it, the alias of it that something has.
pub fn name_here(store: &Store, text: &str) -> Result<String> {
    let is_absent = |name: &str| matches!(store.find(name), Ok(None));
    if !is_absent(text) {
        return Ok(text.to_owned());
    }
    let full = aliased(text)?.map(|full| full.to_string()).filter(|full| !is_absent(full));
    Ok(full.unwrap_or_else(|| text.to_owned()))
}

fn aliased(text: &str) -> Result<Option<Reference>> {
    let Some((name, rest)) = split(text) else { return Ok(None) };
    let aliases = RegistriesConf::load()?.aliases;
    let full = aliases.get(name).filter(|full| !full.is_empty());
    Ok(full.map(|full| format!("{full}{rest}").parse()).transpose()?)
}

/// A short name, and its tag or digest; `None` for a name with a host.
fn split(text: &str) -> Option<(&str, &str)> {
    let digest = text.find('@').unwrap_or(text.len());
    let last_part = text[..digest].rfind('/').map_or(0, |slash| slash + 1);
    let end = text[last_part..digest].find(':').map_or(digest, |colon| last_part + colon);
    let (name, rest) = text.split_at(end);
    let has_host = name.split_once('/').is_some_and(|(first, _)| {
        first == "localhost" || first.contains(['.', ':', '[']) || first.bytes().any(|byte| byte.is_ascii_uppercase())
    });
    (!has_host).then_some((name, rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_without_a_host_are_short() {
        let digest = format!("@{}", longshore_runtime::name::Digest::of(b"x"));
        assert_eq!(split("fedora"), Some(("fedora", "")));
        assert_eq!(split("opensuse/leap:15.6"), Some(("opensuse/leap", ":15.6")));
        assert_eq!(split(&format!("a:1{digest}")), Some(("a", &*format!(":1{digest}"))));
        for long in ["docker.io/fedora", "localhost/a", "r.example:5000/a:1", "[::1]:5000/a", "HOST/a"] {
            assert_eq!(split(long), None, "{long}");
        }
    }

    proptest! {
        #[test]
        fn splitting_never_panics_and_loses_nothing(text in "[a-z.:/@é]{0,30}") {
            if let Some((name, rest)) = split(&text) {
                prop_assert_eq!(format!("{name}{rest}"), text);
            }
        }
    }
}
