//! A certificate chain and its key, from PEM files to something a handshake can use.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use rustls::client::verify_server_name;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::ParsedCertificate;
use rustls::sign::CertifiedKey;
use rustls::{Error as RustlsError, InconsistentKeys};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;
use zeroize::Zeroizing;

use super::Name;

/// Where a certificate chain and its key are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// PEM file with the certificate first, then its issuers.
    pub certificate: PathBuf,
    /// PEM file with the private key of the first certificate.
    pub key: PathBuf,
}

/// What the files held, byte for byte.
#[derive(PartialEq, Eq)]
pub(super) struct Contents {
    certificate: Vec<u8>,
    key: Zeroizing<Vec<u8>>,
}

/// A usable certificate and what is known about it.
pub(super) struct Loaded {
    pub(super) contents: Contents,
    pub(super) key: std::sync::Arc<CertifiedKey>,
    pub(super) names: Vec<Name>,
    pub(super) not_after: i64,
}

impl Loaded {
    /// Whether clients that dial this host accept the certificate, by their own rules.
    pub(super) fn covers(&self, host: &str) -> bool {
        let Ok(name) = ServerName::try_from(host) else { return false };
        self.key
            .end_entity_cert()
            .and_then(ParsedCertificate::try_from)
            .and_then(|leaf| verify_server_name(&leaf, &name))
            .is_ok()
    }
}

impl Files {
    /// Whether the files could be used now, without using them.
    pub fn check(&self) -> Result<(), TlsError> {
        self.load().map(drop)
    }

    pub(super) fn load(&self) -> Result<Loaded, TlsError> {
        self.parse(self.read()?)
    }

    pub(super) fn read(&self) -> Result<Contents, TlsError> {
        let read = |path: &Path| {
            std::fs::read(path).map_err(|source| TlsError::Read { path: path.to_owned(), source })
        };
        Ok(Contents { certificate: read(&self.certificate)?, key: Zeroizing::new(read(&self.key)?) })
    }

    pub(super) fn parse(&self, contents: Contents) -> Result<Loaded, TlsError> {
        let chain = CertificateDer::pem_slice_iter(&contents.certificate)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| self.bad_certificate(format!("is not valid PEM: {error}")))?;
        let leaf =
            chain.first().ok_or_else(|| self.bad_certificate("has no CERTIFICATE section".into()))?.clone();
        let key = PrivateKeyDer::from_pem_slice(&contents.key).map_err(|error| TlsError::Key {
            path: self.key.clone(),
            // The parser's own message may quote the file.
            fault: match error {
                rustls::pki_types::pem::Error::NoItemsFound => "has no PRIVATE KEY section".into(),
                _ => "is not valid PEM".into(),
            },
        })?;
        let key =
            CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider()).map_err(
                |error| match error {
                    RustlsError::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                        TlsError::Mismatch { certificate: self.certificate.clone(), key: self.key.clone() }
                    }
                    RustlsError::InvalidCertificate(error) => {
                        self.bad_certificate(format!("holds a certificate that is not usable: {error}"))
                    }
                    error => {
                        TlsError::Key { path: self.key.clone(), fault: format!("is not usable: {error}") }
                    }
                },
            )?;
        let (_, leaf) = X509Certificate::from_der(&leaf)
            .map_err(|error| self.bad_certificate(format!("holds a malformed certificate: {error}")))?;
        let names = names(&leaf);
        if names.is_empty() {
            return Err(self.bad_certificate(
                "names no host in its subject alternative names, and clients look nowhere else".into(),
            ));
        }
        let not_after = leaf.validity().not_after.timestamp();
        Ok(Loaded { contents, key: key.into(), names, not_after })
    }

    fn bad_certificate(&self, fault: String) -> TlsError {
        TlsError::Certificate { path: self.certificate.clone(), fault }
    }
}

fn names(leaf: &X509Certificate<'_>) -> Vec<Name> {
    let Ok(Some(alternative)) = leaf.subject_alternative_name() else { return Vec::new() };
    alternative
        .value
        .general_names
        .iter()
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some(Name::Dns((*name).to_owned())),
            GeneralName::IPAddress(bytes) => address(bytes).map(Name::Ip),
            _ => None,
        })
        .collect()
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}

/// Why certificate files cannot be used; names the file.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file is missing or unreadable.
    #[error("{}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The certificate file holds no usable chain.
    #[error("{} {fault}", path.display())]
    Certificate {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        fault: String,
    },
    /// The key file holds no usable key.
    #[error("{} {fault}", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        fault: String,
    },
    /// Each file is fine by itself.
    #[error("the key in {} does not fit the first certificate in {}", key.display(), certificate.display())]
    Mismatch {
        /// The certificate file.
        certificate: PathBuf,
        /// The key file.
        key: PathBuf,
    },
    /// The TLS library refuses its own defaults.
    #[error("TLS cannot be configured: {0}")]
    Provider(#[source] RustlsError),
}
