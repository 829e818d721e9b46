//! What a registry answers to its first question (distribution-spec end-1), and what can be seen from that.

use std::time::SystemTime;

use longshore_runtime::parallel::Cancel;

use super::host::unreachable;
use super::timing::Timing;
use super::{certificate, scheme};
use crate::config::Registries;
use crate::error::Result;

/// An answer to `GET /v2/`.
#[derive(Debug, Clone)]
pub struct Probe {
    /// Its status.
    pub status: u16,
    /// What was asked.
    pub url: String,
    /// It says that it is a registry, or demands a login as one does.
    pub is_registry: bool,
    /// The time there.
    pub date: Option<SystemTime>,
    /// Until when the host's certificate is good; `None` without TLS.
    pub certificate_until: Option<SystemTime>,
}

/// Asks a registry once, without credentials.
pub fn probe(registries: &Registries, registry: &str) -> Result<Probe> {
    let (endpoint, pool) = scheme::settle(&registries.registry(registry)?, &registries.network, Timing::from_environment())?;
    let (cancel, url) = (Cancel::default(), format!("{}/v2/", endpoint.base()));
    let answer = pool.send(&cancel, None, |client| client.get(&url).build()).map_err(|e| unreachable(&endpoint.host, &e))?;
    Ok(Probe {
        status: answer.status(),
        is_registry: match answer.status() {
            200 => true,
            401 => answer.header("www-authenticate").is_some(),
            _ => false,
        },
        date: answer.header("date").and_then(|date| httpdate::parse_http_date(date).ok()),
        certificate_until: answer.certificate().and_then(certificate::not_after),
        url,
    })
}
