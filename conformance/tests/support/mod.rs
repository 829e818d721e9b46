//! A small registry in memory, correct but for one fault that can be switched on, with users or without.

// Each test program uses its part of this.
#![allow(dead_code)]

mod access;
mod handlers;
mod http;
mod mangle;
mod manifests;
mod referrers;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, BufReader};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use sha2::{Digest as _, Sha256, Sha512};

use http::{Flaw, Request, Response};

/// The one user of a registry that has users.
pub(crate) const USER: &str = "tester";
/// The user's password.
pub(crate) const PASSWORD: &str = "correct-horse-battery";

/// One thing done wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    // Pulling
    AnswersUnmodifiedWithAll,
    BreaksConnectionOnUnsatisfiableRange,
    CorruptsBlobs,
    DeniesSupport,
    HeadOfBlobsIsRefused,
    HeadOfManifestsIsRefused,
    HeadWithoutLength,
    LiesAboutDigest,
    OffByOneRange,
    OmitsBlobDigestHeader,
    OmitsDigestHeader,
    RefusesRangesBeyondTheEnd,
    UnknownBlobIsEmpty,
    UnknownManifestIsServerError,
    UnknownRepositoryIsServerError,
    // Pushing blobs
    AcceptsAnyName,
    AcceptsDisorderedChunks,
    AcceptsWrongDigest,
    ClosesWithoutDigest,
    CountsChunksFromOne,
    ForgetsUploadsAfterDisorder,
    KeepsCancelledUploads,
    MountsNothing,
    MountsNothingBySha512,
    OmitsBlobLocation,
    RefusesEmptyBlobs,
    RefusesKnownBlobs,
    RefusesSmallChunks,
    RefusesUnknownMounts,
    ReusesUploads,
    StatusWithoutRange,
    // Pushing manifests
    AcceptsAnyTag,
    AcceptsManifestUnderWrongDigest,
    ForgetsReplacedManifests,
    ForeignLayersAreServerError,
    ForgetsSha512Manifests,
    LiesAboutPushedDigest,
    MakesOneTagOfMany,
    OmitsManifestLocation,
    RefusesArtifacts,
    RefusesEmptyIndexes,
    RefusesManifestsWithoutLayers,
    RefusesNestedIndexes,
    RefusesUnknownSubjects,
    RewritesManifests,
    StaleTag,
    // Listing tags
    DropsTheLastOfAllTags,
    EndlessTagPages,
    ForgetsThePlaceOfDeletedTags,
    IgnoresTagLimit,
    ListsTagsWithoutName,
    RepeatsTagsAcrossPages,
    UnknownRepositoryHasNoTags,
    UnsortedTags,
    // Referrers
    FiltersNothing,
    ForgetsArtifactTypes,
    ForgetsEarlyReferrers,
    ForgetsIndexTypes,
    ForgetsTaggedReferrers,
    InventsIndexTypes,
    KeepsEmptyTypes,
    ListsDeletedReferrers,
    ListsReferrersAsJson,
    ListsReferrersOfOthers,
    MalformedSubjectIsNotFound,
    OmitsSubjectHeader,
    // Deleting
    DeletesBlobsEverywhere,
    DeletesManifestsWithTags,
    DeletesUnknownBlobs,
    DeletesUnknownManifests,
    DeletesWithStatus200,
    KeepsTagsOfDeletedManifests,
    ListsDeletedTags,
    // Content negotiation
    AddsParameters,
    ConflictIsServerError,
    ConvertsManifests,
    HeadIsOctetStream,
    JsonIsText,
    ReadsOnlyTheFirstType,
    RefusesParameters,
    ServesManifestsAsJson,
    WantsAcceptHeaders,
    WantsExactTypes,
    // Docker
    ChangesUploadUuids,
    HidesFromCatalog,
    LiesAboutBlobsPushed,
    RefusesStreams,
    RepeatsCatalogPages,
    RetypesSchema2,
    SaysVersion1,
    // Limits
    CapsTagList,
    HugeManifestIsServerError,
    LimitsLayers,
    RefusesLargeManifests,
    LongRepositoryIsServerError,
    RefusesLongTags,
    // Authentication
    AcceptsAnyPassword,
    IgnoresTokenActions,
    IgnoresTokenRepository,
    LetsStrangersPutManifests,
    MountsFromAnywhere,
    OffersBasicInVain,
    OmitsChallengeScope,
    OmitsRealm,
    OutdatesTokens,
    RefusesPushesByToken,
    TellsUnknownUsers,
    TellsWhatExists,
    TrustsForgedTokens,
    UnauthorizedIsDenied,
    // Hostile input
    AnswersWhatWasSmuggled,
    DecodesDots,
    DeepManifestIsServerError,
    FollowsDots,
    IgnoresOddContentRanges,
    InjectsHeaders,
    LargeHeaderIsServerError,
    LongNameIsServerError,
    MultipliesRanges,
    NeedsNoHost,
    OddDigestIsServerError,
    OddManifestIsServerError,
    OddQueryIsServerError,
    OddRangeIsServerError,
    ReadsAnyLength,
    ServesAnyMethod,
    ServesOneAtATime,
    SharesUploads,
    SlashesAreServerError,
    TakesTheFirstLength,
    // Errors
    ErrorsWithoutCodes,
    InventsErrorCodes,
    MalformedDigestIsServerError,
    MalformedPushDigestIsServerError,
    MessagesAreNumbers,
    NoJsonIsServerError,
    UnknownUploadIsServerError,
    WarnsWithDates,
}

/// How a registry with users asks who somebody is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scheme {
    Basic,
    Bearer,
}

/// The whole state. Blobs and manifests are kept by repository and digest.
#[derive(Debug, Default)]
pub(crate) struct State {
    fault: Option<Fault>,
    users: Option<Scheme>,
    address: String,
    blobs: BTreeMap<(String, String), Vec<u8>>,
    manifests: BTreeMap<(String, String), (String, Vec<u8>)>,
    tags: BTreeMap<(String, String), String>,
    /// Manifests that were deleted but are served by their tags; for who forgets those.
    hidden: BTreeSet<(String, String)>,
    /// Tags that were once there; for who lists those.
    once_tagged: BTreeSet<(String, String)>,
    /// Manifests that were pushed under a tag; for who does not look at those.
    pushed_by_tag: BTreeSet<String>,
    /// Referrers that were listed once, by repository and subject; for who does not forget.
    once_listed: BTreeMap<(String, String), Vec<serde_json::Value>>,
    /// The repository and the bytes.
    uploads: BTreeMap<String, (String, Vec<u8>)>,
    upload_count: u32,
}

impl State {
    fn has(&self, fault: Fault) -> bool {
        self.fault == Some(fault)
    }

    /// How many blobs, manifests, tags and uploads there are.
    pub(crate) fn len(&self) -> usize {
        self.blobs.len() + self.manifests.len() + self.tags.len() + self.uploads.len()
    }
}

/// Starts a registry for everybody; its address and state. It serves until the test process ends.
pub(crate) fn start(fault: Option<Fault>) -> (SocketAddr, Arc<Mutex<State>>) {
    start_with(fault, None)
}

/// Starts a registry, for its one user if it has a scheme.
pub(crate) fn start_with(fault: Option<Fault>, users: Option<Scheme>) -> (SocketAddr, Arc<Mutex<State>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let state = Arc::new(Mutex::new(State { fault, users, address: address.to_string(), ..State::default() }));
    let shared = state.clone();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let state = shared.clone();
            // A client that goes away is no failure of the registry.
            if fault == Some(Fault::ServesOneAtATime) {
                let _ = serve(stream, &state);
            } else {
                thread::spawn(move || serve(stream, &state));
            }
        }
    });
    (address, state)
}

/// Answers one request and closes the connection.
fn serve(stream: TcpStream, state: &Mutex<State>) -> io::Result<()> {
    let mut reader = BufReader::new(stream);
    let Some(request) = http::read_request(&mut reader)? else { return Ok(()) };
    let mut state = state.lock().unwrap();
    let mut response = answer(&mut state, &request);
    mangle::after(&state, &request, &mut response);
    let fault = state.fault;
    drop(state);
    http::write_response(reader.get_mut(), &request, &response, fault)
}

fn answer(state: &mut State, request: &Request) -> Response {
    let forgiven = match request.flaw {
        Some(Flaw::HostMissing) => state.has(Fault::NeedsNoHost),
        Some(Flaw::TwoLengths) => state.has(Fault::TakesTheFirstLength),
        Some(Flaw::LengthMalformed) => state.has(Fault::ReadsAnyLength),
        Some(Flaw::LengthAndChunks) => state.has(Fault::AnswersWhatWasSmuggled),
        Some(Flaw::HeadTooLarge | Flaw::TargetHasControls) => false,
        None => true,
    };
    if !forgiven {
        let status = if request.flaw == Some(Flaw::HeadTooLarge) { 431 } else { 400 };
        return handlers::error(status, "UNSUPPORTED");
    }
    if let Some(response) = mangle::before(state, request).or_else(|| access::check(state, request)) {
        return response;
    }
    handlers::handle(state, request)
}

fn digest_of(bytes: &[u8]) -> String {
    hex("sha256:", &Sha256::digest(bytes))
}

/// The digest by the algorithm that another one has.
fn digest_like(digest: &str, bytes: &[u8]) -> String {
    if digest.starts_with("sha512:") { hex("sha512:", &Sha512::digest(bytes)) } else { digest_of(bytes) }
}

fn hex(prefix: &str, raw: &[u8]) -> String {
    raw.iter().fold(prefix.to_owned(), |text, byte| format!("{text}{byte:02x}"))
}
