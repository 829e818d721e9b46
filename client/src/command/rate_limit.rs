//! `rbox rate-limit`

use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use clap::Args;
use longshore_runtime::name::Reference;
use serde_json::{Value, json};

use super::format::{List, ListFormat};
use crate::config::{Registries, image_name};
use crate::error::Result;
use crate::registry::{Allowance, Repository};

/// The image that Docker Hub has for this question.
const ASKED_AT_HUB: &str = "ratelimitpreview/test";

/// Show how many pulls a registry grants, and how many are left
///
/// It is asked for the head of one manifest, which Docker Hub does not count.
#[derive(Debug, Args)]
pub(super) struct RateLimit {
    #[command(flatten)]
    format: ListFormat,
    /// An image at that registry
    #[arg(value_name = "[REGISTRY/]NAME", value_parser = image_name, default_value = ASKED_AT_HUB)]
    image: Reference,
}

const LIST: List<'_> = List {
    headings: &[
        ("Limit", "LIMIT"),
        ("Registry", "REGISTRY"),
        ("Remaining", "REMAINING"),
        ("Reset", "RESET"),
        ("Source", "SOURCE"),
        ("Window", "WINDOW"),
    ],
    default: "table {{.Registry}}\t{{.Limit}}\t{{.Remaining}}\t{{.Window}}\t{{.Reset}}\t{{.Source}}",
};

/// What a registry does not say.
const UNSAID: &str = "-";

impl RateLimit {
    pub(super) fn execute(self) -> Result<ExitCode> {
        let allowance = Repository::new(&Registries::load()?, &self.image)?.allowance(&self.image)?;
        self.format.print(&LIST, [row(self.image.registry(), &allowance)])
    }
}

fn row(registry: &str, allowance: &Allowance) -> Value {
    let number = |number: Option<u64>| number.map_or_else(|| UNSAID.to_owned(), |number| number.to_string());
    let window = allowance.window_s.map_or_else(|| UNSAID.to_owned(), |seconds| format!("{seconds}s"));
    // Some say in how many seconds, some at which of them since 1970.
    let reset = allowance.reset_s.map_or_else(
        || UNSAID.to_owned(),
        |seconds| {
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            let in_seconds = if seconds > EPOCH_FROM_S { seconds.saturating_sub(now.as_secs()) } else { seconds };
            let at = SystemTime::now().checked_add(Duration::from_secs(in_seconds));
            at.map_or_else(|| UNSAID.to_owned(), httpdate::fmt_http_date)
        },
    );
    json!({
        "Limit": number(allowance.limit),
        "Registry": registry,
        "Remaining": number(allowance.remaining),
        "Reset": reset,
        "Source": allowance.source.as_deref().unwrap_or(UNSAID),
        "Window": window,
    })
}

/// Nobody makes others wait for so many seconds: they are a time.
const EPOCH_FROM_S: u64 = 1_000_000_000;
