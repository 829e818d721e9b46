//! What a load asks for: one kind of request, or a mix of several.

use std::fmt;
use std::str::FromStr;

use anyhow::{Context as _, ensure};
use clap::ValueEnum as _;
use clap::builder::PossibleValue;
use serde::{Deserialize, Serialize};

use crate::limits::MIX_LIMIT;

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A manifest by its tag
    ManifestGet,
    /// Whether a manifest is there, by its tag
    ManifestHead,
    /// A blob
    BlobGet,
    /// Whether a blob is there
    BlobHead,
    /// A blob by POST and PUT, another one each time
    Upload,
    /// A manifest under a tag of its own, another one each time
    ManifestPut,
    /// The same manifest under one more tag each time
    TagPut,
    /// 100 tags of a list, from places all over it
    TagList,
    /// What refers to one manifest
    Referrers,
    /// Several kinds in turn, as often as their weights say
    Mixed,
    /// What a trace recorded
    #[value(skip)]
    Trace,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.to_possible_value().as_ref().map_or("trace", PossibleValue::get_name))
    }
}

/// Kinds of requests, and how often each comes in a row as long as all weights together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mix(Vec<(Kind, u32)>);

impl Default for Mix {
    /// Mostly pulls.
    fn default() -> Self {
        use Kind::{BlobGet, ManifestGet, TagList, TagPut, Upload};
        Self(vec![(ManifestGet, 70), (BlobGet, 20), (Upload, 5), (TagPut, 3), (TagList, 2)])
    }
}

/// `KIND=WEIGHT,KIND=WEIGHT...`
impl FromStr for Mix {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let mut parts: Vec<(Kind, u32)> = Vec::new();
        for part in text.split(',') {
            let (name, weight) = part.split_once('=').with_context(|| format!("{part:?} is not of the form KIND=WEIGHT"))?;
            let kind = Kind::from_str(name, false).ok().filter(|kind| *kind != Kind::Mixed);
            let kind = kind.with_context(|| format!("{name:?} is no kind of request; --help names them"))?;
            let weight = weight.parse().with_context(|| format!("{weight:?} is no weight; write a whole number"))?;
            ensure!(weight > 0, "the weight of {kind} is 0; leave it out");
            ensure!(parts.iter().all(|(other, _)| *other != kind), "{kind} is there twice");
            parts.push((kind, weight));
        }
        let sum: u64 = parts.iter().map(|(_, weight)| u64::from(*weight)).sum();
        ensure!(sum <= MIX_LIMIT, "the weights are {sum} together; at most {MIX_LIMIT} are possible");
        Ok(Self(parts))
    }
}

impl Mix {
    /// A mix of one.
    pub(super) fn only(kind: Kind) -> Self {
        Self(vec![(kind, 1)])
    }

    /// Its kinds.
    pub fn kinds(&self) -> impl Iterator<Item = Kind> {
        self.0.iter().map(|(kind, _)| *kind)
    }

    /// Places in [`Self::kinds`], each as often as its weight, in an order that is shuffled and always the same: two
    /// registries are to do the same work, and what a run made is known afterwards.
    pub(super) fn order(&self) -> Vec<usize> {
        let places = self.0.iter().enumerate();
        let mut order: Vec<usize> = places.flat_map(|(place, (_, weight))| (0..*weight).map(move |_| place)).collect();
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        for last in (1..order.len()).rev() {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            order.swap(last, usize::try_from(state % (last as u64 + 1)).unwrap_or(last));
        }
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mix_is_made_of_kinds_and_weights() {
        let mix: Mix = "manifest-get=3,upload=1".parse().unwrap();
        assert_eq!(mix, Mix(vec![(Kind::ManifestGet, 3), (Kind::Upload, 1)]));
        let mut order = mix.order();
        order.sort_unstable();
        assert_eq!(order, [0, 0, 0, 1]);
        for bad in ["", "upload", "upload=", "upload=0", "upload=-1", "mixed=1", "trace=1", "upload=1,upload=2", "upload=10001"] {
            assert!(bad.parse::<Mix>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_mix_is_mixed_and_always_alike() {
        let order = Mix::default().order();
        assert_eq!((order.len(), &order), (100, &Mix::default().order()));
        let places_of_uploads = || order.iter().enumerate().filter(|(_, part)| **part == 2).map(|(place, _)| place);
        assert_eq!(places_of_uploads().count(), 5);
        let (first, last) = (places_of_uploads().min().unwrap(), places_of_uploads().max().unwrap());
        assert!(last - first > 20, "{order:?}");
    }
}
