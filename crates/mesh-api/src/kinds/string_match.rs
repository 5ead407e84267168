//! How a string of a request is compared.

use serde_json::{Value as Json, json};

use crate::decode::{Decode, Decoder, Encode, json_name};
use crate::node::Node;

/// `{exact|prefix|regex: …}`; `{}` (or an empty value) only asks for presence.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum StringMatch {
    Exact(String),
    Prefix(String),
    /// RE2, matching the whole string.
    Regex(String),
    #[default]
    Present,
}

impl StringMatch {
    pub const MEMBERS: [&'static str; 3] = ["exact", "prefix", "regex"];
}

impl Decode for StringMatch {
    fn decode(node: &Node, decoder: &mut Decoder) -> Option<Self> {
        let mut out: Option<StringMatch> = None;
        for entry in decoder.members(node)? {
            let make: fn(String) -> StringMatch = match json_name(&entry.key).as_str() {
                "exact" => StringMatch::Exact,
                "prefix" => StringMatch::Prefix,
                "regex" => StringMatch::Regex,
                _ => {
                    let names = || Self::MEMBERS.map(str::to_owned).to_vec();
                    decoder.unknown_field(entry, names);
                    continue;
                }
            };
            let value: Option<Option<String>> = decoder.field(entry);
            if let Some(value) = value.flatten() {
                if out.is_some() {
                    decoder.both_set(entry, &Self::MEMBERS);
                }
                out = Some(make(value));
            }
        }
        Some(out.unwrap_or_default())
    }
}

impl Encode for StringMatch {
    fn encode(&self) -> Json {
        match self {
            StringMatch::Exact(value) => json!({ "exact": value }),
            StringMatch::Prefix(value) => json!({ "prefix": value }),
            StringMatch::Regex(value) => json!({ "regex": value }),
            StringMatch::Present => json!({}),
        }
    }
}

impl serde::Serialize for StringMatch {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.encode().serialize(serializer)
    }
}
