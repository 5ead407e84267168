//! `/ready`, `/server_info`, `/memory`, `/certs`, `/runtime`.

use std::time::{Duration, SystemTime};

use envoy_api::{admin, tls};
use prost::Message as _;
use serde_json::{Value, json};

use super::picture::timestamp;
use super::{Answer, Picture, TEXT, message_json};

/// The Envoy whose API this proxy speaks.
pub const ENVOY_VERSION: &str = "1.40.0";

fn state(picture: &Picture) -> admin::server_info::State {
    if picture.draining || picture.failed {
        admin::server_info::State::Draining
    } else if picture.ready {
        admin::server_info::State::Live
    } else {
        admin::server_info::State::Initializing
    }
}

/// `server.state` in the statistics.
pub fn state_number(picture: &Picture) -> u64 {
    u64::try_from(state(picture) as i32).unwrap_or(0)
}

pub fn ready(picture: &Picture) -> Answer {
    let state = state(picture);
    let status = if state == admin::server_info::State::Live {
        200
    } else {
        503
    };
    let body = format!("{}\n", state.as_str_name());
    Answer {
        status,
        content_type: TEXT,
        body,
    }
}

fn duration(duration: Duration) -> prost_types::Duration {
    let seconds = i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
    prost_types::Duration { seconds, nanos: 0 }
}

pub fn info(picture: &Picture) -> Answer {
    let uptime = SystemTime::now()
        .duration_since(picture.started)
        .unwrap_or_default();
    let options = admin::CommandLineOptions {
        concurrency: u32::try_from(picture.concurrency).unwrap_or(0),
        drain_time: Some(duration(picture.drain_time)),
        ..Default::default()
    };
    let version = env!("CARGO_PKG_VERSION");
    let mut json = message_json(&admin::ServerInfo {
        version: format!("stolos-{version}/{ENVOY_VERSION}/Clean/RELEASE/rustls"),
        state: state(picture) as i32,
        uptime_current_epoch: Some(duration(uptime)),
        uptime_all_epochs: Some(duration(uptime)),
        hot_restart_version: "disabled".to_owned(),
        command_line_options: Some(options),
        node: picture.bootstrap.node.clone(),
        hot_restart_initializing: false,
    });
    // Envoy writes it even where it is the default.
    json["state"] = state(picture).as_str_name().into();
    Answer::json(&json)
}

/// Resident and virtual bytes of this process.
pub fn memory_bytes() -> (u64, u64) {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let mut pages = text
        .split_whitespace()
        .filter_map(|field| field.parse::<u64>().ok());
    const PAGE: u64 = 4096;
    let size = pages.next().unwrap_or(0) * PAGE;
    let resident = pages.next().unwrap_or(0) * PAGE;
    (resident, size)
}

pub fn memory() -> Answer {
    let (resident, _) = memory_bytes();
    let text = |value: u64| Value::from(value.to_string());
    Answer::json(&json!({
        "allocated": text(resident),
        "heap_size": text(resident),
        "pageheap_unmapped": "0",
        "pageheap_free": "0",
        "total_thread_cache": "0",
        "total_physical_bytes": text(resident),
    }))
}

pub fn runtime(picture: &Picture) -> Answer {
    let entries: serde_json::Map<String, Value> = picture
        .runtime
        .iter()
        .map(|(key, value)| {
            (
                key.clone(),
                json!({ "layer_values": [value], "final_value": value }),
            )
        })
        .collect();
    let layers: Vec<&str> = if entries.is_empty() {
        Vec::new()
    } else {
        vec!["static"]
    };
    Answer::json(&json!({ "layers": layers, "entries": entries }))
}

/// The certificates of all secrets.
pub fn certificates(picture: &Picture) -> Answer {
    let mut list = Vec::new();
    for secret in &picture.secrets {
        let Ok(message) = tls::Secret::decode(secret.raw.body.clone()) else {
            continue;
        };
        let mut one = admin::Certificate::default();
        match message.r#type {
            Some(tls::secret::Type::TlsCertificate(certificate)) => {
                one.cert_chain = details(certificate.certificate_chain.as_ref());
            }
            Some(tls::secret::Type::ValidationContext(context)) => {
                one.ca_cert = details(context.trusted_ca.as_ref());
            }
            _ => continue,
        }
        list.push(one);
    }
    Answer::json(&message_json(&admin::Certificates { certificates: list }))
}

fn details(source: Option<&envoy_api::core::DataSource>) -> Vec<admin::CertificateDetails> {
    use crate::parse::tls::DataSource;
    let mut context = crate::parse::Context::new();
    let source = source.and_then(|source| crate::parse::tls::data_source(&mut context, source));
    let path = match &source {
        Some(DataSource::File(path)) => path.display().to_string(),
        _ => "<inline>".to_owned(),
    };
    let Some(bytes) = source.and_then(|source| source.read().ok()) else {
        return Vec::new();
    };
    let pems = x509_parser::pem::Pem::iter_from_buffer(&bytes);
    pems.filter_map(Result::ok)
        .filter_map(|pem| pem.parse_x509().ok().map(|one| certificate(&one, &path)))
        .collect()
}

fn certificate(
    one: &x509_parser::certificate::X509Certificate<'_>,
    path: &str,
) -> admin::CertificateDetails {
    use admin::subject_alternate_name::Name;
    use x509_parser::extensions::GeneralName;
    let at = |seconds: i64| {
        SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
    };
    let validity = one.validity();
    let end = at(validity.not_after.timestamp());
    let left = end.duration_since(SystemTime::now()).unwrap_or_default();
    let names = one.subject_alternative_name().ok().flatten();
    let names = names
        .map(|names| &names.value.general_names[..])
        .unwrap_or_default();
    let subject_alt_names = names
        .iter()
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some(Name::Dns((*name).to_owned())),
            GeneralName::URI(name) => Some(Name::Uri((*name).to_owned())),
            _ => None,
        })
        .map(|name| admin::SubjectAlternateName { name: Some(name) })
        .collect();
    admin::CertificateDetails {
        path: path.to_owned(),
        serial_number: one.tbs_certificate.raw_serial_as_string().replace(':', ""),
        subject_alt_names,
        days_until_expiration: left.as_secs() / 86_400,
        valid_from: Some(timestamp(at(validity.not_before.timestamp()))),
        expiration_time: Some(timestamp(end)),
        ocsp_details: None,
    }
}
