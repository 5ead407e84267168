//! RequestAuthentication.

use serde_json::Value as Json;

use super::selector::{self, Targets};
use super::{Check, values};
use crate::kinds::request_authentication::{JwtRule, RequestAuthentication};

pub fn check(c: &mut Check<'_>, spec: &RequestAuthentication) {
    super::authorization_policy::refuse_dry_run(c);
    let targets = Targets {
        selector: spec.selector.as_ref(),
        target_ref: spec.target_ref.as_ref(),
        target_refs: &spec.target_refs,
    };
    selector::check_targets(c, &targets);
    c.each("jwtRules", &spec.jwt_rules, check_rule);
}

fn check_rule(c: &mut Check<'_>, rule: &JwtRule) {
    if rule.issuer.is_empty() && rule.jwks_uri.is_empty() && rule.jwks.is_empty() {
        c.error("issuer", "issuer or jwksUri must be set");
    }
    if !rule.jwks_uri.is_empty() && !rule.jwks.is_empty() {
        c.error("jwks", "cannot stand beside jwksUri");
    }
    if !rule.jwks_uri.is_empty() {
        c.verify("jwksUri", values::url(&rule.jwks_uri, &["http", "https"]));
    }
    if !rule.jwks.is_empty() {
        check_jwks(c, &rule.jwks);
    }
    not_empty(c, "audiences", &rule.audiences);
    not_empty(c, "fromParams", &rule.from_params);
    not_empty(c, "fromCookies", &rule.from_cookies);
    not_empty(c, "spaceDelimitedClaims", &rule.space_delimited_claims);
    c.each("fromHeaders", &rule.from_headers, |c, header| {
        c.verify("name", values::header_name(&header.name));
    });
    c.each(
        "outputClaimToHeaders",
        &rule.output_claim_to_headers,
        |c, output| {
            c.verify("header", values::strict_header_name(&output.header));
            if output.claim.is_empty() {
                c.error("claim", "must be set");
            }
        },
    );
    if let Some(timeout) = rule.timeout {
        c.verify("timeout", values::duration(timeout));
    }
}

fn not_empty(c: &mut Check<'_>, field: &str, list: &[String]) {
    c.each(field, list, |c, entry| {
        if entry.is_empty() {
            c.error("", "must not be empty");
        }
    });
}

fn check_jwks(c: &mut Check<'_>, text: &str) {
    let parsed: Result<Json, _> = serde_json::from_str(text);
    let keys = parsed
        .as_ref()
        .ok()
        .and_then(|set| set.get("keys"))
        .and_then(Json::as_array);
    match keys {
        None => c.error("jwks", "is not a JSON Web Key Set"),
        Some(keys) => {
            if keys
                .iter()
                .any(|key| key.get("kty").and_then(Json::as_str).is_none())
            {
                c.error("jwks", "holds a key without a type (kty)");
            }
            let secret = |key: &Json| {
                key.get("d").is_some() || key.get("kty").and_then(Json::as_str) == Some("oct")
            };
            if keys.iter().any(secret) {
                c.warn(
                    "jwks",
                    "holds a private key; only the public part belongs here",
                );
            }
        }
    }
}
