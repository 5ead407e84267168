//! Envoy's StringMatcher on bytes.

use envoy_api::matcher::{self, string_matcher::MatchPattern};

use super::regex::Regex;
use crate::parse::Context;
use crate::parse::compat::Message as _;

#[derive(Debug, Clone)]
pub struct StringMatcher {
    kind: Kind,
    ignore_case: bool,
}

#[derive(Debug, Clone)]
enum Kind {
    Exact(Box<[u8]>),
    Prefix(Box<[u8]>),
    Suffix(Box<[u8]>),
    Contains(Box<[u8]>),
    Regex(Regex),
}

fields! {
    matcher::StringMatcher { read: ignore_case, match_pattern; }
    matcher::ListStringMatcher { read: patterns; }
}

impl StringMatcher {
    pub fn exact(text: &str) -> StringMatcher {
        StringMatcher {
            kind: Kind::Exact(text.as_bytes().into()),
            ignore_case: false,
        }
    }

    pub fn prefix(text: &str) -> StringMatcher {
        StringMatcher {
            kind: Kind::Prefix(text.as_bytes().into()),
            ignore_case: false,
        }
    }

    pub fn parse(context: &mut Context, message: &matcher::StringMatcher) -> Option<Self> {
        message.check(context);
        let ignore_case = message.ignore_case;
        let lower = |text: &str| -> Box<[u8]> {
            let text = if ignore_case {
                text.to_ascii_lowercase()
            } else {
                text.to_owned()
            };
            text.into_bytes().into()
        };
        let kind = match &message.match_pattern {
            Some(MatchPattern::Exact(text)) => Kind::Exact(lower(text)),
            Some(MatchPattern::Prefix(text)) => {
                context.non_empty("prefix", text);
                Kind::Prefix(lower(text))
            }
            Some(MatchPattern::Suffix(text)) => {
                context.non_empty("suffix", text);
                Kind::Suffix(lower(text))
            }
            Some(MatchPattern::Contains(text)) => {
                context.non_empty("contains", text);
                Kind::Contains(lower(text))
            }
            Some(MatchPattern::SafeRegex(regex)) => {
                if ignore_case {
                    context.error_at("ignore_case", "ignore_case has no effect for safe_regex.");
                }
                Kind::Regex(context.field("safe_regex", |context| Regex::parse(context, regex))?)
            }
            Some(MatchPattern::Custom(_)) => {
                context.error_at("custom", "is not supported");
                return None;
            }
            None => {
                context.error_at("match_pattern", "is required");
                return None;
            }
        };
        Some(StringMatcher { kind, ignore_case })
    }

    pub fn matches(&self, value: &[u8]) -> bool {
        let fold = self.ignore_case;
        match &self.kind {
            Kind::Exact(text) => same(value, text, fold),
            Kind::Prefix(text) => value
                .get(..text.len())
                .is_some_and(|start| same(start, text, fold)),
            Kind::Suffix(text) => value
                .len()
                .checked_sub(text.len())
                .is_some_and(|start| same(&value[start..], text, fold)),
            Kind::Contains(text) if fold => {
                memchr::memmem::find(&value.to_ascii_lowercase(), text).is_some()
            }
            Kind::Contains(text) => memchr::memmem::find(value, text).is_some(),
            Kind::Regex(regex) => regex.is_full_match(value),
        }
    }

    /// The text of an exact matcher, where case counts.
    pub fn as_exact(&self) -> Option<&[u8]> {
        match &self.kind {
            Kind::Exact(text) if !self.ignore_case => Some(text),
            _ => None,
        }
    }
}

fn same(value: &[u8], text: &[u8], ignore_case: bool) -> bool {
    if ignore_case {
        value.eq_ignore_ascii_case(text)
    } else {
        value == text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches_as_envoy() {
        let exact = |text: &str| MatchPattern::Exact(text.into());
        let prefix = |text: &str| MatchPattern::Prefix(text.into());
        let suffix = |text: &str| MatchPattern::Suffix(text.into());
        let contains = |text: &str| MatchPattern::Contains(text.into());
        let regex = |text: &str| {
            MatchPattern::SafeRegex(matcher::RegexMatcher {
                regex: text.into(),
                engine_type: None,
            })
        };
        for (pattern, ignore_case, value, want, why) in [
            (exact("a"), false, "a", true, "equal"),
            (exact("a"), false, "A", false, "case counts"),
            (exact("Ab"), true, "aB", true, "case ignored"),
            (exact(""), false, "", true, "empty exact"),
            (prefix("/a"), false, "/ab", true, "prefix"),
            (prefix("/abc"), false, "/a", false, "longer than the value"),
            (suffix(".com"), true, "x.COM", true, "suffix without case"),
            (suffix("abc"), false, "bc", false, "longer than the value"),
            (contains("lo"), false, "hello", true, "inside"),
            (contains("LO"), true, "hello", true, "inside without case"),
            (regex("a+"), false, "aaa", true, "full match"),
            (regex("a+"), false, "aaab", false, "not a search"),
        ] {
            let message = matcher::StringMatcher {
                ignore_case,
                match_pattern: Some(pattern),
            };
            let parsed = StringMatcher::parse(&mut Context::new(), &message).expect("parses");
            assert_eq!(parsed.matches(value.as_bytes()), want, "{why}");
        }
    }
}
