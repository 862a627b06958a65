//! Certificate authorities and their certificates, for TLS between real programs on loopback.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use rcgen::{KeyUsagePurpose, PKCS_ECDSA_P256_SHA256};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tempfile::TempDir;

/// Names under which services of a test are reached.
pub const LOOPBACK_NAMES: &[&str] = &["localhost", "127.0.0.1", "::1"];

/// The provider that every TLS connection of the tests uses.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// A certificate authority in a folder of its own, which goes when it is dropped.
pub struct TestCa {
    folder: TempDir,
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
}

impl TestCa {
    /// Makes an authority whose subject is `CN=<name>`.
    ///
    /// Two authorities of the same name still have different keys: one does not vouch for the other.
    ///
    /// # Errors
    /// The temporary folder cannot be written.
    pub fn new(name: &str) -> Result<Self> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let certificate = params.self_signed(&key)?;
        let folder = tempfile::Builder::new().prefix("culvert-ca-").tempdir()?;
        std::fs::write(folder.path().join("ca.pem"), certificate.pem())?;
        let der = certificate.der().clone();
        Ok(Self { folder, issuer: Issuer::new(params, key), certificate: der })
    }

    /// The authority's certificate, PEM.
    pub fn path(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// The authority's certificate, DER.
    pub fn der(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// Issues a certificate for DNS names and IP addresses and writes it and its key to files.
    ///
    /// # Errors
    /// A name is neither, or a file cannot be written.
    pub fn issue(&self, names: &[&str]) -> Result<Leaf> {
        let folder = tempfile::Builder::new().prefix("leaf-").tempdir_in(self.folder.path())?;
        let leaf = Leaf { folder: folder.keep(), names: names.iter().map(|n| (*n).to_owned()).collect() };
        self.reissue(&leaf)?;
        Ok(leaf)
    }

    /// Issues a certificate for the names of services on loopback.
    ///
    /// # Errors
    /// As for [`TestCa::issue`].
    pub fn loopback(&self) -> Result<Leaf> {
        self.issue(LOOPBACK_NAMES)
    }

    /// Replaces the files of a certificate by a new certificate with a new key for the same names.
    ///
    /// Each file is replaced in one step, the key first, as a careful operator's tool does it.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn reissue(&self, leaf: &Leaf) -> Result<()> {
        let mut params = CertificateParams::new(leaf.names.clone())?;
        let common_name = leaf.names.first().map_or("culvert test", String::as_str);
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        replace(&leaf.key_path(), key.serialize_pem().as_bytes())?;
        replace(&leaf.cert_path(), certificate.pem().as_bytes())
    }

    /// A TLS client that trusts this authority and no other.
    ///
    /// # Errors
    /// The authority's certificate is not accepted as a root.
    pub fn client_config(&self) -> Result<Arc<ClientConfig>> {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone())?;
        let config = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Arc::new(config))
    }
}

/// A certificate for a server, in two files.
#[derive(Debug, Clone)]
pub struct Leaf {
    folder: PathBuf,
    names: Vec<String>,
}

impl Leaf {
    /// The certificate, PEM.
    pub fn cert_path(&self) -> PathBuf {
        self.folder.join("cert.pem")
    }

    /// Its private key, PKCS#8 PEM.
    pub fn key_path(&self) -> PathBuf {
        self.folder.join("key.pem")
    }

    /// The names it is for.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// The certificate as it is in its file now, DER.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn der(&self) -> Result<CertificateDer<'static>> {
        CertificateDer::from_pem_file(self.cert_path()).context("certificate does not read")
    }

    /// A TLS server with this certificate.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn server_config(&self) -> Result<Arc<ServerConfig>> {
        let key = PrivateKeyDer::from_pem_file(self.key_path()).context("key does not read")?;
        let config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![self.der()?], key)?;
        Ok(Arc::new(config))
    }
}

fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    let next = path.with_extension("next");
    std::fs::write(&next, bytes)?;
    std::fs::rename(&next, path)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::ServerName;
    use tokio::io::duplex;
    use tokio_rustls::{TlsAcceptor, TlsConnector};

    use super::*;

    async fn handshake(leaf: &Leaf, trusted: &TestCa, name: &str) -> Result<CertificateDer<'static>> {
        let (near, far) = duplex(64 * 1024);
        let acceptor = TlsAcceptor::from(leaf.server_config()?);
        let connector = TlsConnector::from(trusted.client_config()?);
        let name = ServerName::try_from(name.to_owned())?;
        let (client, _server) = tokio::join!(connector.connect(name, near), acceptor.accept(far));
        let stream = client?;
        let chain = stream.get_ref().1.peer_certificates().context("no certificate")?;
        Ok(chain[0].clone())
    }

    #[tokio::test]
    async fn a_leaf_is_trusted_for_its_names_and_by_those_who_trust_its_authority() {
        let (ours, other) = (TestCa::new("Ours").unwrap(), TestCa::new("Ours").unwrap());
        let leaf = ours.loopback().unwrap();
        for name in LOOPBACK_NAMES {
            assert_eq!(handshake(&leaf, &ours, name).await.unwrap(), leaf.der().unwrap());
        }
        let wrong_name = handshake(&leaf, &ours, "relay.example").await.unwrap_err();
        assert!(wrong_name.to_string().contains("not valid for name"), "{wrong_name}");
        let wrong_authority = handshake(&leaf, &other, "localhost").await.unwrap_err();
        assert!(wrong_authority.to_string().contains("invalid peer certificate"), "{wrong_authority}");
    }

    #[tokio::test]
    async fn a_reissued_leaf_has_the_same_paths_and_another_certificate() {
        let ca = TestCa::new("Ours").unwrap();
        let leaf = ca.issue(&["localhost"]).unwrap();
        let before = handshake(&leaf, &ca, "localhost").await.unwrap();
        ca.reissue(&leaf).unwrap();
        let after = handshake(&leaf, &ca, "localhost").await.unwrap();
        assert_ne!(before, after);
    }

    #[test]
    fn its_files_go_with_the_authority() {
        let ca = TestCa::new("Ours").unwrap();
        let leaf = ca.loopback().unwrap();
        assert!(leaf.key_path().exists() && ca.path().exists());
        drop(ca);
        assert!(!leaf.key_path().exists());
    }
}
