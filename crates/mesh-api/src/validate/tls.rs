//! TLS settings of clients and servers.

use std::collections::BTreeSet;

use super::{Check, values};
use crate::kinds::tls_settings::{
    ClientTlsMode, ClientTlsSettings, ServerTlsMode, ServerTlsSettings, TlsProtocol,
};

pub fn check_client(c: &mut Check<'_>, tls: &ClientTlsSettings) {
    let (simple, mutual) = (
        tls.mode == ClientTlsMode::Simple,
        tls.mode == ClientTlsMode::Mutual,
    );
    if tls.insecure_skip_verify == Some(true) {
        let verified_by = [
            (
                "caCertificates",
                !tls.ca_certificates.is_empty() && (simple || mutual),
            ),
            ("credentialName", !tls.credential_name.is_empty() && simple),
            (
                "subjectAltNames",
                !tls.subject_alt_names.is_empty() && (simple || mutual),
            ),
        ];
        for (field, used) in verified_by {
            if used {
                c.error(field, "cannot stand beside insecureSkipVerify");
            }
        }
    }
    let files = [
        ("clientCertificate", &tls.client_certificate),
        ("privateKey", &tls.private_key),
        ("caCertificates", &tls.ca_certificates),
        ("caCrl", &tls.ca_crl),
    ];
    if (simple || mutual) && !tls.credential_name.is_empty() {
        for (field, _) in files.iter().filter(|(_, value)| !value.is_empty()) {
            c.error(field, "cannot stand beside credentialName");
        }
        return;
    }
    if mutual {
        for (field, value) in &files[..2] {
            if value.is_empty() {
                c.error(field, "mode MUTUAL needs it");
            }
        }
    }
}

/// Envoy's cipher suites for TLS 1.2 and below.
const CIPHERS: [&str; 18] = [
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-CHACHA20-POLY1305",
    "ECDHE-RSA-CHACHA20-POLY1305",
    "ECDHE-PSK-CHACHA20-POLY1305",
    "ECDHE-ECDSA-AES128-SHA",
    "ECDHE-RSA-AES128-SHA",
    "ECDHE-PSK-AES128-CBC-SHA",
    "ECDHE-ECDSA-AES256-SHA",
    "ECDHE-RSA-AES256-SHA",
    "ECDHE-PSK-AES256-CBC-SHA",
    "AES128-GCM-SHA256",
    "AES256-GCM-SHA384",
    "AES128-SHA",
    "AES256-SHA",
    "DES-CBC3-SHA",
];

pub fn check_server(c: &mut Check<'_>, tls: &ServerTlsSettings) {
    check_ciphers(c, tls);
    let mode = tls.mode;
    if mode == ServerTlsMode::IstioMutual {
        for (field, used) in sources(tls) {
            if used {
                c.error(field, "mode ISTIO_MUTUAL brings its own certificates");
            }
        }
        return;
    }
    let mutual = matches!(mode, ServerTlsMode::Mutual | ServerTlsMode::OptionalMutual);
    let lists = [
        ("tlsCertificates", !tls.tls_certificates.is_empty()),
        ("credentialNames", !tls.credential_names.is_empty()),
        ("credentialName", !tls.credential_name.is_empty()),
    ];
    let given: Vec<&str> = lists
        .iter()
        .filter(|(_, used)| *used)
        .map(|(field, _)| *field)
        .collect();
    if given.len() > 1 {
        c.error(given[1], format!("cannot stand beside {}", given[0]));
    }
    if !tls.tls_certificates.is_empty() && !tls.server_certificate.is_empty() {
        c.error("serverCertificate", "cannot stand beside tlsCertificates");
    }
    check_count(c, "credentialNames", tls.credential_names.len());
    check_count(c, "tlsCertificates", tls.tls_certificates.len());
    if !tls.ca_crl.is_empty() {
        if mode == ServerTlsMode::Simple {
            c.error("caCrl", "mode SIMPLE does not look at client certificates");
        } else if !tls.credential_name.is_empty() || !tls.credential_names.is_empty() {
            c.error("caCrl", "cannot stand beside credentialName");
        }
    }
    if mode == ServerTlsMode::Simple || mutual {
        check_needed(c, tls, mutual);
    }
}

fn sources(tls: &ServerTlsSettings) -> [(&'static str, bool); 6] {
    [
        ("serverCertificate", !tls.server_certificate.is_empty()),
        ("privateKey", !tls.private_key.is_empty()),
        ("caCertificates", !tls.ca_certificates.is_empty()),
        ("credentialName", !tls.credential_name.is_empty()),
        ("credentialNames", !tls.credential_names.is_empty()),
        ("tlsCertificates", !tls.tls_certificates.is_empty()),
    ]
}

fn check_count(c: &mut Check<'_>, field: &str, count: usize) {
    if count > 2 {
        c.not_allowed(field, "has too many entries", "1 or 2");
    }
}

fn check_needed(c: &mut Check<'_>, tls: &ServerTlsSettings, mutual: bool) {
    if !tls.credential_name.is_empty() || !tls.credential_names.is_empty() {
        return;
    }
    if tls.tls_certificates.is_empty() {
        for (field, value) in [
            ("serverCertificate", &tls.server_certificate),
            ("privateKey", &tls.private_key),
        ] {
            if value.is_empty() {
                c.error(field, "this TLS mode needs it, or credentialName");
            }
        }
    }
    c.each(
        "tlsCertificates",
        &tls.tls_certificates,
        |c, certificate| {
            for (field, value) in [
                ("serverCertificate", &certificate.server_certificate),
                ("privateKey", &certificate.private_key),
            ] {
                if value.is_empty() {
                    c.error(field, "must be set");
                }
            }
        },
    );
    let no_ca = tls.ca_certificates.is_empty() && tls.ca_cert_credential_name.is_empty();
    if mutual && no_ca && tls.insecure_skip_verify != Some(true) {
        c.error(
            "caCertificates",
            "this TLS mode needs it, or credentialName",
        );
    }
}

fn check_ciphers(c: &mut Check<'_>, tls: &ServerTlsSettings) {
    let mut seen = BTreeSet::new();
    c.each("cipherSuites", &tls.cipher_suites, |c, cipher| {
        if !CIPHERS.contains(&cipher.as_str()) {
            c.warn(
                "",
                format!("{:?} is not known and ignored", values::cut(cipher)),
            );
        } else if !seen.insert(cipher.clone()) {
            c.warn("", "is given twice");
        }
    });
    let old = matches!(
        tls.min_protocol_version,
        TlsProtocol::V1_0 | TlsProtocol::V1_1
    );
    if old && tls.cipher_suites.is_empty() {
        c.warn(
            "minProtocolVersion",
            "below TLS 1.2 cipherSuites must be given to be of use",
        );
    }
    let (low, high) = (tls.min_protocol_version, tls.max_protocol_version);
    if high != TlsProtocol::Auto && low > high {
        c.error("minProtocolVersion", "is above maxProtocolVersion");
    }
}
