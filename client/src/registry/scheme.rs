//! What a host speaks, where the configuration leaves that open: HTTPS, else plain HTTP.

use longshore_runtime::parallel::Cancel;

use super::http::Pool;
use super::timing::Timing;
use crate::config::{Endpoint, Network, Place, Scheme};
use crate::error::Result;
use crate::stderr::say;

/// Where the requests for a place go, and what they go by.
pub(super) fn settle(place: &Place, network: &Network, timing: Timing) -> Result<(Endpoint, Pool)> {
    let by = |plain| -> Result<(Endpoint, Pool)> {
        let endpoint = Endpoint { host: place.host.clone(), plain };
        Ok((endpoint.clone(), Pool::new(endpoint, &place.tls, network, timing)?))
    };
    let plain = match place.scheme {
        Scheme::Http => true,
        Scheme::Https => false,
        // Where nothing answers, the error is that of HTTPS.
        Scheme::Either => !answers(&by(false)?) && answers(&by(true)?),
    };
    if place.tls.unverified && !plain {
        say(format_args!(
            "WARNING! The certificate of {} is not verified, as configured: others may read and change what passes.",
            place.host
        ));
    }
    by(plain)
}

fn answers((endpoint, pool): &(Endpoint, Pool)) -> bool {
    let (cancel, url) = (Cancel::default(), format!("{}/v2/", endpoint.base()));
    pool.send(&cancel, None, |client| client.get(&url).build()).is_ok()
}
