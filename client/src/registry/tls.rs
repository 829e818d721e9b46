//! Whom a host is known by, and what to do where it is not.

use std::path::Path;
use std::sync::LazyLock;

use reqwest::{ClientBuilder, Identity};
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;

use super::verifier;
use crate::config::{Tls, advised_directory};
use crate::error::{Error, Result};

/// The longest file of certificates read, in bytes.
const FILE_LIMIT_BYTES: u64 = 4 << 20;

/// What hosts have that nothing is set for: the machine's authorities are read once, and sessions resumed.
static USUAL: LazyLock<Option<ClientConfig>> = LazyLock::new(|| verifier::config(Vec::new(), None).ok());

/// The certificates of a host, read.
pub(super) enum Certificates {
    /// The machine's authorities are all.
    Usual,
    /// There are others besides, or a certificate to be shown.
    Own(Box<ClientConfig>),
    Unverified(Option<Identity>),
}

impl Certificates {
    pub(super) fn read(tls: &Tls) -> Result<Self> {
        let client = tls.client.as_ref().map(|(certificate, key)| -> Result<_> {
            let pem = [read(certificate)?, b"\n".to_vec(), read(key)?].concat();
            let key = key.display();
            let why =
                format!("with the key {key} it makes no client certificate: both must be PEM, and the key without a password");
            let identity = Identity::from_pem(&pem).map_err(|_| bad(certificate, &why))?;
            Ok((pem, identity))
        });
        let (pem, identity) = client.transpose()?.unzip();
        if tls.unverified {
            return Ok(Self::Unverified(identity));
        }
        let Some(first) = tls.authorities.first().or(tls.client.as_ref().map(|(certificate, _)| certificate)) else {
            return Ok(Self::Usual);
        };
        let mut authorities = Vec::new();
        for path in &tls.authorities {
            let found = CertificateDer::pem_slice_iter(&read(path)?).collect::<Result<Vec<_>, _>>();
            let found = found.map_err(|e| bad(path, &format!("it is not PEM: {e}")))?;
            if found.is_empty() {
                return Err(bad(path, "there is no certificate in it: it must be PEM, -----BEGIN CERTIFICATE-----"));
            }
            authorities.extend(found);
        }
        let config = verifier::config(authorities, pem.as_deref()).map_err(|e| bad(first, &e.to_string()))?;
        Ok(Self::Own(Box::new(config)))
    }

    /// The same for a client.
    pub(super) fn apply(&self, builder: ClientBuilder) -> ClientBuilder {
        match self {
            Self::Usual => match &*USUAL {
                Some(config) => builder.tls_backend_preconfigured(config.clone()),
                // It fails, and says why.
                None => builder,
            },
            Self::Own(config) => builder.tls_backend_preconfigured(ClientConfig::clone(config)),
            Self::Unverified(identity) => {
                let builder = builder.tls_danger_accept_invalid_certs(true);
                identity.iter().fold(builder, |builder, identity| builder.identity(identity.clone()))
            }
        }
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    Ok(longshore_runtime::files::read_bounded(path, FILE_LIMIT_BYTES)?)
}

fn bad(path: &Path, why: &str) -> Error {
    Error::Config { path: path.display().to_string(), why: why.into() }
}

/// What helps where TLS with a host fails so.
pub(super) fn advice(host: &str, failure: &str) -> Option<String> {
    let directory = advised_directory(host);
    if failure.contains("UnknownIssuer") {
        let file = directory.join("ca.crt");
        return Some(format!(
            "put the certificate of who signed it into {}; that of a registry may be named by `ca` in registries.toml, too",
            file.display()
        ));
    }
    if ["CertificateRequired", "BadCertificate", "HandshakeFailure"].iter().any(|alert| failure.contains(alert)) {
        let pair = directory.join("client.cert");
        return Some(format!(
            "it may demand a client certificate: put it into {}, and its key beside it into client.key",
            pair.display()
        ));
    }
    let speaks_plain = failure.contains("InvalidContentType");
    speaks_plain.then(|| format!("it seems to speak plain HTTP: [\"{host}\"] plain-http = true in registries.toml lets it"))
}
