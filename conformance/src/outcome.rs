//! What a check can find.

use std::fmt;

use crate::http::Exchange;

/// How strongly the specification asks (RFC 2119).
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Level {
    /// MUST: a failure makes the registry non-conformant.
    Must,
    /// SHOULD: a failure is reported and no more.
    Should,
    /// MAY: an extension or Docker's own; where it is offered it is judged, and a failure is reported and no more.
    May,
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Must => "MUST",
            Self::Should => "SHOULD",
            Self::May => "MAY",
        })
    }
}

/// The answer of a check: `Ok` is a pass.
pub type Outcome<T = ()> = Result<T, Finding>;

/// Anything but a pass.
#[derive(Debug, Clone)]
pub enum Finding {
    /// The registry does wrong what it offers.
    Fail {
        /// What was expected of the answer.
        expected: String,
        /// The exchange that fell short of it.
        exchange: Box<Exchange>,
    },
    /// The registry does not offer what the check needs, and says so in a way the specification allows.
    NotOffered(String),
    /// The specification leaves this open, and the registry does other than most.
    Differs(String),
}

impl Exchange {
    /// Fails with `expected` unless `held`.
    pub fn must(&self, held: bool, expected: impl fmt::Display) -> Outcome {
        if held { Ok(()) } else { Err(self.fail(expected)) }
    }

    /// The finding that this exchange was not as expected.
    pub fn fail(&self, expected: impl fmt::Display) -> Finding {
        Finding::Fail { expected: expected.to_string(), exchange: Box::new(self.clone()) }
    }

    /// Fails unless the status is one of `expected`.
    pub fn must_be(&self, expected: &[u16]) -> Outcome {
        let statuses: Vec<_> = expected.iter().map(u16::to_string).collect();
        self.must(expected.contains(&self.status()), format_args!("status {}", statuses.join(" or ")))
    }

    /// Fails unless the request was refused as the client's error: a 4xx status.
    pub fn must_be_refused(&self) -> Outcome {
        self.must((400..500).contains(&self.status()), "a 4xx status")
    }

    /// The header's value; fails when it is absent or no text.
    pub fn must_have(&self, header: &str) -> Outcome<&str> {
        self.header(header).ok_or_else(|| self.fail(format_args!("header {header}")))
    }

    /// The body as JSON; fails when it is none.
    pub fn must_be_json(&self) -> Outcome<serde_json::Value> {
        serde_json::from_slice(self.body()).map_err(|e| self.fail(format_args!("a JSON body ({e})")))
    }
}
