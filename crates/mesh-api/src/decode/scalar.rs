//! Numbers, strings, booleans, durations, enumerations and free-form values.

use std::time::Duration;

use serde_json::Value as Json;

use super::{Decode, Decoder, Encode, format_duration, nearest, parse_duration};
use crate::node::{Node, Value};

impl Decode for String {
    const NULL_IN_MAP: bool = true;

    fn decode(node: &Node, decoder: &mut Decoder) -> Option<Self> {
        match &node.value {
            Value::String(text) => Some(text.clone()),
            Value::Null => Some(String::new()),
            Value::Number(_) | Value::Bool(_) => {
                let message = format!("expected a string, found {} (quote it)", node.sort());
                decoder.bad_value(node, message, None);
                None
            }
            _ => {
                decoder.wrong_type(node, "a string");
                None
            }
        }
    }
}

impl Decode for bool {
    fn decode(node: &Node, decoder: &mut Decoder) -> Option<Self> {
        match node.value {
            Value::Bool(value) => Some(value),
            Value::Null => Some(false),
            _ => {
                decoder.wrong_type(node, "true or false");
                None
            }
        }
    }
}

impl Decode for f64 {
    fn decode(node: &Node, decoder: &mut Decoder) -> Option<Self> {
        match &node.value {
            Value::Number(number) => number.as_f64(),
            Value::Null => Some(0.0),
            _ => {
                decoder.wrong_type(node, "a number");
                None
            }
        }
    }
}

/// An integer; `1.0` counts as one, and a quoted one where JSON cannot hold 64 bits.
fn integer(node: &Node, decoder: &mut Decoder, range: (i128, i128), quoted: bool) -> Option<i128> {
    let found = match &node.value {
        Value::Null => Some(0),
        Value::Number(number) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
            (Some(value), _, _) => Some(i128::from(value)),
            (_, Some(value), _) => Some(i128::from(value)),
            (_, _, Some(value)) if value.fract() == 0.0 && value.abs() < 9e15 => {
                Some(value as i128)
            }
            _ => None,
        },
        Value::String(text) if quoted => text.parse::<i128>().ok(),
        _ => {
            decoder.wrong_type(node, "a whole number");
            return None;
        }
    };
    let (low, high) = range;
    let value = found.filter(|value| (low..=high).contains(value));
    if value.is_none() {
        let allowed = Some(format!("{low} to {high}"));
        decoder.bad_value(node, "not a whole number in range".to_owned(), allowed);
    }
    value
}

macro_rules! integers {
    ($($type:ty, $quoted:literal;)*) => { $(
        impl Decode for $type {
            fn decode(node: &Node, decoder: &mut Decoder) -> Option<Self> {
                let range = (<$type>::MIN as i128, <$type>::MAX as i128);
                integer(node, decoder, range, $quoted).map(|value| value as $type)
            }
        }
    )* };
}

integers! { i32, false; u32, false; i64, true; u64, true; u16, false; }

macro_rules! encode_as_json {
    ($($type:ty),*) => { $(
        impl Encode for $type {
            fn encode(&self) -> Json {
                Json::from(self.clone())
            }
        }
    )* };
}

encode_as_json! { String, bool, f64, i32, u32, i64, u64, u16, Json }

impl Decode for Duration {
    fn decode(node: &Node, decoder: &mut Decoder) -> Option<Self> {
        let parsed = match &node.value {
            Value::String(text) => parse_duration(text),
            Value::Null => return Some(Duration::ZERO),
            _ => {
                decoder.wrong_type(node, "a duration such as \"1.5s\"");
                return None;
            }
        };
        match parsed {
            Ok(duration) => Some(duration),
            Err(reason) => {
                let allowed = Some("a number with a unit: 500ms, 1.5s, 2m, 1h30m".to_owned());
                decoder.bad_value(node, format!("not a duration: {reason}"), allowed);
                None
            }
        }
    }
}

impl Encode for Duration {
    fn encode(&self) -> Json {
        Json::String(format_duration(*self))
    }
}

/// Free-form content; nothing inside is checked.
impl Decode for Json {
    const NULL_IN_MAP: bool = true;

    fn decode(node: &Node, _: &mut Decoder) -> Option<Self> {
        Some(node.to_json())
    }
}

impl Decoder {
    /// A value out of a list of names.
    pub fn enumeration<T: Default>(
        &mut self,
        node: &Node,
        names: &[&str],
        from_name: impl Fn(&str) -> Option<T>,
    ) -> Option<T> {
        let text = match &node.value {
            Value::String(text) => text,
            Value::Null => return Some(T::default()),
            _ => {
                let allowed = Some(names.join(", "));
                let message = format!("expected one of the names, found {}", node.sort());
                self.bad_value(node, message, allowed);
                return None;
            }
        };
        let found = from_name(text);
        if found.is_none() {
            let known: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            let hint = nearest(text, &known).map(|name| format!(", did you mean `{name}`?"));
            let shown: String = text.chars().take(100).collect();
            let message = format!("unknown value `{shown}`{}", hint.unwrap_or_default());
            self.bad_value(node, message, Some(names.join(", ")));
        }
        found
    }
}
