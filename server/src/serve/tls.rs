//! TLS from certificate files, looked at again and again: a renewed certificate is served to new
//! connections without a restart, and one that cannot be used changes nothing.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use longshore_runtime::files::read_bounded;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::{CryptoProvider, aws_lc_rs};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::{ClientHello, ResolvesServerCert};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::{self, ServerConfig};
use tokio_rustls::server::TlsStream;

use crate::config;
use crate::error::{Error, Result};
use crate::limits::{CERTIFICATE_LIMIT_BYTES, CERTIFICATE_LOOK_INTERVAL};

/// Takes connections into TLS; a cheap handle.
#[derive(Debug, Clone)]
pub struct Tls {
    files: Arc<Files>,
    config: Arc<ServerConfig>,
}

/// The certificate files and what was last made of them.
#[derive(Debug)]
struct Files {
    settings: config::Tls,
    provider: Arc<CryptoProvider>,
    /// Locked to clone it or to put another in its place.
    current: RwLock<Arc<CertifiedKey>>,
    /// What the files looked like when they were last read.
    seen: Mutex<Stamps>,
}

impl Tls {
    /// TLS 1.2 and later with a certificate and its key, offering HTTP/2 and HTTP/1.1.
    ///
    /// # Errors
    /// When one of the files cannot be read or used, or they do not fit each other.
    pub fn open(settings: &config::Tls) -> Result<Self> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let seen = Mutex::new(Stamps::of(settings));
        let current = RwLock::new(Arc::new(load(settings, &provider)?));
        let files = Arc::new(Files { settings: settings.clone(), provider: Arc::clone(&provider), current, seen });
        let builder = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .map_err(|e| unusable("TLS", &e))?;
        let mut config = builder.with_no_client_auth().with_cert_resolver(Arc::<Files>::clone(&files));
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Self { files, config: Arc::new(config) })
    }

    /// Looks at the files once a second and takes what has changed into use, until it is dropped.
    pub async fn keep_fresh(self) {
        loop {
            tokio::time::sleep(CERTIFICATE_LOOK_INTERVAL).await;
            let files = Arc::clone(&self.files);
            // A file system that hangs must not hang the handshakes.
            if tokio::task::spawn_blocking(move || files.look()).await.is_err() {
                tracing::error!("look at the certificate files: the thread failed");
            }
        }
    }

    /// The handshake, in which the peer may not take longer than `limit`.
    pub(super) async fn accept(&self, stream: TcpStream, limit: Duration) -> io::Result<TlsStream<TcpStream>> {
        let handshake = TlsAcceptor::from(Arc::clone(&self.config)).accept(stream);
        tokio::time::timeout(limit, handshake).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
    }
}

impl Files {
    fn look(&self) {
        let now = Stamps::of(&self.settings);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if *seen == now {
            return;
        }
        *seen = now;
        match load(&self.settings, &self.provider) {
            Ok(renewed) => {
                *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(renewed);
                tracing::info!("the certificate in {} is in use now", self.settings.certificate.display());
            }
            Err(e) => tracing::error!("the certificate files changed and the old certificate stays in use: {e}"),
        }
    }
}

impl ResolvesServerCert for Files {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner)))
    }
}

fn load(settings: &config::Tls, provider: &CryptoProvider) -> Result<CertifiedKey> {
    let (certificate, key) = (settings.certificate.as_path(), settings.key.as_path());
    let pem = read_bounded(certificate, CERTIFICATE_LIMIT_BYTES)?;
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&pem).collect::<Result<_, _>>().map_err(|e| in_file(certificate, &e))?;
    if chain.is_empty() {
        return Err(in_file(certificate, &"there is no CERTIFICATE in it"));
    }
    let pem = read_bounded(key, CERTIFICATE_LIMIT_BYTES)?;
    let private = PrivateKeyDer::from_pem_slice(&pem).map_err(|e| in_file(key, &e))?;
    CertifiedKey::from_der(chain, private, provider)
        .map_err(|e| unusable(format_args!("certificate {} with key {}", certificate.display(), key.display()), &e))
}

fn in_file(path: &Path, why: &dyn std::fmt::Display) -> Error {
    unusable(format_args!("file {}", path.display()), why)
}

fn unusable(what: impl std::fmt::Display, why: &dyn std::fmt::Display) -> Error {
    longshore_runtime::Error::invalid(what, why).into()
}

/// What tells whether a file is another one than before: device, inode, size, times of change of
/// content and of anything; nothing, where there is none.
type Stamp = Option<(u64, u64, u64, (i64, i64), (i64, i64))>;

#[derive(Debug, PartialEq, Eq)]
struct Stamps {
    certificate: Stamp,
    key: Stamp,
}

impl Stamps {
    fn of(settings: &config::Tls) -> Self {
        let stamp = |path: &Path| {
            let file = std::fs::metadata(path).ok()?;
            Some((file.dev(), file.ino(), file.len(), (file.mtime(), file.mtime_nsec()), (file.ctime(), file.ctime_nsec())))
        };
        Self { certificate: stamp(&settings.certificate), key: stamp(&settings.key) }
    }
}
