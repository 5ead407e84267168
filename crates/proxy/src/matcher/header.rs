//! Envoy's HeaderMatcher. Where a header comes several times, one value that fits is enough (and an
//! inverted rule asks that none fits); a list within one value stays one value.

use std::borrow::Cow;

use envoy_api::route::{self, header_matcher::HeaderMatchSpecifier};
use envoy_api::types;

use super::regex::Regex;
use super::string::StringMatcher;
use crate::parse::Context;
use crate::parse::compat::Message as _;

#[derive(Debug, Clone)]
pub struct HeaderMatcher {
    name: Box<str>,
    kind: Kind,
    invert: bool,
    missing_is_empty: bool,
}

#[derive(Debug, Clone)]
enum Kind {
    Present(bool),
    Text(StringMatcher),
    Regex(Regex),
    /// Half open.
    Range(i64, i64),
}

fields! {
    route::HeaderMatcher {
        read: name, invert_match, treat_missing_header_as_empty, header_match_specifier;
    }
    types::Int64Range { read: start, end; }
}

impl HeaderMatcher {
    pub fn parse(context: &mut Context, message: &route::HeaderMatcher) -> Option<Self> {
        message.check(context);
        context.non_empty("name", &message.name);
        let text = |context: &mut Context, name: &str, pattern| {
            let message = envoy_api::matcher::StringMatcher {
                ignore_case: false,
                match_pattern: Some(pattern),
            };
            context
                .field(name, |context| StringMatcher::parse(context, &message))
                .map(Kind::Text)
        };
        use envoy_api::matcher::string_matcher::MatchPattern;
        let kind = match message.header_match_specifier.clone() {
            None => Kind::Present(true),
            Some(HeaderMatchSpecifier::PresentMatch(present)) => Kind::Present(present),
            Some(HeaderMatchSpecifier::ExactMatch(value)) => {
                text(context, "exact_match", MatchPattern::Exact(value))?
            }
            Some(HeaderMatchSpecifier::PrefixMatch(value)) => {
                text(context, "prefix_match", MatchPattern::Prefix(value))?
            }
            Some(HeaderMatchSpecifier::SuffixMatch(value)) => {
                text(context, "suffix_match", MatchPattern::Suffix(value))?
            }
            Some(HeaderMatchSpecifier::ContainsMatch(value)) => {
                text(context, "contains_match", MatchPattern::Contains(value))?
            }
            Some(HeaderMatchSpecifier::StringMatch(value)) => {
                Kind::Text(context.field("string_match", |context| {
                    StringMatcher::parse(context, &value)
                })?)
            }
            Some(HeaderMatchSpecifier::SafeRegexMatch(value)) => Kind::Regex(
                context.field("safe_regex_match", |context| Regex::parse(context, &value))?,
            ),
            Some(HeaderMatchSpecifier::RangeMatch(range)) => {
                context.field("range_match", |context| range.check(context));
                Kind::Range(range.start, range.end)
            }
        };
        Some(HeaderMatcher {
            name: message.name.to_ascii_lowercase().into(),
            kind,
            invert: message.invert_match,
            missing_is_empty: message.treat_missing_header_as_empty,
        })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// `find` gives the values of a header, in order.
    pub fn matches<'a, V>(&self, find: impl FnOnce(&str) -> V) -> bool
    where
        V: IntoIterator<Item = Cow<'a, [u8]>>,
    {
        let mut values = find(&self.name).into_iter();
        let first = values.next();
        if let Kind::Present(present) = self.kind {
            let there = first.is_some() || self.missing_is_empty;
            return (there == present) != self.invert;
        }
        let value = match first {
            Some(value) => value,
            None if self.missing_is_empty => Cow::Borrowed(&b""[..]),
            // A header that is not there matches nothing, inverted or not.
            None => return false,
        };
        let any = self.holds(&value) || values.any(|value| self.holds(&value));
        any != self.invert
    }

    fn holds(&self, value: &[u8]) -> bool {
        match &self.kind {
            Kind::Present(_) => true,
            Kind::Text(text) => text.matches(value),
            Kind::Regex(regex) => regex.is_full_match(value),
            Kind::Range(start, end) => std::str::from_utf8(value)
                .ok()
                .and_then(|value| value.parse::<i64>().ok())
                .is_some_and(|value| value >= *start && value < *end),
        }
    }
}

/// All of them must match.
pub fn all_match<'a, V>(matchers: &[HeaderMatcher], find: impl Fn(&str) -> V) -> bool
where
    V: IntoIterator<Item = Cow<'a, [u8]>>,
{
    matchers.iter().all(|matcher| matcher.matches(&find))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matcher(kind: Option<HeaderMatchSpecifier>) -> route::HeaderMatcher {
        route::HeaderMatcher {
            name: "X-A".into(),
            header_match_specifier: kind,
            ..Default::default()
        }
    }

    #[test]
    fn matches_as_envoy() {
        use HeaderMatchSpecifier as M;
        let exact = || Some(M::ExactMatch("v".into()));
        let range = || Some(M::RangeMatch(types::Int64Range { start: -3, end: 10 }));
        for (kind, invert, empty, value, want, why) in [
            (None, false, false, Some("x"), true, "presence"),
            (None, false, false, None, false, "absence"),
            (
                Some(M::PresentMatch(false)),
                false,
                false,
                None,
                true,
                "must be absent",
            ),
            (
                Some(M::PresentMatch(true)),
                true,
                false,
                None,
                true,
                "inverted presence",
            ),
            (exact(), false, false, Some("v"), true, "equal"),
            (exact(), true, false, Some("w"), true, "inverted"),
            (exact(), true, false, None, false, "missing never matches"),
            (
                exact(),
                true,
                true,
                None,
                true,
                "missing is empty, inverted",
            ),
            (range(), false, false, Some("-3"), true, "start is in"),
            (range(), false, false, Some("10"), false, "end is out"),
            (range(), false, false, Some("9x"), false, "not a number"),
        ] {
            let mut message = matcher(kind);
            message.invert_match = invert;
            message.treat_missing_header_as_empty = empty;
            let parsed = HeaderMatcher::parse(&mut Context::new(), &message).expect("parses");
            let find = |name: &str| {
                assert_eq!(name, "x-a", "lower case");
                value.map(|value| Cow::Borrowed(value.as_bytes()))
            };
            assert_eq!(parsed.matches(find), want, "{why}");
        }
    }
}
