//! Whether a registry takes somebody's credentials (distribution-spec end-1).

use longshore_runtime::parallel::Cancel;

use super::auth::Auth;
use super::host::{said_no, unreachable};
use super::scheme;
use super::scope::Action;
use super::timing::Timing;

use crate::config::Registries;
use crate::credentials::Credentials;
use crate::error::{Error, Result};

/// Shows credentials to a registry, or its token server.
///
/// # Errors
///
/// [`Error::Denied`] when they are not taken.
pub fn log_in(registries: &Registries, registry: &str, credentials: &Credentials) -> Result<()> {
    let place = registries.registry(registry)?;
    let (endpoint, pool) = scheme::settle(&place, &registries.network, Timing::from_environment())?;
    let (host, url) = (endpoint.host.clone(), format!("{}/v2/", endpoint.base()));
    let auth = Auth::with_credentials(&place, endpoint, credentials.clone());
    let cancel = Cancel::default();
    let denied = || Error::Denied { host: host.clone() };
    let ask = |authorization: Option<String>| {
        let sent = pool.send(&cancel, None, |client| match authorization {
            Some(value) => client.get(&url).header("authorization", value).build(),
            None => client.get(&url).build(),
        });
        sent.map_err(|e| unreachable(&host, &e))
    };
    let mut answer = ask(None)?;
    if answer.status() == 401 {
        let challenges = answer.headers("www-authenticate");
        drop(answer);
        match auth.answer(&pool, &challenges, Action::LogIn, None) {
            Ok(true) => {}
            Ok(false) => return Err(denied()),
            Err(Error::Refused { answer, .. }) if matches!(answer.status, 401 | 403) => return Err(denied()),
            Err(other) => return Err(other),
        }
        answer = ask(auth.header(&pool, Action::LogIn)?)?;
    } else if let Some(basic) = credentials.basic() {
        // It lets everybody in here, yet may know who is who.
        drop(answer);
        answer = ask(Some(basic))?;
    }
    match answer.status() {
        200 => Ok(()),
        401 | 403 => Err(denied()),
        _ => Err(Error::Refused { host: host.clone(), attempted: "log in".into(), answer: said_no(&mut answer) }),
    }
}
