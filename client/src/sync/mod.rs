//! Many tags at once: a repository brought to where another one stands.
//!
//! A tag that stands for the same on both sides costs one question at each. What fails of one tag stops no other.

mod filter;
mod side;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use longshore_runtime::image::media_type;
use longshore_runtime::name::{Digest, Tag};
use longshore_runtime::parallel::{self, Cancel};
use longshore_runtime::progress::Progress;
use longshore_runtime::source::subject_of_tag;

pub use self::filter::{Filter, Glob, Pattern};
pub use self::side::{Address, Side};
use crate::error::{Error, Result};
use crate::signature::layers;
use crate::transfer::{Choice, Manifest, Plan, Transfer};

/// Tags asked for at a time: an answer is short, the way may be long.
const QUESTIONS: usize = 8;

/// What becomes of a tag.
#[derive(Debug)]
pub enum Change {
    /// It was not there.
    Added {
        /// What it stands for.
        digest: Digest,
    },
    /// It stood for something else.
    Moved {
        /// For what.
        old: Digest,
        /// What it stands for.
        digest: Digest,
    },
    /// It stands for the same, but something that refers to that was not there.
    Referred {
        /// What it stands for.
        digest: Digest,
        /// How many manifests came.
        referrers: usize,
    },
    /// It has gone at the source.
    Removed {
        /// What it stood for, if that is known.
        old: Option<Digest>,
    },
    /// Nothing, for this reason.
    Failed(Error),
}

/// How a sync goes.
pub struct Job<'a> {
    /// From where.
    pub from: &'a Side,
    /// Where to.
    pub to: &'a Side,
    /// Which tags.
    pub filter: &'a Filter,
    /// Which images of an index.
    pub choice: &'a Choice,
    /// Also what refers to them.
    pub referrers: bool,
    /// Take tags away that have gone at the source.
    pub delete: bool,
    /// Change nothing.
    pub dry_run: bool,
    /// Blobs at a time, if somebody has chosen.
    pub jobs: Option<usize>,
    /// Makes who is told of an image's blobs.
    pub progress: &'a (dyn Fn() -> Arc<dyn Progress> + Sync),
}

impl Job<'_> {
    /// Does it; `told` hears of each tag that changes. Gives how many did not.
    pub fn run(&self, told: &mut dyn FnMut(&Tag, Change) -> Result<()>) -> Result<usize> {
        let all = self.from.tags(false)?;
        let tags: Vec<Tag> = all.iter().filter(|tag| self.filter.accepts(tag)).cloned().collect();
        let mut unchanged = 0;
        for (tag, compared) in tags.iter().zip(self.compare(&tags)) {
            let change = match compared {
                Ok((Some(old), new)) if old == new => match self.bring_referrers(tag, &new) {
                    Ok(0) => {
                        unchanged += 1;
                        continue;
                    }
                    Ok(referrers) => Change::Referred { digest: new, referrers },
                    Err(e) => Change::Failed(e),
                },
                Ok((Some(_), _)) if layers::is_added_to(tag) && self.holds(tag) => {
                    unchanged += 1;
                    continue;
                }
                Ok((old, new)) => match self.bring(tag, new) {
                    Ok(digest) => old.map_or(Change::Added { digest: digest.clone() }, |old| Change::Moved { old, digest }),
                    Err(e) => Change::Failed(e),
                },
                Err(e) => Change::Failed(e),
            };
            told(tag, change)?;
        }
        if self.delete {
            self.remove_others(&all, told)?;
        }
        Ok(unchanged)
    }

    /// What each tag stands for there, and what it is to stand for.
    fn compare(&self, tags: &[Tag]) -> Vec<Result<(Option<Digest>, Digest)>> {
        let compared: Mutex<BTreeMap<usize, Result<_>>> = Mutex::default();
        let never = parallel::for_each(tags, QUESTIONS, &Cancel::default(), |at, tag| {
            let one = self.wanted(tag).and_then(|new| Ok((self.to.resolve(tag)?.map(|old| old.digest), new)));
            compared.lock().unwrap_or_else(PoisonError::into_inner).insert(at, one);
            Ok::<(), std::convert::Infallible>(())
        });
        match never {
            Ok(()) => compared.into_inner().unwrap_or_else(PoisonError::into_inner).into_values().collect(),
            Err(never) => match never {},
        }
    }

    /// What a tag is to stand for. Of an index of which one image is chosen, the index is asked for that.
    fn wanted(&self, tag: &Tag) -> Result<Digest> {
        let is_index = |media: &str| matches!(media, media_type::OCI_INDEX | media_type::DOCKER_LIST);
        match self.from.resolve(tag)? {
            Some(known) if matches!(self.choice(tag), Choice::All) || !is_index(&known.media_type) => Ok(known.digest),
            _ => Ok(self.from.find(tag, self.choice(tag))?.1.digest),
        }
    }

    /// Brings a tag's image over; gives what it stands for, which may have moved meanwhile.
    fn bring(&self, tag: &Tag, wanted: Digest) -> Result<Digest> {
        if self.dry_run {
            return Ok(wanted);
        }
        let (found, root) = self.from.find(tag, self.choice(tag))?;
        let (source, reference) = (found.source(), found.reference());
        let mut plan = Plan::of(source, reference, root)?;
        if self.referrers {
            plan.add_referrers(source, reference)?;
        }
        let progress = &(self.progress)();
        self.to.bring(tag, self.from, |destination| {
            Transfer { source, reference, destination, jobs: self.jobs, progress }.run(&plan)
        })?;
        // Where it is added to what is there, it stands for both.
        let both = if layers::is_added_to(tag) { self.to.resolve(tag)? } else { None };
        Ok(both.map_or(plan.root.digest, |both| both.digest))
    }

    /// Brings what refers to an image that is there already; gives how many manifests were missing.
    fn bring_referrers(&self, tag: &Tag, digest: &Digest) -> Result<usize> {
        if !self.referrers {
            return Ok(0);
        }
        let (found, root) = self.from.find(tag, self.choice(tag))?;
        if root.digest != *digest {
            // It has moved meanwhile: the next sync sees that.
            return Ok(0);
        }
        let (source, reference) = (found.source(), found.reference());
        let plan = Plan::of_referrers(source, reference, root)?;
        let mut missing = 0;
        self.to.bring(tag, self.from, |destination| {
            for manifest in plan.listed() {
                missing += usize::from(!destination.has_manifest(manifest)?);
            }
            if missing == 0 || self.dry_run {
                return Ok(());
            }
            let progress = &(self.progress)();
            Transfer { source, reference, destination, jobs: self.jobs, progress }.run(&plan)
        })?;
        Ok(missing)
    }

    /// Whether all that is under a tag that is added to is there, perhaps with more. What fails here fails again, and is told,
    /// when it is brought.
    fn holds(&self, tag: &Tag) -> bool {
        let Ok((_, raw)) = self.from.find(tag, &Choice::All) else { return false };
        let (manifest, mut holds) = (Manifest { raw, subject: None, tag: Some(tag.clone()) }, false);
        let looked = self.to.bring(tag, self.from, |destination| {
            holds = destination.has_manifest(&manifest)?;
            Ok(())
        });
        looked.is_ok() && holds
    }

    /// Which images of what a tag stands for. A list of referrers is no image for several platforms.
    fn choice(&self, tag: &Tag) -> &Choice {
        if layers::is_added_to(tag) { &Choice::All } else { self.choice }
    }

    /// Takes away what has gone at the source; last of all what is under a tag of cosign's, which stays with its subject.
    fn remove_others(&self, all: &[Tag], told: &mut dyn FnMut(&Tag, Change) -> Result<()>) -> Result<()> {
        let kept: BTreeSet<&Tag> = all.iter().collect();
        let is_gone = |tag: &Tag| !kept.contains(tag) && self.filter.accepts(tag) && !layers::lists_referrers(tag);
        let mut gone: Vec<Tag> = self.to.tags(true)?.into_iter().filter(is_gone).collect();
        gone.sort_by_key(|tag| subject_of_tag(tag).is_some());
        for tag in gone {
            if subject_of_tag(&tag).map_or(Ok(false), |subject| self.to.has(&subject))? {
                continue;
            }
            let removed = self.to.resolve(&tag).map(|resolved| resolved.map(|resolved| resolved.digest)).and_then(|old| {
                if !self.dry_run {
                    self.to.remove(&tag)?;
                }
                Ok(old)
            });
            told(&tag, removed.map_or_else(Change::Failed, |old| Change::Removed { old }))?;
        }
        Ok(())
    }
}
