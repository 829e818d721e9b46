//! Whose certificate a host may show: one signed by an authority, or one that was put down for that host itself.
//!
//! Many have a certificate that `openssl req -x509` made: it signs itself, and says that it may sign others. Docker and
//! podman take it from the host it was put down for; the library below takes no authority's own certificate from a host.

use std::sync::Arc;

use rustls_platform_verifier::Verifier;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::client::verify_server_name;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio_rustls::rustls::server::ParsedCertificate;
use tokio_rustls::rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, SignatureScheme};

/// What the library says of an authority's own certificate, after it has found its dates to be right.
const AUTHORITY_ITSELF: &str = "CaUsedAsEndEntity";

/// Verifies as usual, and takes the certificates put down for a host, too.
#[derive(Debug)]
struct PutDown {
    certificates: Vec<CertificateDer<'static>>,
    usual: Verifier,
}

/// TLS where these authorities count besides the machine's, and this certificate (with its key, in PEM) is shown.
pub(super) fn config(authorities: Vec<CertificateDer<'static>>, client_pem: Option<&[u8]>) -> Result<ClientConfig, Error> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let usual = Verifier::new_with_extra_roots(authorities.clone(), Arc::clone(&provider))?;
    let verifier = Arc::new(PutDown { certificates: authorities, usual });
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let builder = builder.dangerous().with_custom_certificate_verifier(verifier);
    match client_pem {
        Some(pem) => {
            let chain = CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>();
            let bad = |e| Error::General(format!("{e}"));
            builder.with_client_auth_cert(chain.map_err(bad)?, PrivateKeyDer::from_pem_slice(pem).map_err(bad)?)
        }
        None => Ok(builder.with_no_client_auth()),
    }
}

impl ServerCertVerifier for PutDown {
    fn verify_server_cert(
        &self,
        shown: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match self.usual.verify_server_cert(shown, intermediates, name, ocsp, now) {
            Err(Error::InvalidCertificate(CertificateError::Other(other)))
                if self.certificates.contains(shown) && format!("{other:?}").contains(AUTHORITY_ITSELF) =>
            {
                verify_server_name(&ParsedCertificate::try_from(shown)?, name).map(|()| ServerCertVerified::assertion())
            }
            usual => usual,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.usual.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.usual.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.usual.supported_verify_schemes()
    }
}
