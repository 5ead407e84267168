//! What a finished handshake tells: the peer's certificate and ours, in words for logs and policy.
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pki::Certificate;
use rustls::CommonState;
use rustls_pki_types::CertificateDer;

use super::build::openssl_name;
use super::verify::sha256_hex;
use crate::stream_info::TlsPeer;

/// Ours, parsed once per context.
#[derive(Debug, Default)]
pub struct LocalCertificate {
    uri_sans: Vec<String>,
    dns_sans: Vec<String>,
    subject: String,
}

impl LocalCertificate {
    pub fn of(leaf: Option<&CertificateDer<'_>>) -> LocalCertificate {
        match leaf.and_then(|leaf| Certificate::parse(leaf).ok()) {
            Some(parsed) => LocalCertificate {
                uri_sans: parsed.uri_sans,
                dns_sans: parsed.dns_sans,
                subject: parsed.subject,
            },
            None => LocalCertificate::default(),
        }
    }
}

/// `verifies`: the context has roots, so a certificate that is there was verified.
pub fn describe(session: &CommonState, verifies: bool, local: &LocalCertificate) -> Arc<TlsPeer> {
    let mut peer = TlsPeer {
        local_uri_sans: local.uri_sans.clone(),
        local_dns_sans: local.dns_sans.clone(),
        local_subject: local.subject.clone(),
        version: match session.protocol_version() {
            Some(rustls::ProtocolVersion::TLSv1_3) => "TLSv1.3",
            Some(rustls::ProtocolVersion::TLSv1_2) => "TLSv1.2",
            _ => "",
        },
        cipher: session
            .negotiated_cipher_suite()
            .map_or("", |suite| openssl_name(suite.suite())),
        alpn: session.alpn_protocol().map(<[u8]>::to_vec),
        ..TlsPeer::default()
    };
    let leaf = session.peer_certificates().and_then(<[_]>::first);
    if let Some((leaf, Ok(parsed))) = leaf.map(|leaf| (leaf, Certificate::parse(leaf))) {
        peer.verified = verifies;
        peer.uri_sans = parsed.uri_sans;
        peer.dns_sans = parsed.dns_sans;
        peer.subject = parsed.subject;
        peer.issuer = parsed.issuer;
        peer.serial = parsed.serial;
        peer.not_before = system_time(parsed.not_before.as_second());
        peer.not_after = system_time(parsed.not_after.as_second());
        peer.fingerprint_sha256 = sha256_hex(leaf);
        peer.certificate = leaf.to_vec();
    }
    Arc::new(peer)
}

fn system_time(seconds: i64) -> Option<SystemTime> {
    u64::try_from(seconds)
        .ok()
        .map(|seconds| UNIX_EPOCH + Duration::from_secs(seconds))
}
