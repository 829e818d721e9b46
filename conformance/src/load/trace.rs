//! Traces of registries in production: files in the format of the IBM Docker registry traces (Anwar et al., "Improving
//! Docker Registry Design based on Production Workload Analysis", FAST 2018).
//!
//! A file is a JSON array with an object for each request. What is read of it: `timestamp` (ISO 8601, ending in Z),
//! `http.request.method`, `http.request.uri` (as in `v2/USER/REPOSITORY/blobs/DIGEST`, names replaced by hashes),
//! `http.response.status` and `http.response.written` (bytes). Files are other people's: all of it may be anything.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde::de::{DeserializeSeed, IgnoredAny, SeqAccess, Visitor};

use super::Kind;
use crate::limits::{TRACE_FILE_LIMIT_BYTES, TRACE_PATH_LIMIT_BYTES, TRACE_REQUESTS_LIMIT};

/// Requests as they were made, the earliest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trace {
    /// What can be replayed.
    pub requests: Vec<Recorded>,
    /// Requests of other kinds, or refused by the registry of that time, or not understood.
    pub skipped: u64,
    /// Requests that belong to an upload which is one in [`Self::requests`].
    pub merged: u64,
}

/// One request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    /// After the first one.
    pub at: Duration,
    /// What was asked for: a GET or HEAD of a manifest or blob, a PUT of a manifest, or an upload.
    pub kind: Kind,
    /// Its repository.
    pub repository: String,
    /// The tag or digest; of an upload, its session.
    pub reference: String,
    /// Whether it was there; what was written was.
    pub found: bool,
    /// The bytes written, 0 where there was none or it is not known.
    pub size_bytes: u64,
}

/// A record of the file, as far as it is of use.
#[derive(Debug, serde::Deserialize)]
struct Record {
    #[serde(rename = "http.request.method", default)]
    method: Option<String>,
    #[serde(rename = "http.request.uri", default)]
    uri: Option<String>,
    #[serde(rename = "http.response.status", default)]
    status: Option<i64>,
    #[serde(rename = "http.response.written", default)]
    written: Option<f64>,
    #[serde(default)]
    timestamp: Option<String>,
}

/// What a record is for a replay.
#[derive(Debug, PartialEq, Eq)]
enum Meaning {
    Request(Kind),
    /// The beginning of an upload, which has no name yet.
    Begin,
    /// A piece of an upload.
    Piece,
    /// The end of one.
    End,
}

/// Reads a trace: the first `limit` requests of a file that can be replayed.
///
/// # Errors
/// When the file cannot be read, is not JSON of that form, or has nothing that can be replayed.
pub fn read(path: &Path, limit: usize) -> anyhow::Result<Trace> {
    let what = || format!("read the trace {}", path.display());
    let file = File::open(path).with_context(what)?;
    let length = file.metadata().with_context(what)?.len();
    ensure!(length <= TRACE_FILE_LIMIT_BYTES, "{} has {length} bytes, over {TRACE_FILE_LIMIT_BYTES}", path.display());
    parse(file, limit).with_context(what)
}

/// Reads a trace from a stream of no more than [`TRACE_FILE_LIMIT_BYTES`].
fn parse(input: impl Read, limit: usize) -> anyhow::Result<Trace> {
    ensure!((1..=TRACE_REQUESTS_LIMIT).contains(&limit), "requests of a trace must be 1 to {TRACE_REQUESTS_LIMIT}");
    let mut json = serde_json::Deserializer::from_reader(BufReader::new(input.take(TRACE_FILE_LIMIT_BYTES)));
    let (mut found, skipped) = Records { limit }.deserialize(&mut json).context("a JSON array of requests is expected")?;
    json.end().context("something follows the array of requests")?;
    // Several servers wrote these files.
    found.sort_by_key(|(at, ..)| *at);
    let first = found.first().map_or(0, |(at, ..)| *at);
    let mut trace = Trace::default();
    // Uploads by repository and session: where they are among the requests, and what their pieces say.
    let mut uploads: BTreeMap<(String, String), (usize, u64)> = BTreeMap::new();
    for (at, meaning, mut recorded) in found {
        recorded.at = Duration::from_nanos(u64::try_from(at.saturating_sub(first)).unwrap_or(u64::MAX));
        match meaning {
            Meaning::Request(_) => trace.requests.push(recorded),
            Meaning::Begin => trace.merged += 1,
            Meaning::Piece | Meaning::End => {
                let key = (recorded.repository.clone(), recorded.reference.clone());
                let size = recorded.size_bytes;
                if let Some((place, pieces)) = uploads.get_mut(&key) {
                    if meaning == Meaning::Piece {
                        *pieces = pieces.saturating_add(size);
                    }
                    let whole = if *pieces > 0 { *pieces } else { size };
                    trace.requests[*place].size_bytes = trace.requests[*place].size_bytes.max(whole);
                    trace.merged += 1;
                } else {
                    uploads.insert(key, (trace.requests.len(), if meaning == Meaning::Piece { size } else { 0 }));
                    trace.requests.push(recorded);
                }
            }
        }
    }
    trace.skipped = skipped;
    ensure!(!trace.requests.is_empty(), "there is no request that can be replayed; {skipped} are of other kinds");
    Ok(trace)
}

/// An array of records, of which so many are kept: with their time in nanoseconds, and how many were skipped.
struct Records {
    limit: usize,
}

type Found = (Vec<(i128, Meaning, Recorded)>, u64);

impl<'de> DeserializeSeed<'de> for Records {
    type Value = Found;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Found, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Records {
    type Value = Found;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of requests")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut records: A) -> Result<Found, A::Error> {
        let (mut found, mut skipped) = (Vec::new(), 0);
        while found.len() < self.limit {
            match records.next_element::<Record>()? {
                Some(record) => match record.understood() {
                    Some(understood) => found.push(understood),
                    None => skipped += 1,
                },
                None => return Ok((found, skipped)),
            }
        }
        while records.next_element::<IgnoredAny>()?.is_some() {}
        Ok((found, skipped))
    }
}

impl Record {
    /// What it is for a replay; `None` where it is nothing.
    fn understood(self) -> Option<(i128, Meaning, Recorded)> {
        let at = nanoseconds(self.timestamp.as_deref()?)?;
        let uri = self.uri.filter(|uri| uri.len() <= TRACE_PATH_LIMIT_BYTES)?;
        let (meaning, repository, reference) = place(self.method.as_deref()?, &uri)?;
        let is_read = !matches!(meaning, Meaning::Begin | Meaning::Piece | Meaning::End | Meaning::Request(Kind::ManifestPut));
        let found = match self.status? {
            200..=399 => true,
            // To ask for what is not there is part of every push.
            404 if is_read => false,
            _ => return None,
        };
        let kind = if let Meaning::Request(kind) = meaning { kind } else { Kind::Upload };
        // Negative where the registry of that time did not know.
        let size_bytes = self.written.unwrap_or(0.0) as u64;
        Some((at, meaning, Recorded { at: Duration::ZERO, kind, repository, reference, found, size_bytes }))
    }
}

/// What a method does to a path: the repository and the reference in it.
fn place(method: &str, uri: &str) -> Option<(Meaning, String, String)> {
    let path = uri.split('?').next()?.trim_start_matches('/').strip_prefix("v2/")?;
    let (rest, last) = path.rsplit_once('/')?;
    let (repository, meaning) = if let Some(repository) = rest.strip_suffix("/blobs/uploads") {
        let meaning = match method {
            "POST" => Meaning::Begin,
            "PATCH" if !last.is_empty() => Meaning::Piece,
            "PUT" if !last.is_empty() => Meaning::End,
            _ => return None,
        };
        (repository, meaning)
    } else if let Some(repository) = path.strip_suffix("/blobs/uploads") {
        return (method == "POST" && !repository.is_empty()).then(|| (Meaning::Begin, repository.to_owned(), String::new()));
    } else if let Some(repository) = rest.strip_suffix("/manifests") {
        let kind = match method {
            "GET" => Kind::ManifestGet,
            "HEAD" => Kind::ManifestHead,
            "PUT" => Kind::ManifestPut,
            _ => return None,
        };
        (repository, Meaning::Request(kind))
    } else {
        let kind = match method {
            "GET" => Kind::BlobGet,
            "HEAD" => Kind::BlobHead,
            _ => return None,
        };
        (rest.strip_suffix("/blobs")?, Meaning::Request(kind))
    };
    let is_named = !last.is_empty() || meaning == Meaning::Begin;
    (is_named && !repository.is_empty()).then(|| (meaning, repository.to_owned(), last.to_owned()))
}

/// Nanoseconds since 1970 of a time like `2017-06-20T02:41:18.399Z`, with any or no fraction.
fn nanoseconds(text: &str) -> Option<i128> {
    let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
    let (time, fraction) = time.split_once('.').map_or((time, None), |(time, fraction)| (time, Some(fraction)));
    let [year, month, day] = numbers(date, '-', [4, 2, 2])?;
    let [hour, minute, second] = numbers(time, ':', [2, 2, 2])?;
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let last = match month {
        2 => 28 + i64::from(is_leap),
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    // A second 60 is one that was let in.
    if !(1..=last).contains(&day) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    // Years that begin in March, in which the leap day is the last.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days =
        year * 365 + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + (153 * month + 2) / 5 + day - 719_469;
    let seconds = ((days * 24 + hour) * 60 + minute) * 60 + second;
    let fraction = match fraction {
        Some(digits) if (1..=9).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit()) => {
            digits.parse::<i128>().ok()? * 10_i128.pow(9 - u32::try_from(digits.len()).ok()?)
        }
        Some(_) => return None,
        None => 0,
    };
    Some(i128::from(seconds) * 1_000_000_000 + fraction)
}

/// Three numbers of so many digits.
fn numbers(text: &str, separator: char, digits: [usize; 3]) -> Option<[i64; 3]> {
    let mut found = [0; 3];
    let mut parts = text.split(separator);
    for (number, digits) in found.iter_mut().zip(digits) {
        let part = parts.next().filter(|part| part.len() == digits && part.bytes().all(|b| b.is_ascii_digit()))?;
        *number = part.parse().ok()?;
    }
    parts.next().is_none().then_some(found)
}

#[cfg(test)]
mod tests;
