//! The status of an object: is it valid, and is it in force at every proxy? Kept apart from the
//! object itself; it is computed when asked for and never makes a generation.

use pilot::Status;
use pilot::snapshot::statuses::Reason;
use serde_json::{Value, json};

use crate::serve::proxies::Proxy;

/// Kubernetes-shaped: conditions, and messages as Istio's analysis writes them.
pub(crate) fn of_object(status: Option<&Status>, changed_at: u64, proxies: &[Proxy]) -> Value {
    let problems = status
        .map(|status| status.problems.as_slice())
        .unwrap_or_default();
    let mut conditions = vec![accepted(status), programmed(changed_at, proxies)];
    let of = |reason: Reason| {
        problems
            .iter()
            .filter(move |problem| problem.reason == reason)
    };
    for (reason, name) in [
        (Reason::Conflict, "Conflicted"),
        (Reason::MissingReference, "UnresolvedReference"),
        (Reason::NotPerformed, "NotPerformed"),
    ] {
        let messages: Vec<&str> = of(reason).map(|problem| problem.message.as_str()).collect();
        if !messages.is_empty() {
            conditions.push(condition(name, "True", name, &messages.join("; ")));
        }
    }
    let messages: Vec<Value> = problems
        .iter()
        .map(|problem| {
            let (name, level) = match problem.reason {
                Reason::Invalid => ("SchemaValidationError", "ERROR"),
                Reason::Conflict => ("ConflictingResource", "WARNING"),
                Reason::MissingReference => ("ReferencedResourceNotFound", "WARNING"),
                Reason::NotPerformed => ("NotPerformed", "WARNING"),
            };
            json!({"type": {"name": name}, "level": level, "message": problem.message})
        })
        .collect();
    json!({
        "observedGeneration": changed_at,
        "conditions": conditions,
        "validationMessages": messages,
    })
}

fn accepted(status: Option<&Status>) -> Value {
    let Some(status) = status else {
        return condition("Accepted", "Unknown", "NotSeen", "");
    };
    let invalid: Vec<&str> = status
        .problems
        .iter()
        .filter(|problem| problem.reason == Reason::Invalid)
        .map(|problem| problem.message.as_str())
        .collect();
    match (invalid.is_empty(), status.in_force) {
        (true, _) => condition("Accepted", "True", "Valid", ""),
        (false, true) => {
            let message = format!(
                "the last good version stays in force: {}",
                invalid.join("; ")
            );
            condition("Accepted", "False", "Invalid", &message)
        }
        (false, false) => condition("Accepted", "False", "Invalid", &invalid.join("; ")),
    }
}

/// A proxy that refuses something of the object's own generation blames the object.
fn programmed(changed_at: u64, proxies: &[Proxy]) -> Value {
    let refusals: Vec<String> = proxies
        .iter()
        .flat_map(|proxy| {
            let own = proxy
                .rejections
                .iter()
                .filter(|r| r.generation == changed_at);
            own.map(|r| format!("{} refuses {} {}: {}", proxy.id, r.kind, r.name, r.message))
        })
        .collect();
    if !refusals.is_empty() {
        return condition("Programmed", "False", "Rejected", &refusals.join("; "));
    }
    let synced = proxies
        .iter()
        .filter(|proxy| proxy.synced >= changed_at)
        .count();
    let message = format!("acknowledged by {synced} of {} proxies", proxies.len());
    // Refusals of other generations hold a proxy back too; that is not this object's fault.
    let is_pending = |proxy: &Proxy| {
        proxy.synced < changed_at && (proxy.rejections.is_empty() || !proxy.is_idle)
    };
    match proxies.iter().any(is_pending) {
        true => condition("Programmed", "Unknown", "Pending", &message),
        false => condition("Programmed", "True", "Acknowledged", &message),
    }
}

fn condition(name: &str, status: &str, reason: &str, message: &str) -> Value {
    json!({"type": name, "status": status, "reason": reason, "message": message})
}
