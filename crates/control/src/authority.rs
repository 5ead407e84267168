//! The certificate authority's files, and this server's own certificate: issued at the start,
//! renewed at half of its life. The signing itself is `pki`'s.

use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use daemon::clock::Clock;
use daemon::drain::DrainWatch;
use jiff::Timestamp;
use pki::rotation::Schedule;
use pki::{Authority, Certificate, TrustDomain};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::metrics::Metrics;
use crate::{ControlError, Options};

const SERVING_TTL: Duration = Duration::from_secs(24 * 3600);
/// How soon a failed renewal is tried again.
const RETRY: Duration = Duration::from_secs(60);

/// Names under which Istio's agents know their control plane (istio.md 3.5).
const LEGACY_NAMES: [&str; 3] = [
    "istiod.istio-system.svc",
    "istio-pilot.istio-system.svc",
    "istiod-remote.istio-system.svc",
];

/// Loads or makes the authority, and publishes its root as `root-cert.pem`.
pub(crate) fn load(
    options: &Options,
    trust_domain: &TrustDomain,
    now: Timestamp,
) -> Result<Authority, ControlError> {
    let authority = match (&options.ca_cert, &options.ca_key) {
        (Some(cert), Some(key)) => {
            let chain = read(cert)?;
            let roots = match &options.root_cert {
                Some(path) => read(path)?,
                None => last_certificate(&chain)?,
            };
            Authority::load(&chain, &read(key)?, &roots).map_err(authority_error)?
        }
        (None, None) => self_signed(&options.state_dir, trust_domain, now)?,
        _ => {
            let reason = "a plugged-in authority needs both --ca-cert and --ca-key";
            return Err(ControlError::Authority(reason.to_owned()));
        }
    };
    let published = options.state_dir.join("root-cert.pem");
    write_atomically(&published, authority.roots_pem(), 0o644)?;
    Ok(authority)
}

fn self_signed(
    state_dir: &Path,
    trust_domain: &TrustDomain,
    now: Timestamp,
) -> Result<Authority, ControlError> {
    let directory = state_dir.join("ca");
    let (cert_path, key_path) = (directory.join("ca-cert.pem"), directory.join("ca-key.pem"));
    if cert_path.exists() {
        let cert = read(&cert_path)?;
        return Authority::load(&cert, &read(&key_path)?, &cert).map_err(authority_error);
    }
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&directory)
        .map_err(ControlError::io(directory.display()))?;
    let authority = Authority::create(trust_domain, now).map_err(authority_error)?;
    // The certificate last: it is what says that the authority is complete.
    write_atomically(&key_path, authority.key_pem().expose(), 0o600)?;
    write_atomically(&cert_path, authority.roots_pem(), 0o600)?;
    tracing::info!(%trust_domain, "made a self-signed root certificate");
    Ok(authority)
}

fn authority_error(error: pki::AuthorityError) -> ControlError {
    ControlError::Authority(error.to_string())
}

fn read(path: &Path) -> Result<String, ControlError> {
    std::fs::read_to_string(path).map_err(ControlError::io(path.display()))
}

/// Where no roots are given, the chain must end in one.
fn last_certificate(chain: &str) -> Result<String, ControlError> {
    let certificates = pki::pem::certificates(chain)
        .map_err(|error| ControlError::Authority(error.to_string()))?;
    match certificates.last() {
        Some(last) => Ok(pki::pem::encode_certificate(last)),
        None => Err(ControlError::Authority(
            "the file holds no certificate".to_owned(),
        )),
    }
}

/// Durable before it has its name: a crash leaves the old file or the new one.
pub(crate) fn write_atomically(path: &Path, text: &str, mode: u32) -> Result<(), ControlError> {
    let what = path.display().to_string();
    let directory = path.parent().unwrap_or(Path::new("."));
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    let write = || -> std::io::Result<()> {
        match std::fs::remove_file(&temporary) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&temporary)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)?;
        std::fs::File::open(directory)?.sync_all()
    };
    write().map_err(ControlError::io(what))
}

/// The certificate that new connections get.
#[derive(Debug)]
pub(crate) struct ServingCertificate {
    current: RwLock<Arc<CertifiedKey>>,
    names: Vec<String>,
}

impl ServingCertificate {
    pub fn issue(
        authority: &Authority,
        names: &[String],
        now: Timestamp,
    ) -> Result<(Arc<ServingCertificate>, Certificate), ControlError> {
        let mut names = names.to_vec();
        for name in LEGACY_NAMES {
            if !names.iter().any(|known| known == name) {
                names.push(name.to_owned());
            }
        }
        let (key, leaf) = issue(authority, &names, now)?;
        Ok((
            Arc::new(ServingCertificate {
                current: RwLock::new(key),
                names,
            }),
            leaf,
        ))
    }

    /// Renews until the drain starts.
    pub async fn rotate(
        self: Arc<Self>,
        authority: Arc<Authority>,
        mut leaf: Certificate,
        clock: Clock,
        drain: DrainWatch,
    ) {
        loop {
            let random = pki::rotation::random();
            let delay = Schedule::default();
            let delay = delay.delay(leaf.not_before, leaf.not_after, clock.now(), random);
            let pause = tokio::time::sleep(delay.max(Duration::from_secs(1)));
            if drain.unless_draining(pause).await.is_none() {
                return;
            }
            match issue(&authority, &self.names, clock.now()) {
                Ok((key, new)) => {
                    *self.current.write().unwrap_or_else(PoisonError::into_inner) = key;
                    leaf = new;
                }
                Err(error) => {
                    tracing::error!(%error, "the serving certificate could not be renewed");
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }
}

impl ResolvesServerCert for ServingCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(
            self.current
                .read()
                .unwrap_or_else(PoisonError::into_inner)
                .clone(),
        )
    }
}

fn issue(
    authority: &Authority,
    names: &[String],
    now: Timestamp,
) -> Result<(Arc<CertifiedKey>, Certificate), ControlError> {
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let identity = authority
        .issue_server(&names, &[], SERVING_TTL, now)
        .map_err(authority_error)?;
    let pki_error = |error: pki::PkiError| ControlError::Authority(error.to_string());
    let leaf = identity
        .chain
        .first()
        .ok_or_else(|| ControlError::Authority("the authority issued an empty chain".to_owned()))?;
    let leaf = Certificate::parse(leaf).map_err(pki_error)?;
    Ok((identity.certified_key().map_err(pki_error)?, leaf))
}

/// When the authority's certificates expire.
pub(crate) fn measure(authority: &Authority, metrics: &Metrics) {
    metrics
        .authority
        .chain_expiry
        .set(authority.not_after().as_second());
    if let Ok(root) = Certificate::parse_pem(authority.roots_pem()) {
        metrics
            .authority
            .root_expiry
            .set(root.not_after.as_second());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn the_root_is_kept_private_and_stays() {
        let folder = tempfile::tempdir().expect("a directory");
        let options = Options::new(folder.path());
        let domain = TrustDomain::new("cluster.local").expect("a domain");
        let first = load(&options, &domain, Timestamp::now()).expect("made");
        let again = load(&options, &domain, Timestamp::now()).expect("loaded");
        assert_eq!(first.roots_pem(), again.roots_pem(), "the same root");
        for (path, want) in [
            ("ca/ca-key.pem", 0o600),
            ("ca/ca-cert.pem", 0o600),
            ("ca", 0o700),
        ] {
            let mode = std::fs::metadata(folder.path().join(path))
                .expect("exists")
                .permissions();
            assert_eq!(mode.mode() & 0o777, want, "{path}");
        }
        let published = std::fs::read_to_string(folder.path().join("root-cert.pem"));
        assert_eq!(published.expect("published"), first.roots_pem());
    }

    #[test]
    fn a_plugged_in_authority_needs_both_files_that_fit() {
        let folder = tempfile::tempdir().expect("a directory");
        let domain = TrustDomain::new("td").expect("a domain");
        let path = |name: &str| folder.path().join(name);
        let first = Authority::create(&domain, Timestamp::now()).expect("made");
        let other = Authority::create(&domain, Timestamp::now()).expect("made");
        std::fs::write(path("cert"), first.roots_pem()).expect("writes");
        std::fs::write(path("key"), first.key_pem().expose()).expect("writes");
        std::fs::write(path("other"), other.key_pem().expose()).expect("writes");
        for (cert, key, want, why) in [
            (Some("cert"), Some("key"), true, "a pair"),
            (Some("cert"), Some("other"), false, "another key"),
            (Some("cert"), None, false, "no key"),
            (Some("key"), Some("key"), false, "no certificate"),
            (Some("missing"), Some("key"), false, "no such file"),
        ] {
            let mut options = Options::new(path("state"));
            std::fs::create_dir_all(&options.state_dir).expect("creates");
            options.ca_cert = cert.map(path);
            options.ca_key = key.map(path);
            assert_eq!(
                load(&options, &domain, Timestamp::now()).is_ok(),
                want,
                "{why}"
            );
        }
    }
}
