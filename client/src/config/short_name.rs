//! Names without a host: docker's meaning, unless an alias gives another.
//!
//! A list of registries to search is never followed: what `alpine` is would depend on who registers that name where.

use longshore_runtime::name::Reference;

use super::registries_conf::RegistriesConf;
use crate::error::Result;

/// The image a text names, aliases of `registries.conf` and its additions (`shortnames.conf`) resolved.
pub fn image_name(text: &str) -> Result<Reference> {
    let plain: Reference = text.parse()?;
    let Some((name, rest)) = split(text) else { return Ok(plain) };
    match RegistriesConf::load()?.aliases.get(name).filter(|full| !full.is_empty()) {
        Some(full) => Ok(format!("{full}{rest}").parse()?),
        None => Ok(plain),
    }
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
