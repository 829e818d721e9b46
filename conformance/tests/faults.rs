//! Each fault of a registry is found by the requirements it breaks, and by no other.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use longshore_conformance::{Registry, Report, Verdict, spec};
use support::Fault;

fn judge(fault: Option<Fault>) -> (Report, usize) {
    let (address, state) = support::start(fault);
    let registry = Registry::new(format!("http://{address}").parse().unwrap()).unwrap();
    let report = spec::run(&registry, "judged", &spec::choose(&[]).unwrap()).unwrap();
    let left = state.lock().unwrap().len();
    (report, left)
}

fn failures(report: &Report) -> Vec<&str> {
    report.requirements.iter().filter(|r| r.verdict == Verdict::Fail).map(|r| &*r.id).collect()
}

#[test]
fn a_correct_registry_passes_everything_and_is_left_empty() {
    let (report, left) = judge(None);
    let others: Vec<_> = report.requirements.iter().filter(|r| r.verdict != Verdict::Pass).collect();
    assert!(others.is_empty(), "{others:#?}");
    assert!(report.left_behind.is_empty(), "{:?}", report.left_behind);
    assert_eq!(left, 0);
}

#[test]
fn each_fault_is_found_by_the_requirements_it_breaks() {
    use Fault::*;
    let expected: &[(Fault, &[&str])] = &[
        (AcceptsWrongDigest, &["push-digest-mismatch", "push-single-post-mismatch", "push-chunks-mismatch", "errors-format"]),
        (AcceptsManifestUnderWrongDigest, &["push-manifest-digest-mismatch"]),
        (AcceptsDisorderedChunks, &["push-chunk-disordered", "push-chunk-repeated"]),
        (AnswersUnmodifiedWithAll, &["pull-unmodified"]),
        (BreaksConnectionOnUnsatisfiableRange, &["pull-blob-range-unsatisfiable"]),
        (
            CorruptsBlobs,
            &[
                "pull-blob",
                "pull-blob-digest-true",
                "push-location",
                "push-single-post",
                "push-algorithm",
                "push-mount",
                "push-mount-anywhere",
                "push-chunks",
                "push-chunks-last-in-put",
            ],
        ),
        (EndlessTagPages, &["tags-limit-zero", "tags-pages"]),
        (FiltersNothing, &["referrers-filter"]),
        (ForgetsArtifactTypes, &["referrers-config-type"]),
        (ForgetsEarlyReferrers, &["referrers-before-subject"]),
        (ForgetsReplacedManifests, &["push-manifest-keeps-old"]),
        (HeadWithoutLength, &["pull-head-length"]),
        (IgnoresTagLimit, &["tags-limit", "tags-limit-zero", "tags-pages"]),
        (InventsErrorCodes, &["push-manifest-blob-unknown", "errors-codes", "errors-fitting"]),
        (KeepsCancelledUploads, &["push-cancel"]),
        (ListsDeletedReferrers, &["referrers-deleted"]),
        (
            ListsReferrersAsJson,
            &[
                "referrers-none",
                "referrers-list",
                "referrers-config-type",
                "referrers-index",
                "referrers-before-subject",
                "referrers-filter",
                "referrers-deleted",
            ],
        ),
        (LiesAboutDigest, &["pull-manifest-digest-true", "pull-head-digest"]),
        (MalformedDigestIsServerError, &["errors-digest-malformed"]),
        (MakesOneTagOfMany, &["push-manifest-tags"]),
        (MountsNothing, &["push-mount", "push-mount-anywhere"]),
        (OffByOneRange, &["pull-blob-range", "pull-blob-range-suffix"]),
        (OmitsBlobLocation, &["push-upload", "push-location", "push-single-post", "push-algorithm", "push-chunks"]),
        (OmitsDigestHeader, &["pull-manifest-digest-header", "pull-head-digest"]),
        (OmitsSubjectHeader, &["referrers-subject-header"]),
        (RepeatsTagsAcrossPages, &["tags-last", "tags-pages"]),
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
            ],
        ),
        (StaleTag, &["push-manifest-moves-tag"]),
        (
            UnknownBlobIsEmpty,
            &[
                "pull-blob-unknown",
                "pull-head-unknown",
                "push-digest-mismatch",
                "push-single-post-mismatch",
                "push-chunks-mismatch",
                "errors-format",
            ],
        ),
        (UnsortedTags, &["tags-order", "tags-limit", "tags-last", "tags-pages"]),
    ];
    let mut wrong = Vec::new();
    for (fault, requirements) in expected {
        let (report, _) = judge(Some(*fault));
        let found = failures(&report);
        if found != *requirements {
            wrong.push(format!("{fault:?}: found {found:?}, expected {requirements:?}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
