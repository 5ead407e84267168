//! The macros that make a message, an enumeration or a oneof from one table of names.

/// `retry_on` -> `retryOn`, as protobuf makes JSON names.
pub fn json_name(snake: &str) -> String {
    let snake = snake.strip_prefix("r#").unwrap_or(snake);
    let mut out = String::with_capacity(snake.len());
    let mut upper = false;
    for c in snake.chars() {
        match c {
            '_' => upper = true,
            _ if upper => {
                out.push(c.to_ascii_uppercase());
                upper = false;
            }
            _ => out.push(c),
        }
    }
    out
}

/// Whether a key of the user's document names the field (camelCase or snake_case).
pub fn names_field(key: &str, field: &str) -> bool {
    let field = field.strip_prefix("r#").unwrap_or(field);
    if key == field {
        return true;
    }
    let mut upper = false;
    let mut key = key.chars();
    for c in field.chars() {
        if c == '_' {
            upper = true;
            continue;
        }
        let wanted = if upper { c.to_ascii_uppercase() } else { c };
        upper = false;
        if key.next() != Some(wanted) {
            return false;
        }
    }
    key.next().is_none()
}

/// A struct with its decoder, its serializer and its list of field names. A field is
/// `name: Type` or `name = "jsonName": Type`; groups of exclusive members follow after `oneof`.
/// `message! { explicit_default … }` leaves `Default` to the caller.
#[macro_export]
macro_rules! message {
    (explicit_default $(#[$meta:meta])* pub struct $name:ident { $($body:tt)* }
     $(oneof { $($oneofs:tt)* })?) => {
        $crate::message! { @all [] $(#[$meta])* $name { $($body)* } { $($($oneofs)*)? } }
    };
    ($(#[$meta:meta])* pub struct $name:ident { $($body:tt)* } $(oneof { $($oneofs:tt)* })?) => {
        $crate::message! { @all [Default] $(#[$meta])* $name { $($body)* } { $($($oneofs)*)? } }
    };
    (@all [$($derive:ident)?] $(#[$meta:meta])* $name:ident
     { $($(#[$field_meta:meta])* $field:ident $(= $json:literal)? : $type:ty),* $(,)? }
     { $($group:ident : $group_type:ty),* $(,)? }) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq $(, $derive)?)]
        pub struct $name {
            $($(#[$field_meta])* pub $field: $type,)*
            $(pub $group: Option<$group_type>,)*
        }

        impl $name {
            /// The names of the fields as JSON and YAML write them.
            pub fn field_names() -> Vec<String> {
                #[allow(unused_mut)]
                let mut names: Vec<String> = vec![
                    $($crate::message!(@json $field $(= $json)?)),*
                ];
                $(names.extend(
                    <$group_type as $crate::decode::Oneof>::MEMBERS.iter().map(|m| m.to_string()),
                );)*
                names
            }
        }

        impl $crate::decode::Decode for $name {
            #[allow(unused_variables, unused_mut)]
            fn decode(
                node: &$crate::node::Node,
                decoder: &mut $crate::decode::Decoder,
            ) -> Option<Self> {
                let members = decoder.members(node)?;
                let mut out = Self::default();
                for entry in members {
                    $(
                        if $crate::message!(@is entry.key, $field $(= $json)?) {
                            if let Some(value) = decoder.field(entry) {
                                out.$field = value;
                            }
                            continue;
                        }
                    )*
                    $(
                        let found =
                            <$group_type as $crate::decode::Oneof>::decode_member(entry, decoder);
                        if let Some(value) = found {
                            if out.$group.is_some() {
                                let members =
                                    <$group_type as $crate::decode::Oneof>::MEMBERS;
                                decoder.both_set(entry, members);
                            }
                            out.$group = value.or(out.$group);
                            continue;
                        }
                    )*
                    decoder.unknown_field(entry, Self::field_names);
                }
                Some(out)
            }
        }

        impl $crate::decode::Encode for $name {
            #[allow(unused_mut, unused_variables)]
            fn encode(&self) -> serde_json::Value {
                let mut map = serde_json::Map::new();
                let unset = Self::default();
                $(
                    if self.$field != unset.$field {
                        let name = $crate::message!(@json $field $(= $json)?);
                        map.insert(name, $crate::decode::Encode::encode(&self.$field));
                    }
                )*
                $(
                    if let Some(group) = &self.$group {
                        let name = $crate::decode::Oneof::member(group).to_owned();
                        map.insert(name, $crate::decode::Encode::encode(group));
                    }
                )*
                serde_json::Value::Object(map)
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                $crate::decode::Encode::encode(self).serialize(serializer)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(source: D) -> Result<Self, D::Error> {
                let json = <serde_json::Value as serde::Deserialize>::deserialize(source)?;
                $crate::decode::from_json(json).map_err(serde::de::Error::custom)
            }
        }
    };
    (@json $field:ident) => { $crate::decode::json_name(stringify!($field)) };
    (@json $field:ident = $json:literal) => { $json.to_owned() };
    (@is $key:expr, $field:ident) => { $crate::decode::names_field(&$key, stringify!($field)) };
    (@is $key:expr, $field:ident = $json:literal) => { $key == $json };
}

/// An enumeration by name; the first one is the default.
#[macro_export]
macro_rules! enumeration {
    ($(#[$meta:meta])* pub enum $name:ident {
        $first:ident = $first_text:literal
        $(, $(#[$variant_meta:meta])* $variant:ident = $text:literal)* $(,)?
    }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $name {
            #[default]
            $first,
            $($(#[$variant_meta])* $variant,)*
        }

        impl $name {
            pub const NAMES: &'static [&'static str] = &[$first_text $(, $text)*];

            pub fn as_str(self) -> &'static str {
                match self {
                    Self::$first => $first_text,
                    $(Self::$variant => $text,)*
                }
            }

            pub fn from_name(name: &str) -> Option<Self> {
                match name {
                    $first_text => Some(Self::$first),
                    $($text => Some(Self::$variant),)*
                    _ => None,
                }
            }
        }

        impl $crate::decode::Decode for $name {
            fn decode(
                node: &$crate::node::Node,
                decoder: &mut $crate::decode::Decoder,
            ) -> Option<Self> {
                decoder.enumeration(node, Self::NAMES, Self::from_name)
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }

        impl $crate::decode::Encode for $name {
            fn encode(&self) -> serde_json::Value {
                serde_json::Value::from(self.as_str())
            }
        }
    };
}

/// A group of exclusive members: `Variant(Type) = "jsonName"`.
#[macro_export]
macro_rules! oneof {
    ($(#[$meta:meta])* pub enum $name:ident {
        $($(#[$variant_meta:meta])* $variant:ident($type:ty) = $json:literal),+ $(,)?
    }) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq)]
        pub enum $name { $($(#[$variant_meta])* $variant($type)),+ }

        impl $crate::decode::Oneof for $name {
            const MEMBERS: &'static [&'static str] = &[$($json),+];

            fn decode_member(
                entry: &$crate::node::Entry,
                decoder: &mut $crate::decode::Decoder,
            ) -> Option<Option<Self>> {
                let name = $crate::decode::json_name(&entry.key);
                match name.as_str() {
                    $($json => {
                        let value: Option<Option<$type>> = decoder.field(entry);
                        Some(value.flatten().map(Self::$variant))
                    })+
                    _ => None,
                }
            }

            fn member(&self) -> &'static str {
                match self { $(Self::$variant(_) => $json),+ }
            }
        }

        impl $crate::decode::Encode for $name {
            fn encode(&self) -> serde_json::Value {
                match self { $(Self::$variant(value) => $crate::decode::Encode::encode(value)),+ }
            }
        }
    };
}
