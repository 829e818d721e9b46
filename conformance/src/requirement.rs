//! What a specification asks for, as a row of a table, and the choice of rows by name.

use std::fmt;

use anyhow::bail;
use serde::Serialize;

use crate::outcome::Level;

/// One thing a specification asks for. `C` is the function that judges it.
#[derive(Clone, Copy, Serialize)]
pub struct Requirement<C> {
    /// Group and name, `pull-blob`; stable across versions.
    pub id: &'static str,
    /// The section it stands in, by heading, with the endpoint where it has one.
    pub section: &'static str,
    /// How strongly it is asked.
    pub level: Level,
    /// The requirement in a few words.
    pub title: &'static str,
    #[serde(skip)]
    pub(crate) check: C,
}

impl<C> fmt::Debug for Requirement<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Requirement").field(&self.id).finish()
    }
}

/// A row of a table asked with MUST.
pub(crate) const fn must<C: Copy>(id: &'static str, section: &'static str, title: &'static str, check: C) -> Requirement<C> {
    Requirement { id, section, level: Level::Must, title, check }
}

/// A row of a table asked with SHOULD.
pub(crate) const fn should<C: Copy>(id: &'static str, section: &'static str, title: &'static str, check: C) -> Requirement<C> {
    Requirement { id, section, level: Level::Should, title, check }
}

/// A row of a table about what may be done, or is done by habit.
pub(crate) const fn may<C: Copy>(id: &'static str, section: &'static str, title: &'static str, check: C) -> Requirement<C> {
    Requirement { id, section, level: Level::May, title, check }
}

/// The rows whose id is one of `only` or begins with one of them and a dash (all when `only` is empty),
/// without those that `skip` names in the same way.
///
/// # Errors
/// When a name fits no row.
pub fn choose<C>(
    table: impl Iterator<Item = &'static Requirement<C>>,
    only: &[String],
    skip: &[String],
) -> anyhow::Result<Vec<&'static Requirement<C>>> {
    let fits = |id: &str, wanted: &str| id.strip_prefix(wanted).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'));
    let mut chosen: Vec<_> = table.collect();
    if let Some(unknown) = only.iter().chain(skip).find(|wanted| !chosen.iter().any(|r| fits(r.id, wanted))) {
        bail!("no requirement is called {unknown:?}: see --list");
    }
    let named = |list: &[String], id: &str| list.iter().any(|wanted| fits(id, wanted));
    chosen.retain(|r| (only.is_empty() || named(only, r.id)) && !named(skip, r.id));
    Ok(chosen)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &[Requirement<()>] =
        &[must("pull-blob", "s", "t", ()), should("pull-blob-range", "s", "t", ()), must("push-blob", "s", "t", ())];

    fn ids(only: &[&str], skip: &[&str]) -> anyhow::Result<Vec<&'static str>> {
        let list = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        Ok(choose(TABLE.iter(), &list(only), &list(skip))?.iter().map(|r| r.id).collect())
    }

    #[test]
    fn requirements_are_chosen_and_left_out_by_id_or_group() {
        assert_eq!(ids(&[], &[]).unwrap().len(), 3);
        assert_eq!(ids(&["pull"], &[]).unwrap(), ["pull-blob", "pull-blob-range"]);
        assert_eq!(ids(&["pull"], &["pull-blob-range"]).unwrap(), ["pull-blob"]);
        assert_eq!(ids(&[], &["pull-blob"]).unwrap(), ["push-blob"]);
        for unknown in ["pul", "blob", ""] {
            assert!(ids(&[unknown], &[]).is_err() && ids(&[], &[unknown]).is_err(), "{unknown:?}");
        }
    }

    /// Of every table there is.
    #[test]
    fn every_requirement_has_an_id_of_its_own_in_a_group() {
        for mut ids in [
            crate::spec::requirements().map(|r| r.id).collect::<Vec<_>>(),
            crate::runtime::requirements().map(|r| r.id).collect(),
        ] {
            let allowed = |b: u8| b.is_ascii_lowercase() || b == b'-' || b.is_ascii_digit();
            assert!(ids.iter().all(|id| id.contains('-') && id.bytes().all(allowed)));
            let count = ids.len();
            ids.sort_unstable();
            ids.dedup();
            assert_eq!(ids.len(), count);
        }
    }
}
