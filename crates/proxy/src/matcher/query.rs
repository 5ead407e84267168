//! Query parameters: the first one wins; matchers compare them as they came, like Envoy's
//! `parseQueryString`, hashes decode them.

use std::borrow::Cow;

use envoy_api::route::{self, query_parameter_matcher::QueryParameterMatchSpecifier};

use super::string::StringMatcher;
use crate::parse::Context;
use crate::parse::compat::Message as _;

#[derive(Debug, Clone)]
pub struct QueryMatcher {
    name: Box<[u8]>,
    kind: Kind,
}

#[derive(Debug, Clone)]
enum Kind {
    Present(bool),
    Text(StringMatcher),
}

fields! {
    route::QueryParameterMatcher { read: name, query_parameter_match_specifier; }
}

impl QueryMatcher {
    pub fn parse(context: &mut Context, message: &route::QueryParameterMatcher) -> Option<Self> {
        message.check(context);
        context.non_empty("name", &message.name);
        let kind = match &message.query_parameter_match_specifier {
            None => Kind::Present(true),
            Some(QueryParameterMatchSpecifier::PresentMatch(present)) => Kind::Present(*present),
            Some(QueryParameterMatchSpecifier::StringMatch(text)) => {
                Kind::Text(context.field("string_match", |context| {
                    StringMatcher::parse(context, text)
                })?)
            }
        };
        Some(QueryMatcher {
            name: message.name.as_bytes().into(),
            kind,
        })
    }

    pub fn matches(&self, query: Option<&[u8]>) -> bool {
        let value = query.and_then(|query| find_raw(query, &self.name));
        match &self.kind {
            Kind::Present(present) => value.is_some() == *present,
            Kind::Text(text) => value.is_some_and(|value| text.matches(value)),
        }
    }
}

fn split_pair(pair: &[u8]) -> (&[u8], &[u8]) {
    match memchr::memchr(b'=', pair) {
        Some(at) => (&pair[..at], &pair[at + 1..]),
        None => (pair, &b""[..]),
    }
}

/// The first value of a parameter as it came.
fn find_raw<'a>(query: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let mut pairs = query.split(|byte| *byte == b'&').map(split_pair);
    pairs.find(|(key, _)| *key == name).map(|(_, value)| value)
}

/// The first value of a parameter, percent-decoded.
pub fn find<'a>(query: &'a [u8], name: &[u8]) -> Option<Cow<'a, [u8]>> {
    query.split(|byte| *byte == b'&').find_map(|pair| {
        let (key, value) = split_pair(pair);
        (*percent_decode(key) == *name).then(|| percent_decode(value))
    })
}

/// `%41` becomes `A`; what is no valid escape stays.
pub fn percent_decode(value: &[u8]) -> Cow<'_, [u8]> {
    if memchr::memchr(b'%', value).is_none() {
        return Cow::Borrowed(value);
    }
    let mut out = Vec::with_capacity(value.len());
    let mut rest = value;
    while let Some((&first, tail)) = rest.split_first() {
        let decoded = (first == b'%').then(|| hex_pair(tail)).flatten();
        match decoded {
            Some(byte) => {
                out.push(byte);
                rest = &tail[2..];
            }
            None => {
                out.push(first);
                rest = tail;
            }
        }
    }
    Cow::Owned(out)
}

fn hex_pair(bytes: &[u8]) -> Option<u8> {
    let digit = |byte: &u8| char::from(*byte).to_digit(16);
    let value = digit(bytes.first()?)? * 16 + digit(bytes.get(1)?)?;
    u8::try_from(value).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_parameters() {
        for (query, name, want, why) in [
            ("a=1&b=2", "b", Some("2"), "second"),
            ("a=1&a=2", "a", Some("1"), "the first one"),
            ("a", "a", Some(""), "without a value"),
            ("a=%41%zz", "a", Some("A%zz"), "decoded, bad escapes stay"),
            ("ab=1", "a", None, "whole names"),
            ("", "a", None, "nothing"),
            ("a=1=2", "a", Some("1=2"), "the first equals sign"),
        ] {
            let found = find(query.as_bytes(), name.as_bytes());
            assert_eq!(found.as_deref(), want.map(str::as_bytes), "{why}");
        }
    }
}
