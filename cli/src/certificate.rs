//! Certificates made here, for relays that have none from elsewhere: an authority and what it signs.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use culvert_service_kit::tls::Files;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, date_time_ymd,
};

use crate::folders;

/// Names under which a relay on this machine is always reached.
const LOCAL: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// An authority in a folder, and a certificate by it.
pub(crate) struct Authority {
    folder: PathBuf,
    key: KeyPair,
}

impl Authority {
    /// Takes the authority that is in the folder, or makes one.
    pub(crate) fn in_folder(folder: &Path) -> Result<Self> {
        folders::make_private(folder)?;
        let path = folder.join("ca.key");
        if !path.exists() {
            let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
            write_new(&path, key.serialize_pem().as_bytes())?;
            let certificate = params().self_signed(&key)?;
            let public = folder.join("ca.pem");
            fs::write(&public, certificate.pem())
                .with_context(|| format!("cannot write {}", public.display()))?;
        }
        folders::check_private(&path)?;
        let pem = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let key = KeyPair::from_pem(&pem).with_context(|| {
            format!("{} is damaged: remove the folder {}", path.display(), folder.display())
        })?;
        Ok(Self { folder: folder.to_owned(), key })
    }

    /// The file to give to `--ca-file`.
    pub(crate) fn file(&self) -> PathBuf {
        self.folder.join("ca.pem")
    }

    /// Makes a fresh certificate for this machine and other names.
    pub(crate) fn issue(&self, names: &[String]) -> Result<Files> {
        let names: Vec<String> = LOCAL.iter().map(|n| (*n).to_owned()).chain(names.iter().cloned()).collect();
        let mut leaf = CertificateParams::new(names).context("a name cannot be in a certificate")?;
        leaf.distinguished_name.push(DnType::CommonName, "culvert dev relay");
        leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let certificate = leaf.signed_by(&key, &Issuer::new(params(), &self.key))?;
        let files = Files { certificate: self.folder.join("relay.pem"), key: self.folder.join("relay.key") };
        fs::write(&files.certificate, certificate.pem())?;
        if files.key.exists() {
            fs::remove_file(&files.key)?;
        }
        write_new(&files.key, key.serialize_pem().as_bytes())?;
        Ok(files)
    }
}

fn write_new(path: &Path, content: &[u8]) -> Result<()> {
    folders::write_private(path, content).with_context(|| format!("cannot write {}", path.display()))
}

/// The authority's own fields: the same every time, so that its key is all that must be kept.
fn params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "culvert dev authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_before = date_time_ymd(2026, 1, 1);
    params.not_after = date_time_ymd(2046, 1, 1);
    params
}
