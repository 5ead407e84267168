//! RequestAuthentication: which JSON Web Tokens a workload accepts.

use std::time::Duration;

use super::selector::{PolicyTargetReference, WorkloadSelector};

message! {
    pub struct RequestAuthentication {
        selector: Option<WorkloadSelector>,
        target_ref: Option<PolicyTargetReference>,
        target_refs: Vec<PolicyTargetReference>,
        jwt_rules: Vec<JwtRule>,
    }
}

message! {
    pub struct JwtRule {
        issuer: String,
        audiences: Vec<String>,
        jwks_uri: String,
        jwks: String,
        from_headers: Vec<JwtHeader>,
        from_params: Vec<String>,
        from_cookies: Vec<String>,
        output_payload_to_header: String,
        output_claim_to_headers: Vec<ClaimToHeader>,
        forward_original_token: bool,
        timeout: Option<Duration>,
        space_delimited_claims: Vec<String>,
        presence: JwtPresence,
    }
}

enumeration! {
    pub enum JwtPresence { Optional = "OPTIONAL", Required = "REQUIRED" }
}

message! {
    pub struct JwtHeader {
        name: String,
        prefix: String,
    }
}

message! {
    pub struct ClaimToHeader {
        header: String,
        claim: String,
    }
}
