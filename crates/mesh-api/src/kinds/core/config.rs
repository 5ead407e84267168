//! ConfigMap and Secret.

use std::collections::BTreeMap;

message! {
    pub struct ConfigMap {
        data: BTreeMap<String, String>,
        /// Base64, as in the document.
        binary_data: BTreeMap<String, String>,
        immutable: Option<bool>,
    }
}

message! {
    pub struct Secret {
        /// Base64, as in the document.
        data: BTreeMap<String, String>,
        string_data: BTreeMap<String, String>,
        r#type: String,
        immutable: Option<bool>,
    }
}
