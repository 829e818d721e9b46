//! Which bytes of a blob are here, and who fetches which of the others.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::{Duration, Instant};

/// What is fetched by one range request at the least, and what the journal of a download counts in.
pub(super) const CHUNK_BYTES: u64 = 8 << 20;

/// Chunks of one range request at the most.
const CLAIM_CHUNKS: u64 = 4;

/// A claim with less than this before it is not worth a request of another's.
const SPLIT_BYTES: u64 = 1 << 20;

/// A claim that will take no longer than this is left to who has it.
const SPLIT_AFTER: Duration = Duration::from_secs(1);

/// So many times slower than who looks for work: its claim is taken over whole.
const STRAGGLER_RATIO: u64 = 4;

/// A claim that has not moved for so long is anybody's.
pub(super) const STALLED_AFTER: Duration = Duration::from_secs(3);

/// Names a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ClaimId(u64);

/// The state of one download. Offsets are in bytes.
#[derive(Debug)]
pub(super) struct Plan {
    size: u64,
    /// Beginnings and ends of the runs of bytes that are here; they neither overlap nor touch.
    here: BTreeMap<u64, u64>,
    claims: Vec<Claim>,
    next_id: u64,
    /// Bytes that have arrived since the beginning.
    arrived_bytes: u64,
}

/// Bytes somebody is fetching, `position` the next one.
#[derive(Debug)]
struct Claim {
    id: ClaimId,
    position: u64,
    end: u64,
    /// Bytes from `position` on that are being written: they stay with the claim.
    reserved_bytes: u64,
    start: u64,
    started: Instant,
    moved: Instant,
}

impl Claim {
    fn left_bytes(&self) -> u64 {
        self.end - self.position
    }

    /// Bytes per second; 0 of one that is stalled.
    fn rate(&self, now: Instant) -> u64 {
        if now.saturating_duration_since(self.moved) >= STALLED_AFTER {
            return 0;
        }
        rate(self.position - self.start, now.saturating_duration_since(self.started))
    }
}

/// Bytes per second.
pub(super) fn rate(bytes: u64, time: Duration) -> u64 {
    let milliseconds = u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1);
    bytes.saturating_mul(1000) / milliseconds
}

/// Where whoever reads in order stands.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// The bytes up to this offset are here.
    Here(u64),
    /// Nobody fetches them, up to this offset.
    Free(u64),
    /// Somebody fetches them.
    Claimed(ClaimId),
}

impl Plan {
    pub(super) fn new(size: u64, here: impl IntoIterator<Item = Range<u64>>) -> Self {
        let mut plan = Self { size, here: BTreeMap::new(), claims: Vec::new(), next_id: 0, arrived_bytes: 0 };
        here.into_iter().for_each(|range| plan.insert(range));
        plan
    }

    pub(super) fn arrived_bytes(&self) -> u64 {
        self.arrived_bytes
    }

    /// What is at `position`, which is below the size.
    pub(super) fn next(&self, position: u64) -> Next {
        let end = self.run_end(position);
        if end > position {
            return Next::Here(end);
        }
        match self.claim_at(position) {
            Some(claim) => Next::Claimed(claim.id),
            None => Next::Free(self.gap_end(position)),
        }
    }

    /// Takes bytes that are neither here nor claimed.
    pub(super) fn claim(&mut self, range: Range<u64>, now: Instant) -> ClaimId {
        let id = ClaimId(self.next_id);
        self.next_id += 1;
        let Range { start, end } = range;
        self.claims.push(Claim { id, position: start, end, reserved_bytes: 0, start, started: now, moved: now });
        id
    }

    /// Work for one more connection of `workers`, the first bytes first: such that nobody fetches, or a
    /// part of what another would be long about. `own_rate` is what the last claim of who asks ran at.
    pub(super) fn claim_any(&mut self, workers: u64, own_rate: u64, now: Instant) -> Option<(ClaimId, Range<u64>)> {
        let range = self.first_free(workers).or_else(|| self.split(own_rate, now))?;
        Some((self.claim(range.clone(), now), range))
    }

    /// Cuts a claim off at `end`; what is behind it is free.
    pub(super) fn shorten(&mut self, id: ClaimId, end: u64) {
        if let Some(claim) = self.claims.iter_mut().find(|claim| claim.id == id) {
            claim.end = claim.end.min(end.max(claim.position + claim.reserved_bytes));
        }
        self.claims.retain(|claim| claim.position < claim.end);
    }

    /// Gives an own claim back.
    pub(super) fn release(&mut self, id: ClaimId) {
        self.claims.retain(|claim| claim.id != id);
    }

    /// Takes a claim away for which nothing has come for too long.
    pub(super) fn release_stalled(&mut self, id: ClaimId, now: Instant) {
        let is_stalled = |claim: &Claim| claim.reserved_bytes == 0 && now.saturating_duration_since(claim.moved) >= STALLED_AFTER;
        self.claims.retain(|claim| claim.id != id || !is_stalled(claim));
    }

    /// How many of the next `bytes` of a claim its owner may write: none when it was taken away
    /// meanwhile. Until they have arrived nobody else gets them, so that what somebody has read from the
    /// file is never written again, whatever a source sends.
    pub(super) fn reserve(&mut self, id: ClaimId, bytes: u64) -> u64 {
        let Some(claim) = self.claims.iter_mut().find(|claim| claim.id == id) else { return 0 };
        claim.reserved_bytes = bytes.min(claim.left_bytes());
        claim.reserved_bytes
    }

    /// Notes that the reserved bytes of a claim are on disk. Gives how many it has left.
    pub(super) fn arrived(&mut self, id: ClaimId, now: Instant) -> u64 {
        let Some(claim) = self.claims.iter_mut().find(|claim| claim.id == id) else { return 0 };
        let bytes = std::mem::take(&mut claim.reserved_bytes);
        let range = claim.position..claim.position + bytes;
        claim.position += bytes;
        claim.moved = now;
        let left_bytes = claim.left_bytes();
        if left_bytes == 0 {
            self.release(id);
        }
        self.arrived_bytes += bytes;
        self.insert(range);
        left_bytes
    }

    /// The numbers of the chunks overlapping `range` that are here whole.
    pub(super) fn whole_chunks(&self, range: Range<u64>) -> impl Iterator<Item = u64> {
        let chunks = range.start / CHUNK_BYTES..range.end.div_ceil(CHUNK_BYTES);
        chunks.filter(|chunk| self.run_end(chunk * CHUNK_BYTES) >= ((chunk + 1) * CHUNK_BYTES).min(self.size))
    }

    /// Where the run that `position` is in ends; `position` itself if it is in none.
    fn run_end(&self, position: u64) -> u64 {
        self.here.range(..=position).next_back().map_or(position, |(_, &end)| end.max(position))
    }

    fn claim_at(&self, position: u64) -> Option<&Claim> {
        self.claims.iter().find(|claim| (claim.position..claim.end).contains(&position))
    }

    /// The end of the free bytes at `position`.
    fn gap_end(&self, position: u64) -> u64 {
        let here = self.here.range(position..).next().map(|(&start, _)| start);
        let claimed = self.claims.iter().map(|claim| claim.position).filter(|&start| start >= position).min();
        here.into_iter().chain(claimed).min().unwrap_or(self.size).min(self.size)
    }

    fn first_free(&self, workers: u64) -> Option<Range<u64>> {
        let mut position = 0;
        let mut first = None;
        let mut free_bytes = 0;
        while position < self.size {
            match self.next(position) {
                Next::Here(end) => position = end,
                Next::Claimed(_) => position = self.claim_at(position).map_or(self.size, |claim| claim.end),
                Next::Free(end) => {
                    first.get_or_insert(position..end);
                    free_bytes += end - position;
                    position = end;
                }
            }
        }
        let Range { start, end } = first?;
        // Long ones first, for few requests; short ones towards the end, for all to end at once.
        let chunks = (free_bytes / (2 * workers.max(1)) / CHUNK_BYTES).clamp(1, CLAIM_CHUNKS);
        Some(start..end.min((start / CHUNK_BYTES + chunks) * CHUNK_BYTES))
    }

    /// Takes from the claim that would be done last: all of it, if who has it is that slow, or a half.
    fn split(&mut self, own_rate: u64, now: Instant) -> Option<Range<u64>> {
        // Of one that has only begun nobody knows.
        let known = self.claims.iter().filter(|claim| now.saturating_duration_since(claim.started) >= SPLIT_AFTER);
        let last = known.max_by_key(|claim| claim.left_bytes() / claim.rate(now).max(1))?;
        let (id, end, rate) = (last.id, last.end, last.rate(now));
        if last.left_bytes() / rate.max(1) < SPLIT_AFTER.as_secs() {
            return None;
        }
        let position = last.position + last.reserved_bytes;
        if rate.saturating_mul(STRAGGLER_RATIO) < own_rate {
            self.shorten(id, position);
            return (position < end).then_some(position..end);
        }
        let middle = position + (end - position) / 2;
        (end - middle >= SPLIT_BYTES).then(|| {
            self.shorten(id, middle);
            middle..end
        })
    }

    fn insert(&mut self, range: Range<u64>) {
        let Range { mut start, mut end } = range;
        if start >= end {
            return;
        }
        if let Some((&before, &before_end)) = self.here.range(..=start).next_back()
            && before_end >= start
        {
            start = before;
            end = end.max(before_end);
        }
        while let Some((&after, &after_end)) = self.here.range(start..=end).next() {
            self.here.remove(&after);
            end = end.max(after_end);
        }
        self.here.insert(start, end);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SIZE: u64 = 10 * CHUNK_BYTES + 5;

    fn bring(plan: &mut Plan, claim: ClaimId, bytes: u64, now: Instant) -> u64 {
        plan.reserve(claim, bytes);
        plan.arrived(claim, now)
    }

    #[test]
    fn work_is_the_first_bytes_nobody_fetches_and_then_a_part_of_the_slowest_claim() {
        let now = Instant::now();
        let mut plan = Plan::new(SIZE, std::iter::once(0..CHUNK_BYTES));
        let (slow, first) = plan.claim_any(4, 0, now).unwrap();
        assert_eq!(first, CHUNK_BYTES..2 * CHUNK_BYTES);
        let (_, second) = plan.claim_any(1, 0, now).unwrap();
        assert_eq!(second, 2 * CHUNK_BYTES..6 * CHUNK_BYTES);
        while let Some(range) = plan.first_free(4) {
            plan.claim(range, now);
        }
        // All is claimed. Later, the others have brought theirs and are idle.
        let later = now + Duration::from_secs(4);
        assert_eq!(bring(&mut plan, slow, 1, later), CHUNK_BYTES - 1);
        for id in plan.claims.iter().map(|claim| claim.id).filter(|&id| id != slow).collect::<Vec<_>>() {
            bring(&mut plan, id, SIZE, later);
        }
        let (_, stolen) = plan.claim_any(4, 20 << 20, later).unwrap();
        assert_eq!(stolen, CHUNK_BYTES + 1..2 * CHUNK_BYTES, "a straggler loses all of it");
        assert_eq!(plan.reserve(slow, 100), 0, "and is told so");
    }

    #[test]
    fn a_claim_of_another_that_is_as_fast_is_halved() {
        let now = Instant::now();
        let mut plan = Plan::new(4 * CHUNK_BYTES, []);
        let claim = plan.claim(0..4 * CHUNK_BYTES, now);
        let later = now + Duration::from_secs(2);
        bring(&mut plan, claim, 2 * CHUNK_BYTES, later);
        let (_, half) = plan.claim_any(2, CHUNK_BYTES, later).unwrap();
        assert_eq!(half, 3 * CHUNK_BYTES..4 * CHUNK_BYTES);
        assert_eq!(plan.reserve(claim, 5 * CHUNK_BYTES), CHUNK_BYTES, "what is read too much is not written");
        plan.arrived(claim, later);
        assert_eq!(plan.arrived_bytes(), 3 * CHUNK_BYTES);
        assert_eq!(plan.whole_chunks(0..4 * CHUNK_BYTES).collect::<Vec<_>>(), [0, 1, 2]);
    }

    #[test]
    fn a_claim_that_does_not_move_is_taken_away_but_not_what_is_just_being_written() {
        let now = Instant::now();
        let mut plan = Plan::new(100, []);
        let claim = plan.claim(0..100, now);
        plan.release_stalled(claim, now);
        assert_eq!(plan.next(0), Next::Claimed(claim));
        plan.reserve(claim, 10);
        plan.release_stalled(claim, now + STALLED_AFTER);
        let (_, rest) = plan.claim_any(1, u64::MAX, now + STALLED_AFTER).unwrap();
        assert_eq!(rest, 10..100);
        assert_eq!(plan.arrived(claim, now + STALLED_AFTER), 0);
        assert_eq!(plan.next(0), Next::Here(10));
    }

    proptest! {
        /// Whatever is claimed, split, released and brought in whichever order: every byte is counted once, claims
        /// never overlap what is here or each other, and in the end all is here.
        #[test]
        fn every_byte_is_brought_once(steps in proptest::collection::vec((0_u8..5, 0_u64..3 * CHUNK_BYTES), 0..200)) {
            let mut now = Instant::now();
            let mut plan = Plan::new(SIZE, []);
            let mut held: Vec<ClaimId> = Vec::new();
            for (what, amount) in steps {
                now += Duration::from_millis(500);
                let any = held.get(amount as usize % held.len().max(1)).copied();
                match (what, any) {
                    (0 | 1, _) => held.extend(plan.claim_any(amount % 8, amount, now).map(|(id, _)| id)),
                    (2, Some(id)) if amount % 2 == 0 => drop(plan.reserve(id, amount)),
                    (2, Some(id)) => drop(bring(&mut plan, id, amount, now)),
                    (3, Some(id)) => plan.release(id),
                    (4, Some(id)) => plan.shorten(id, amount),
                    _ => {}
                }
                let mut spans: Vec<Range<u64>> = plan.here.iter().map(|(&start, &end)| start..end).collect();
                prop_assert_eq!(spans.iter().map(|span| span.end - span.start).sum::<u64>(), plan.arrived_bytes());
                spans.extend(plan.claims.iter().map(|claim| claim.position..claim.end));
                spans.sort_by_key(|span| span.start);
                prop_assert!(spans.windows(2).all(|two| two[0].end <= two[1].start) && spans.iter().all(|span| span.start < span.end));
            }
            plan.claims.clear();
            while let Some((id, range)) = plan.claim_any(3, 0, now) {
                bring(&mut plan, id, range.end - range.start, now);
            }
            prop_assert_eq!(plan.next(0), Next::Here(SIZE));
        }
    }
}
