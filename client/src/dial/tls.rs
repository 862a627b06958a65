//! TLS to the relay: what the operating system trusts, plus what the caller adds.
//!
//! Networks that inspect TLS are normal, so the system's own store decides (that is where a company
//! puts its authority) and a refused certificate is reported with its issuer's name. What peers say to
//! each other is encrypted once more inside. The provider is always aws-lc-rs, whatever else the
//! process has installed.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, SignatureScheme};
use rustls_platform_verifier::Verifier;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::error::{DialError, tls_reason};
use super::{BoxedStream, Stream};

/// What is trusted, loaded once.
#[derive(Clone, Debug)]
pub(crate) struct Trust {
    verifier: Arc<Verifier>,
    resumption: Resumption,
}

/// A TLS connection and what was presented on it.
pub(crate) struct Secured {
    pub(crate) stream: TlsStream<BoxedStream>,
    /// The presented chain, the host's own first; empty when an earlier session was resumed.
    pub(crate) chain: Vec<CertificateDer<'static>>,
}

impl Trust {
    /// Loads the system's store and `ca_file`. Reads files: not for the hot path.
    pub(crate) fn load(ca_file: Option<&Path>) -> Result<Self, DialError> {
        let extra = ca_file.map(read_pem).transpose()?.unwrap_or_default();
        let verifier = Verifier::new_with_extra_roots(extra, provider()).map_err(DialError::SystemTrust)?;
        Ok(Self { verifier: Arc::new(verifier), resumption: Resumption::in_memory_sessions(8) })
    }

    /// Speaks TLS with `host` over `stream`; only HTTP/1.1 is offered, since HTTP/2 has no upgrade.
    pub(crate) async fn secure(
        &self,
        host: &str,
        stream: impl Stream + 'static,
    ) -> Result<Secured, DialError> {
        let name =
            ServerName::try_from(host.to_owned()).map_err(|_| DialError::ServerName(host.to_owned()))?;
        let witness = Arc::new(Witness { inner: Arc::clone(&self.verifier), chain: Mutex::default() });
        let versions = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
        let mut config = versions
            .map_err(DialError::SystemTrust)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::clone(&witness) as Arc<dyn ServerCertVerifier>)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        config.resumption = self.resumption.clone();
        let stream: BoxedStream = Box::new(stream);
        match TlsConnector::from(Arc::new(config)).connect(name, stream).await {
            Ok(stream) => Ok(Secured { stream, chain: witness.take() }),
            Err(source) => Err(refused(host, source, &witness.take())),
        }
    }
}

/// The one crypto provider.
pub(crate) fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// Who issued a certificate, as people read it.
pub(crate) fn issuer(certificate: &CertificateDer<'_>) -> String {
    match x509_parser::parse_x509_certificate(certificate) {
        Ok((_, certificate)) => {
            let issuer = certificate.issuer();
            let name = issuer.iter_common_name().chain(issuer.iter_organization()).next();
            let short = name.and_then(|name| name.as_str().ok()).map(str::to_owned);
            printable(&short.unwrap_or_else(|| issuer.to_string()))
        }
        Err(_) => "an unreadable certificate".to_owned(),
    }
}

/// A stranger's text for a terminal: no control characters, not endless.
fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(200).collect()
}

fn read_pem(path: &Path) -> Result<Vec<CertificateDer<'static>>, DialError> {
    let problem = |problem: String| DialError::CaFile { path: path.to_owned(), problem };
    let certificates = CertificateDer::pem_file_iter(path)
        .and_then(|certificates| certificates.collect::<Result<Vec<_>, _>>())
        .map_err(|error| problem(format!("cannot be read: {error}")))?;
    if certificates.is_empty() {
        return Err(problem("holds no certificate in PEM form".to_owned()));
    }
    Ok(certificates)
}

fn refused(host: &str, source: io::Error, chain: &[CertificateDer<'_>]) -> DialError {
    match (tls_reason(&source), chain.first()) {
        (Some(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer)), Some(leaf)) => {
            DialError::UnknownIssuer { host: host.to_owned(), issuer: issuer(leaf) }
        }
        _ => DialError::Tls { host: host.to_owned(), source },
    }
}

/// Lets the platform's verifier decide and remembers what it was shown.
#[derive(Debug)]
struct Witness {
    inner: Arc<Verifier>,
    chain: Mutex<Vec<CertificateDer<'static>>>,
}

impl Witness {
    fn take(&self) -> Vec<CertificateDer<'static>> {
        std::mem::take(&mut self.chain.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl ServerCertVerifier for Witness {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let shown = std::iter::once(end_entity).chain(intermediates);
        *self.chain.lock().unwrap_or_else(PoisonError::into_inner) =
            shown.map(|certificate| certificate.clone().into_owned()).collect();
        self.inner.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}
