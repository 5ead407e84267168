//! Throw-away certificates of one test process: two authorities, a server, a client, a stranger.

use anyhow::Result;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SanType};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::path::{Path, PathBuf};

/// A folder of PEM files `NAME.pem` and `NAME-key.pem`; the roots are `ca` and `other-ca`.
pub struct Certificates {
    folder: PathBuf,
}

const LEAVES: &[(&str, &str, &[&str], &str)] = &[
    (
        "server",
        "ca",
        &["server.test", "a.test", "b.test", "*.wild.test"],
        "spiffe://cluster.local/ns/default/sa/server",
    ),
    (
        "other",
        "ca",
        &["other.test"],
        "spiffe://cluster.local/ns/default/sa/other",
    ),
    (
        "client",
        "ca",
        &[],
        "spiffe://cluster.local/ns/default/sa/client",
    ),
    (
        "stranger",
        "other-ca",
        &[],
        "spiffe://cluster.local/ns/default/sa/client",
    ),
];

impl Certificates {
    /// Makes all of them in `folder`.
    pub fn create(folder: &Path) -> Result<Certificates> {
        std::fs::create_dir_all(folder)?;
        let made = Certificates {
            folder: folder.to_owned(),
        };
        let mut issuers = Vec::new();
        for name in ["ca", "other-ca"] {
            let key = KeyPair::generate()?;
            let mut params = CertificateParams::default();
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.distinguished_name.push(DnType::CommonName, name);
            made.write(name, &params.self_signed(&key)?.pem(), &key)?;
            issuers.push((name, Issuer::new(params, key)));
        }
        for (name, authority, dns, uri) in LEAVES {
            let key = KeyPair::generate()?;
            let names: Vec<String> = dns.iter().map(|name| (*name).to_owned()).collect();
            let mut params = CertificateParams::new(names)?;
            params
                .subject_alt_names
                .push(SanType::URI((*uri).try_into()?));
            params.distinguished_name.push(DnType::CommonName, *name);
            let issuer = issuers.iter().find(|(issuer, _)| issuer == authority);
            let (_, issuer) = issuer.expect("BUG: LEAVES names an authority made above");
            made.write(name, &params.signed_by(&key, issuer)?.pem(), &key)?;
        }
        Ok(made)
    }

    fn write(&self, name: &str, certificate: &str, key: &KeyPair) -> Result<()> {
        std::fs::write(self.certificate_file(name), certificate)?;
        Ok(std::fs::write(self.key_file(name), key.serialize_pem())?)
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    fn certificate_file(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.pem"))
    }

    fn key_file(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}-key.pem"))
    }

    pub fn certificate(&self, name: &str) -> Result<CertificateDer<'static>> {
        Ok(CertificateDer::from_pem_file(self.certificate_file(name))?)
    }

    pub fn key(&self, name: &str) -> Result<PrivateKeyDer<'static>> {
        Ok(PrivateKeyDer::from_pem_file(self.key_file(name))?)
    }

    /// The name under which `certificate` was made here.
    pub fn name_of(&self, certificate: &CertificateDer<'_>) -> String {
        let leaves = LEAVES.iter().map(|(name, ..)| *name);
        let mut names = leaves.filter(|name| {
            self.certificate(name)
                .is_ok_and(|known| known.as_ref() == certificate.as_ref())
        });
        names.next().unwrap_or("unknown").to_owned()
    }
}
