//! The columns of each kind, as its CRD's printer columns have them.
// tidy: table

use serde_json::Value;

/// A header and the path of the cell; `AGE` is computed.
pub type Column = (&'static str, &'static str);

const AGE: Column = ("AGE", "");

/// What follows NAME.
pub fn of(kind: &str, is_wide: bool) -> Vec<Column> {
    let mut columns: Vec<Column> = match kind {
        "VirtualService" => vec![
            ("GATEWAYS", "/spec/gateways"),
            ("HOSTS", "/spec/hosts"),
            AGE,
        ],
        "DestinationRule" => vec![("HOST", "/spec/host"), AGE],
        "ServiceEntry" => vec![
            ("HOSTS", "/spec/hosts"),
            ("LOCATION", "/spec/location"),
            ("RESOLUTION", "/spec/resolution"),
            AGE,
        ],
        "WorkloadEntry" => vec![AGE, ("ADDRESS", "/spec/address")],
        "PeerAuthentication" => vec![("MODE", "/spec/mtls/mode"), AGE],
        "AuthorizationPolicy" => vec![("ACTION", "/spec/action"), AGE],
        "Pod" => vec![
            ("READY", "/status/ready"),
            ("STATUS", "/status/status"),
            ("RESTARTS", "/status/restarts"),
            AGE,
        ],
        "Service" => vec![
            ("TYPE", "/spec/type"),
            ("CLUSTER-IP", "/spec/clusterIP"),
            ("EXTERNAL-IP", "/spec/externalIPs/0"),
            ("PORT(S)", "/status/ports"),
            AGE,
        ],
        "Deployment" => vec![
            ("READY", "/status/ready"),
            ("UP-TO-DATE", "/status/updatedReplicas"),
            ("AVAILABLE", "/status/availableReplicas"),
            AGE,
        ],
        "Namespace" => vec![("STATUS", "/status/phase"), AGE],
        _ => vec![AGE],
    };
    if is_wide {
        match kind {
            "Pod" => columns.extend([
                ("IP", "/status/podIP"),
                ("PROXY", "/status/proxy"),
                ("IDENTITY", "/status/identity"),
            ]),
            "Service" => columns.push(("SELECTOR", "/spec/selector")),
            "Deployment" | "Namespace" => {}
            _ => columns.push(("STATUS", "/status/conditions/0/type")),
        }
    }
    columns
}

/// The cell at a path: lists as kubectl's JSON, maps as `a=b,c=d`.
pub fn cell(item: &Value, path: &str) -> String {
    match item.pointer(path) {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Object(map)) => {
            let pair = |(key, value): (&String, &Value)| {
                format!("{key}={}", value.as_str().unwrap_or_default())
            };
            map.iter().map(pair).collect::<Vec<_>>().join(",")
        }
        Some(other) => other.to_string(),
    }
}
