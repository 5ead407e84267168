//! Namespace and ServiceAccount.

use super::Opaque;

message! {
    pub struct Namespace {
        finalizers: Vec<String>,
    }
}

message! {
    pub struct ServiceAccount {
        secrets: Opaque,
        image_pull_secrets: Opaque,
        automount_service_account_token: Option<bool>,
    }
}
