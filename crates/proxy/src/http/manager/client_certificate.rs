//! The x-forwarded-client-cert header: what the next hop learns of the peer's certificate, and
//! nothing that a client made up.
use crate::http::headers::Headers;
use crate::parse::http_connection_manager::{ClientCertDetails, ForwardClientCert};
use crate::stream_info::{Connection, TlsPeer};

const NAME: &str = "x-forwarded-client-cert";

pub fn apply(
    headers: &mut Headers,
    connection: &Connection,
    mode: ForwardClientCert,
    details: ClientCertDetails,
) {
    if mode == ForwardClientCert::AlwaysForwardOnly {
        return;
    }
    let peer = connection
        .tls
        .as_deref()
        .filter(|peer| !peer.certificate.is_empty());
    let Some(peer) = peer.filter(|_| mode != ForwardClientCert::Sanitize) else {
        headers.remove(NAME);
        return;
    };
    if mode == ForwardClientCert::ForwardOnly {
        return;
    }
    let element = element(peer, details);
    if mode == ForwardClientCert::AppendForward
        && let Some(present) = headers.joined(NAME)
    {
        let joined = [&present, &b","[..], element.as_bytes()].concat();
        headers.set(NAME, &joined);
        return;
    }
    headers.set(NAME, element.as_bytes());
}

fn element(peer: &TlsPeer, details: ClientCertDetails) -> String {
    let mut parts: Vec<String> = Vec::with_capacity(6);
    if let Some(uri) = peer.local_uri_sans.first() {
        parts.push(format!("By={uri}"));
    }
    parts.push(format!("Hash={}", peer.fingerprint_sha256));
    if details.cert {
        let pem = pki::pem::encode_certificate(&peer.certificate);
        parts.push(format!("Cert=\"{}\"", percent_encode(&pem)));
    }
    if details.chain {
        let pem = pki::pem::encode_certificate(&peer.certificate);
        parts.push(format!("Chain=\"{}\"", percent_encode(&pem)));
    }
    if details.subject {
        parts.push(format!("Subject=\"{}\"", peer.subject));
    }
    if details.dns {
        parts.extend(peer.dns_sans.iter().map(|name| format!("DNS={name}")));
    }
    if details.uri {
        if peer.uri_sans.is_empty() {
            parts.push("URI=".to_owned());
        }
        parts.extend(peer.uri_sans.iter().map(|name| format!("URI={name}")));
    }
    parts.join(";")
}

fn percent_encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len() * 2);
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                out.push(byte as char);
            }
            byte => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}
