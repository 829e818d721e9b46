//! Each fault of a registry is found by the requirements it breaks, and by no other; each requirement finds one.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::thread;

use longshore_conformance::credentials::Credentials;
use longshore_conformance::{Registry, Report, Verdict, spec};
use support::{Fault, Scheme};

/// Faults judged at the same time.
const WORKERS: usize = 4;

/// Requirements that take long: judged when a fault is meant for them.
const SLOW: [&str; 3] = ["limits-manifest-huge", "limits-manifest-large", "limits-tags-many"];

/// Judges each fault by the whole table, instead of by the groups it breaks something of.
const LONG: &str = "LONGSHORE_LONG";

/// A fault, and the requirements that fail of it.
type Row = (Fault, &'static [&'static str]);

fn judge_by(fault: Option<Fault>, users: Option<Scheme>, chosen: &[&'static spec::Requirement]) -> (Report, usize) {
    let (address, state) = support::start_with(fault, users);
    let credentials = users.map(|_| Credentials::new(support::USER, support::PASSWORD));
    let registry = Registry::with_credentials(format!("http://{address}").parse().unwrap(), credentials).unwrap();
    let report = spec::run(&registry, "judged", chosen).unwrap();
    let left = state.lock().unwrap().len();
    (report, left)
}

fn judge(users: Option<Scheme>) -> (Report, usize) {
    judge_by(None, users, &spec::choose(&[], &[]).unwrap())
}

/// Fails unless all is as required but `others`, which are not offered, and nothing is left.
fn must_pass_but((report, left): &(Report, usize), others: impl Fn(&str) -> bool) {
    let not_passed = report.requirements.iter().filter(|r| r.verdict != Verdict::Pass);
    let (offered_not, wrong): (Vec<_>, Vec<_>) = not_passed.partition(|r| r.verdict == Verdict::NotOffered && others(&r.id));
    assert!(wrong.is_empty(), "{wrong:#?}");
    let expected = report.requirements.iter().filter(|r| others(&r.id)).count();
    assert_eq!(offered_not.len(), expected, "{offered_not:#?}");
    assert!(report.left_behind.is_empty(), "{:?}", report.left_behind);
    assert_eq!(*left, 0);
}

#[test]
fn a_correct_registry_passes_everything_and_is_left_empty() {
    must_pass_but(&judge(None), |id| id.starts_with("auth-"));
}

#[test]
fn a_correct_registry_with_users_passes_everything_and_is_left_empty() {
    must_pass_but(&judge(Some(Scheme::Basic)), |id| id.starts_with("auth-token") || id == "auth-challenge-scope");
    // A token says which repositories may be looked into: without a source there is none.
    must_pass_but(&judge(Some(Scheme::Bearer)), |id| id == "push-mount-anywhere");
}

/// Judges each fault; what was found otherwise than expected.
fn judge_all(rows: &[Row], judge: impl Fn(Fault, &[&'static str]) -> Report + Sync) -> Vec<String> {
    let (next, wrong) = (Mutex::new(rows.iter()), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                loop {
                    let Some((fault, expected)) = next.lock().unwrap().next() else { break };
                    let report = judge(*fault, expected);
                    let found = report.with(Verdict::Fail);
                    if found != *expected {
                        wrong.lock().unwrap().push(format!("{fault:?}: found {found:?}, expected {expected:?}"));
                    }
                }
            });
        }
    });
    wrong.into_inner().unwrap()
}

/// The groups of what is expected to fail, or all, but what takes long, unless it is expected to fail.
fn chosen_for(expected: &[&str]) -> Vec<&'static spec::Requirement> {
    let groups = expected.iter().filter_map(|id| Some(id.split_once('-')?.0.to_owned()));
    let only: Vec<_> = groups.filter(|_| std::env::var_os(LONG).is_none()).collect();
    let mut chosen = spec::choose(&only, &[]).unwrap();
    chosen.retain(|r| !SLOW.contains(&r.id) || expected.contains(&r.id));
    chosen
}

#[test]
fn each_fault_is_found_by_the_requirements_it_breaks() {
    let wrong = judge_all(&open_faults(), |fault, expected| judge_by(Some(fault), None, &chosen_for(expected)).0);
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn each_fault_of_authentication_is_found_by_the_requirements_it_breaks() {
    let wrong = judge_all(&faults_with_users(), |fault, expected| {
        let scheme = if fault == Fault::OmitsRealm { Scheme::Basic } else { Scheme::Bearer };
        // Nothing can be pushed where tokens are worth nothing: only the one requirement is asked.
        let useless = fault == Fault::RefusesPushesByToken;
        let chosen = if useless { spec::choose(&["auth-token".to_owned()], &[]).unwrap() } else { chosen_for(expected) };
        let chosen: Vec<_> = chosen.into_iter().filter(|r| !useless || r.id == "auth-token").collect();
        judge_by(Some(fault), Some(scheme), &chosen).0
    });
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn each_requirement_finds_a_fault() {
    let found: BTreeSet<_> = open_faults().iter().chain(&faults_with_users()).flat_map(|(_, ids)| *ids).copied().collect();
    let blind: Vec<_> = spec::requirements().map(|r| r.id).filter(|id| !found.contains(id)).collect();
    assert!(blind.is_empty(), "{blind:?}");
}

fn open_faults() -> Vec<Row> {
    use Fault::*;
    vec![
        (AnswersUnmodifiedWithAll, &["pull-unmodified"]),
        (BreaksConnectionOnUnsatisfiableRange, &["pull-blob-range-unsatisfiable", "hostile-range"]),
        (
            CorruptsBlobs,
            &[
                "pull-blob",
                "pull-blob-digest-true",
                "push-location",
                "push-again",
                "push-single-post",
                "push-algorithm",
                "push-mount",
                "push-mount-algorithm",
                "push-mount-anywhere",
                "push-chunks",
                "push-chunks-last-in-put",
                "push-chunk-resumed",
                "manage-blob-elsewhere",
                "docker-stream",
            ],
        ),
        (
            DeniesSupport,
            &[
                "pull-support",
                "limits-manifest-huge",
                "hostile-path-dots",
                "hostile-path-encoded",
                "hostile-path-control",
                "hostile-manifest-deep",
                "hostile-header-large",
            ],
        ),
        (HeadOfBlobsIsRefused, &["pull-head-blob", "pull-head-length", "pull-head-digest", "pull-head-unknown"]),
        (
            HeadOfManifestsIsRefused,
            &["pull-head-manifest", "pull-head-length", "pull-head-digest", "pull-head-unknown", "negotiate-head"],
        ),
        (HeadWithoutLength, &["pull-head-length"]),
        (LiesAboutDigest, &["pull-manifest-digest-true", "pull-head-digest"]),
        (OffByOneRange, &["pull-blob-range", "pull-blob-range-suffix", "pull-blob-range-beyond"]),
        (OmitsBlobDigestHeader, &["pull-blob-digest-header", "pull-head-digest"]),
        (OmitsDigestHeader, &["pull-manifest-digest-header", "pull-head-digest"]),
        (RefusesRangesBeyondTheEnd, &["pull-blob-range-beyond"]),
        (
            UnknownBlobIsEmpty,
            &[
                "pull-blob-unknown",
                "pull-head-unknown",
                "push-digest-mismatch",
                "push-single-post-mismatch",
                "push-chunks-mismatch",
                "manage-blob",
                "errors-format",
            ],
        ),
        (UnknownManifestIsServerError, &["pull-manifest-unknown"]),
        (UnknownRepositoryIsServerError, &["pull-repository-unknown"]),
        (AcceptsAnyName, &["push-name-malformed"]),
        (
            AcceptsDisorderedChunks,
            &[
                "push-chunk-first",
                "push-chunk-disordered",
                "push-chunk-repeated",
                "push-chunk-last-disordered",
                "push-chunk-resumed",
            ],
        ),
        (AcceptsWrongDigest, &["push-digest-mismatch", "push-single-post-mismatch", "push-chunks-mismatch", "errors-format"]),
        (ClosesWithoutDigest, &["push-digest-missing"]),
        (CountsChunksFromOne, &["push-chunk-range"]),
        (ForgetsUploadsAfterDisorder, &["push-chunk-resumed"]),
        (KeepsCancelledUploads, &["push-cancel"]),
        (MountsNothing, &["push-mount", "push-mount-algorithm", "push-mount-anywhere"]),
        (MountsNothingBySha512, &["push-mount-algorithm"]),
        (OmitsBlobLocation, &["push-upload", "push-location", "push-single-post", "push-algorithm", "push-chunks"]),
        (RefusesEmptyBlobs, &["push-empty"]),
        (RefusesKnownBlobs, &["push-again"]),
        (RefusesSmallChunks, &["push-chunk-minimum"]),
        (RefusesUnknownMounts, &["push-mount-unknown"]),
        (ReusesUploads, &["push-upload-unique"]),
        (StatusWithoutRange, &["push-chunk-resumed", "push-status"]),
        (AcceptsAnyTag, &["push-manifest-tag-malformed"]),
        (AcceptsManifestUnderWrongDigest, &["push-manifest-digest-mismatch"]),
        (ForgetsReplacedManifests, &["push-manifest-keeps-old"]),
        (ForeignLayersAreServerError, &["push-manifest-foreign"]),
        (ForgetsSha512Manifests, &["push-manifest-algorithm"]),
        (LiesAboutPushedDigest, &["push-manifest-digest-true"]),
        (MakesOneTagOfMany, &["push-manifest-tags"]),
        (OmitsManifestLocation, &["push-manifest-tag", "push-manifest-digest"]),
        (RefusesArtifacts, &["push-manifest-artifact"]),
        (RefusesEmptyIndexes, &["push-index-empty", "referrers-index", "referrers-empty-type", "referrers-index-type"]),
        (RefusesManifestsWithoutLayers, &["push-manifest-no-layers"]),
        (RefusesNestedIndexes, &["push-index-nested"]),
        (RefusesUnknownSubjects, &["push-manifest-subject-unknown", "referrers-before-subject"]),
        (
            RewritesManifests,
            &[
                "pull-manifest-by-tag",
                "pull-manifest-by-digest",
                "pull-manifest-digest-true",
                "push-manifest-tag",
                "push-manifest-exact",
                "push-manifest-tags",
                "push-manifest-moves-tag",
                "push-manifest-keeps-old",
                "push-manifest-artifact",
                "push-manifest-algorithm",
                "push-index",
                "push-index-nested",
                "push-index-empty",
                "manage-tag-alone",
                "negotiate-accept-many",
                "negotiate-accept-any",
                "negotiate-accept-absent",
                "negotiate-accept-other",
                "docker-manifest",
                "docker-manifest-list",
                "limits-tag-long",
            ],
        ),
        (StaleTag, &["push-manifest-moves-tag"]),
        (DropsTheLastOfAllTags, &["tags-limit-beyond"]),
        (EndlessTagPages, &["tags-limit-zero", "tags-pages"]),
        (ForgetsThePlaceOfDeletedTags, &["tags-last-unknown"]),
        (IgnoresTagLimit, &["tags-limit", "tags-limit-zero", "tags-pages"]),
        (ListsTagsWithoutName, &["tags-list"]),
        (RepeatsTagsAcrossPages, &["tags-last", "tags-pages"]),
        (UnknownRepositoryHasNoTags, &["tags-repository-unknown"]),
        (UnsortedTags, &["tags-order", "tags-limit", "tags-last", "tags-last-unknown", "tags-pages"]),
        (FiltersNothing, &["referrers-filter", "referrers-filter-none"]),
        (ForgetsArtifactTypes, &["referrers-config-type", "referrers-empty-type"]),
        (ForgetsEarlyReferrers, &["referrers-before-subject"]),
        (ForgetsIndexTypes, &["referrers-index-type"]),
        (ForgetsTaggedReferrers, &["referrers-tagged"]),
        (InventsIndexTypes, &["referrers-index", "referrers-empty-type"]),
        (KeepsEmptyTypes, &["referrers-empty-type"]),
        (ListsDeletedReferrers, &["referrers-deleted"]),
        (
            ListsReferrersAsJson,
            &[
                "referrers-none",
                "referrers-list",
                "referrers-config-type",
                "referrers-index",
                "referrers-empty-type",
                "referrers-index-type",
                "referrers-tagged",
                "referrers-elsewhere",
                "referrers-before-subject",
                "referrers-filter",
                "referrers-filter-none",
                "referrers-deleted",
            ],
        ),
        (ListsReferrersOfOthers, &["referrers-elsewhere"]),
        (MalformedSubjectIsNotFound, &["referrers-digest-malformed"]),
        (OmitsSubjectHeader, &["referrers-subject-header"]),
        (DeletesBlobsEverywhere, &["manage-blob-elsewhere"]),
        (DeletesManifestsWithTags, &["manage-tag-alone"]),
        (DeletesUnknownBlobs, &["manage-blob-unknown"]),
        (DeletesUnknownManifests, &["manage-manifest-unknown", "manage-repository-unknown"]),
        (
            DeletesWithStatus200,
            &[
                "manage-tag",
                "manage-tag-listed",
                "manage-tag-alone",
                "manage-manifest",
                "manage-manifest-tags",
                "manage-blob",
                "manage-blob-elsewhere",
            ],
        ),
        (KeepsTagsOfDeletedManifests, &["manage-manifest-tags"]),
        (ListsDeletedTags, &["manage-tag-listed"]),
        (AddsParameters, &["pull-manifest-type", "negotiate-parameters", "docker-manifest", "docker-manifest-list"]),
        (ConflictIsServerError, &["negotiate-conflict"]),
        (ConvertsManifests, &["negotiate-accept-other"]),
        (HeadIsOctetStream, &["negotiate-head"]),
        (
            JsonIsText,
            &[
                "pull-manifest-type",
                "negotiate-media-type",
                "negotiate-parameters-ignored",
                "negotiate-json",
                "docker-manifest",
                "docker-manifest-list",
            ],
        ),
        (ReadsOnlyTheFirstType, &["negotiate-accept-many"]),
        (RefusesParameters, &["negotiate-parameters-ignored"]),
        (
            ServesManifestsAsJson,
            &[
                "pull-manifest-type",
                "negotiate-media-type",
                "negotiate-parameters-ignored",
                "docker-manifest",
                "docker-manifest-list",
            ],
        ),
        (WantsAcceptHeaders, &["negotiate-accept-absent"]),
        (WantsExactTypes, &["negotiate-accept-any"]),
        (ChangesUploadUuids, &["docker-upload-uuid"]),
        (HidesFromCatalog, &["docker-catalog", "docker-catalog-pages"]),
        (LiesAboutBlobsPushed, &["docker-content-digest"]),
        (RefusesStreams, &["docker-stream"]),
        (RepeatsCatalogPages, &["docker-catalog-pages"]),
        (RetypesSchema2, &["docker-manifest", "docker-manifest-list"]),
        (SaysVersion1, &["docker-version"]),
        (CapsTagList, &["limits-tags-many"]),
        (HugeManifestIsServerError, &["limits-manifest-huge"]),
        (LimitsLayers, &["limits-layers"]),
        (RefusesLargeManifests, &["limits-manifest-large"]),
        (LongRepositoryIsServerError, &["limits-name-long"]),
        (RefusesLongTags, &["limits-tag-long"]),
        (AnswersWhatWasSmuggled, &["hostile-smuggling"]),
        (DecodesDots, &["hostile-path-encoded"]),
        (DeepManifestIsServerError, &["hostile-manifest-deep"]),
        (FollowsDots, &["hostile-path-dots", "hostile-path-encoded", "hostile-digest"]),
        (IgnoresOddContentRanges, &["hostile-content-range"]),
        (InjectsHeaders, &["hostile-path-control"]),
        (LargeHeaderIsServerError, &["hostile-header-large"]),
        (LongNameIsServerError, &["hostile-name-long", "hostile-digest"]),
        (MultipliesRanges, &["hostile-ranges-many"]),
        (NeedsNoHost, &["hostile-host-missing"]),
        (OddDigestIsServerError, &["hostile-digest"]),
        (OddManifestIsServerError, &["hostile-manifest-shape"]),
        (OddQueryIsServerError, &["hostile-query"]),
        (OddRangeIsServerError, &["hostile-range", "hostile-ranges-many"]),
        (ReadsAnyLength, &["hostile-length-malformed"]),
        (ServesAnyMethod, &["hostile-method"]),
        (ServesOneAtATime, &["hostile-slow-clients"]),
        (SharesUploads, &["hostile-upload-foreign"]),
        (SlashesAreServerError, &["hostile-path-slashes"]),
        (TakesTheFirstLength, &["hostile-length-conflict"]),
        (
            ErrorsWithoutCodes,
            &["push-manifest-blob-unknown", "push-index-manifest-unknown", "errors-format", "errors-codes", "errors-fitting"],
        ),
        (InventsErrorCodes, &["push-manifest-blob-unknown", "push-index-manifest-unknown", "errors-codes", "errors-fitting"]),
        (
            MalformedDigestIsServerError,
            &[
                "hostile-path-encoded",
                "hostile-path-control",
                "hostile-digest",
                "errors-digest-malformed",
                "errors-digest-malformed-push",
            ],
        ),
        (MalformedPushDigestIsServerError, &["hostile-query", "errors-digest-malformed-push"]),
        (MessagesAreNumbers, &["errors-message"]),
        (NoJsonIsServerError, &["errors-manifest-malformed"]),
        (UnknownUploadIsServerError, &["push-cancel", "hostile-upload-foreign", "errors-upload-unknown"]),
        (WarnsWithDates, &["errors-warnings"]),
    ]
}

fn faults_with_users() -> Vec<Row> {
    use Fault::*;
    vec![
        (AcceptsAnyPassword, &["auth-password-wrong", "auth-user-unknown"]),
        (IgnoresTokenActions, &["auth-token-action"]),
        (IgnoresTokenRepository, &["auth-token-scope", "auth-token-mount"]),
        (LetsStrangersPutManifests, &["auth-anonymous-refused"]),
        (MountsFromAnywhere, &["auth-token-mount"]),
        (OffersBasicInVain, &["auth-basic"]),
        (OmitsChallengeScope, &["auth-challenge-scope"]),
        (OmitsRealm, &["auth-challenge"]),
        (OutdatesTokens, &["auth-token-lifetime"]),
        (RefusesPushesByToken, &["auth-token"]),
        (TellsUnknownUsers, &["auth-user-unknown"]),
        (TellsWhatExists, &["auth-existence-hidden"]),
        (TrustsForgedTokens, &["auth-token-forged"]),
        (UnauthorizedIsDenied, &["auth-error"]),
    ]
}
