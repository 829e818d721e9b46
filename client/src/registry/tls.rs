//! Whom a host is known by, and what to do where it is not.

use std::path::Path;

use reqwest::{Certificate, ClientBuilder, Identity};

use crate::config::{Tls, advised_directory};
use crate::error::{Error, Result};

/// The longest file of certificates read, in bytes.
const FILE_LIMIT_BYTES: u64 = 4 << 20;

/// The certificates of a host, read.
pub(super) struct Certificates {
    authorities: Vec<Certificate>,
    client: Option<Identity>,
    unverified: bool,
}

impl Certificates {
    pub(super) fn read(tls: &Tls) -> Result<Self> {
        let mut authorities = Vec::new();
        for path in &tls.authorities {
            let found = Certificate::from_pem_bundle(&read(path)?).map_err(|_| bad(path, "it is not PEM"))?;
            if found.is_empty() {
                return Err(bad(path, "there is no certificate in it: it must be PEM, -----BEGIN CERTIFICATE-----"));
            }
            authorities.extend(found);
        }
        let client = tls.client.as_ref().map(|(certificate, key)| {
            let pem = [read(certificate)?, b"\n".to_vec(), read(key)?].concat();
            let why = format!(
                "with the key {} it makes no client certificate: both must be PEM, the key without a password",
                key.display()
            );
            Identity::from_pem(&pem).map_err(|_| bad(certificate, &why))
        });
        Ok(Self { authorities, client: client.transpose()?, unverified: tls.unverified })
    }

    /// The same for a client. The machine's authorities count, too.
    pub(super) fn apply(&self, builder: ClientBuilder) -> ClientBuilder {
        let builder = builder.tls_certs_merge(self.authorities.iter().cloned()).tls_danger_accept_invalid_certs(self.unverified);
        match &self.client {
            Some(identity) => builder.identity(identity.clone()),
            None => builder,
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
            "put the certificate of who signed it into {}, or name its file by `ca` in registries.toml",
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
