//! The signing authority: a self-signed root, or one plugged in; issues what Istio's would.

use std::time::Duration;

use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PublicKeyData, SanType, SerialNumber,
};
use rustls_pki_types::CertificateDer;

use crate::key::Secret;
use crate::tls::Identity;
use crate::{
    Certificate, Key, PkiError, SpiffeId, TrustDomain, certificate, csr, key, pem, signature,
};

/// A workload certificate's life when nothing is asked for.
pub const DEFAULT_TTL: Duration = Duration::from_secs(24 * 3600);
/// The longest life that may be asked for.
pub const MAX_TTL: Duration = Duration::from_secs(90 * 24 * 3600);
const ROOT_TTL: Duration = Duration::from_secs(3650 * 24 * 3600);
/// Certificates are valid from a little before now, for clocks that are late.
const CLOCK_SKEW: Duration = Duration::from_secs(120);

/// Variants say who is to blame, as the CSR service must answer.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// The caller's request cannot be signed.
    #[error("{0}")]
    Request(#[source] PkiError),
    #[error("the requested life of {asked:?} is longer than the longest allowed, {MAX_TTL:?}")]
    Ttl { asked: Duration },
    /// The operator gave something that cannot be an authority.
    #[error("cannot be used as an authority: {0}")]
    Load(String),
    #[error("the authority's own certificate expired at {0}")]
    Expired(Timestamp),
    #[error("cannot make a certificate: {0}")]
    Generate(String),
}

pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    key_pem: Secret,
    /// The signing certificate, then what leads from it towards the root, without the root.
    chain: Vec<CertificateDer<'static>>,
    is_self_signed: bool,
    not_after: Timestamp,
    roots_pem: String,
}

impl Authority {
    /// A new self-signed root for the trust domain.
    pub fn create(trust_domain: &TrustDomain, now: Timestamp) -> Result<Authority, AuthorityError> {
        let key = Key::generate().map_err(generate)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::OrganizationName, trust_domain.as_str());
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.serial_number = Some(serial()?);
        set_validity(&mut params, now, now + ROOT_TTL)?;
        let certificate = params.self_signed(&key.pair).map_err(generate)?;
        let root = pem::encode_certificate(certificate.der());
        Authority::load(&root, key.to_pem().expose(), &root)
    }

    /// An authority from PEM: the signing certificate first, then its chain; its key; the roots.
    pub fn load(
        chain_pem: &str,
        key_pem: &str,
        roots_pem: &str,
    ) -> Result<Authority, AuthorityError> {
        let load = |error: PkiError| AuthorityError::Load(error.to_string());
        let mut chain = pem::certificates(chain_pem).map_err(load)?;
        let roots = pem::certificates(roots_pem).map_err(load)?;
        let key = Key::from_pem(key_pem).map_err(load)?;
        check_signer(&chain[0], &key)?;
        check_chain(&chain, &roots)?;
        let signer = Certificate::parse(&chain[0]).map_err(load)?;
        let is_self_signed = is_self_issued(&chain[0]);
        // The root itself is sent in its own place, last.
        let signing = chain.remove(0);
        chain.retain(|certificate| !roots.contains(certificate));
        chain.insert(0, signing);
        let key_pem = key.to_pem();
        let issuer = Issuer::from_ca_cert_der(&chain[0], key.pair)
            .map_err(|error| AuthorityError::Load(error.to_string()))?;
        let authority = Authority {
            issuer,
            key_pem,
            chain,
            is_self_signed,
            not_after: signer.not_after,
            roots_pem: pem::encode_certificates(&roots),
        };
        authority.check_issuer_name()?;
        Ok(authority)
    }

    /// Signs a request for these identities and answers as CreateCertificate does: the leaf, the
    /// intermediates one by one, the roots in one element. A zero `ttl` asks for the default.
    pub fn sign(
        &self,
        csr_pem: &str,
        ids: &[SpiffeId],
        ttl: Duration,
        now: Timestamp,
    ) -> Result<Vec<String>, AuthorityError> {
        let key = csr::public_key(csr_pem).map_err(AuthorityError::Request)?;
        if ids.is_empty() {
            let error = PkiError::Request("no identity to certify".to_string());
            return Err(AuthorityError::Request(error));
        }
        let names = ids
            .iter()
            .map(|id| uri(&id.to_string()))
            .collect::<Result<_, _>>()?;
        let leaf = self.issue(&key, names, ttl, now)?;
        let mut answer = vec![pem::encode_certificate(&leaf)];
        answer.extend(self.intermediates().map(|der| pem::encode_certificate(der)));
        answer.push(self.roots_pem.clone());
        Ok(answer)
    }

    /// A key and certificate for a server of ours (the control plane's own).
    pub fn issue_server(
        &self,
        dns_names: &[&str],
        ids: &[SpiffeId],
        ttl: Duration,
        now: Timestamp,
    ) -> Result<Identity, AuthorityError> {
        let key = Key::generate().map_err(generate)?;
        let mut names = Vec::new();
        for name in dns_names {
            names.push(match name.parse() {
                Ok(address) => SanType::IpAddress(address),
                Err(_) => SanType::DnsName((*name).try_into().map_err(generate)?),
            });
        }
        for id in ids {
            names.push(uri(&id.to_string())?);
        }
        let leaf = self.issue(&key.pair, names, ttl, now)?;
        let chain = std::iter::once(leaf)
            .chain(self.intermediates().cloned())
            .collect();
        Ok(Identity { chain, key })
    }

    pub fn roots_pem(&self) -> &str {
        &self.roots_pem
    }

    /// The signing certificate and its chain, to be stored beside the key.
    pub fn chain_pem(&self) -> String {
        pem::encode_certificates(&self.chain)
    }

    pub fn key_pem(&self) -> &Secret {
        &self.key_pem
    }

    pub fn not_after(&self) -> Timestamp {
        self.not_after
    }

    fn intermediates(&self) -> impl Iterator<Item = &CertificateDer<'static>> {
        let skipped = if self.is_self_signed {
            self.chain.len()
        } else {
            0
        };
        self.chain.iter().skip(skipped)
    }

    fn issue(
        &self,
        key: &impl PublicKeyData,
        names: Vec<SanType>,
        ttl: Duration,
        now: Timestamp,
    ) -> Result<CertificateDer<'static>, AuthorityError> {
        let ttl = if ttl.is_zero() { DEFAULT_TTL } else { ttl };
        if ttl > MAX_TTL {
            return Err(AuthorityError::Ttl { asked: ttl });
        }
        if self.not_after <= now {
            return Err(AuthorityError::Expired(self.not_after));
        }
        let mut params = CertificateParams::default();
        // An empty subject also makes the SAN extension critical, as it must be then.
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = names;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![
            KeyUsagePurpose::DigitalSignature,
            KeyUsagePurpose::KeyEncipherment,
        ];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        params.use_authority_key_identifier_extension = true;
        params.serial_number = Some(serial()?);
        set_validity(&mut params, now, (now + ttl).min(self.not_after))?;
        Ok(params
            .signed_by(key, &self.issuer)
            .map_err(generate)?
            .into())
    }

    /// Issuer and subject must be equal byte for byte; a name in an odd encoding would not be.
    fn check_issuer_name(&self) -> Result<(), AuthorityError> {
        let load = |error: PkiError| AuthorityError::Load(error.to_string());
        let mut params = CertificateParams::default();
        params.serial_number = Some(serial()?);
        let probe = params
            .signed_by(self.issuer.key(), &self.issuer)
            .map_err(generate)?;
        let leaf = certificate::parse_x509(probe.der()).map_err(load)?;
        let signer = certificate::parse_x509(&self.chain[0]).map_err(load)?;
        if leaf.issuer().as_raw() != signer.subject().as_raw() {
            let text = "its subject has an encoding that cannot be reproduced".to_string();
            return Err(AuthorityError::Load(text));
        }
        Ok(())
    }
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Authority(until {})", self.not_after)
    }
}

fn check_signer(der: &CertificateDer<'_>, key: &Key) -> Result<(), AuthorityError> {
    let load = |text: &str| AuthorityError::Load(text.to_string());
    let signer =
        certificate::parse_x509(der).map_err(|error| AuthorityError::Load(error.to_string()))?;
    if signer.public_key().raw != key.public_key_info() {
        return Err(load("the key does not belong to the certificate"));
    }
    let usage = signer
        .key_usage()
        .map_err(|_| load("its key usage cannot be read"))?;
    if !signer.is_ca() || usage.is_some_and(|usage| !usage.value.key_cert_sign()) {
        return Err(load(
            "the certificate is not allowed to sign others (CA, keyCertSign)",
        ));
    }
    Ok(())
}

/// Each certificate must be signed by the next, the last by a root (or be one).
fn check_chain(
    chain: &[CertificateDer<'_>],
    roots: &[CertificateDer<'_>],
) -> Result<(), AuthorityError> {
    for pair in chain.windows(2) {
        if !is_signed_by(&pair[0], &pair[1]) {
            let text = "a certificate of the chain is not signed by the next one";
            return Err(AuthorityError::Load(text.to_string()));
        }
    }
    let last = chain
        .last()
        .expect("BUG: pem::certificates gives at least one");
    if !roots.contains(last) && !roots.iter().any(|root| is_signed_by(last, root)) {
        let text = "the chain does not lead to one of the roots";
        return Err(AuthorityError::Load(text.to_string()));
    }
    Ok(())
}

fn is_signed_by(subject: &CertificateDer<'_>, issuer: &CertificateDer<'_>) -> bool {
    let (Ok(subject), Ok(issuer)) = (
        certificate::parse_x509(subject),
        certificate::parse_x509(issuer),
    ) else {
        return false;
    };
    subject.issuer().as_raw() == issuer.subject().as_raw()
        && signature::verify(
            issuer.public_key(),
            &subject.signature_algorithm,
            subject.tbs_certificate.as_ref(),
            &subject.signature_value.data,
        )
        .is_ok()
}

fn is_self_issued(der: &CertificateDer<'_>) -> bool {
    is_signed_by(der, der)
}

fn set_validity(
    params: &mut CertificateParams,
    now: Timestamp,
    not_after: Timestamp,
) -> Result<(), AuthorityError> {
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let at = |time: Timestamp| {
        let seconds = u64::try_from(time.as_second()).map_err(generate)?;
        Ok::<_, AuthorityError>(epoch + Duration::from_secs(seconds))
    };
    params.not_before = at(now - CLOCK_SKEW)?;
    params.not_after = at(not_after)?;
    Ok(())
}

fn serial() -> Result<SerialNumber, AuthorityError> {
    Ok(SerialNumber::from_slice(
        &key::random::<16>().map_err(generate)?,
    ))
}

fn uri(text: &str) -> Result<SanType, AuthorityError> {
    Ok(SanType::URI(text.try_into().map_err(generate)?))
}

fn generate(error: impl std::fmt::Display) -> AuthorityError {
    AuthorityError::Generate(error.to_string())
}

#[cfg(test)]
mod tests;
