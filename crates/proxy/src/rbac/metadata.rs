//! MetadataMatcher on dynamic metadata.

use std::collections::BTreeMap;

use envoy_api::matcher::{self, value_matcher::MatchPattern};
use prost_types::{Struct, Value, value::Kind};

use crate::matcher::StringMatcher;
use crate::parse::Context;
use crate::parse::compat::Message as _;
use crate::parse::metadata::as_struct;

#[derive(Debug)]
pub struct MetadataMatcher {
    namespace: String,
    path: Vec<String>,
    value: ValueMatcher,
    invert: bool,
}

#[derive(Debug)]
enum ValueMatcher {
    Null,
    Text(StringMatcher),
    Bool(bool),
    Present(bool),
    Number(f64),
    /// Half open.
    Range(f64, f64),
    OneOf(Box<ValueMatcher>),
    Any(Vec<ValueMatcher>),
}

fields! {
    matcher::MetadataMatcher { read: filter, path, value, invert; }
    matcher::ValueMatcher { read: match_pattern; }
}

impl MetadataMatcher {
    pub fn parse(context: &mut Context, message: &matcher::MetadataMatcher) -> Option<Self> {
        use matcher::metadata_matcher::path_segment::Segment;
        message.check(context);
        context.non_empty("filter", &message.filter);
        if message.path.is_empty() {
            context.error_at("path", "must have at least one member");
        }
        let path = context.each("path", &message.path, |context, segment| {
            let Some(Segment::Key(key)) = &segment.segment else {
                context.error("key is required");
                return None;
            };
            Some(key.clone())
        });
        let value = context.required("value", message.value.as_ref(), value_matcher)?;
        let namespace = message.filter.clone();
        Some(MetadataMatcher {
            namespace,
            path,
            value,
            invert: message.invert,
        })
    }

    pub fn matches(&self, metadata: &BTreeMap<String, Struct>) -> bool {
        self.value.matches(self.find(metadata)) != self.invert
    }

    fn find<'a>(&self, metadata: &'a BTreeMap<String, Struct>) -> Option<&'a Value> {
        let mut fields = metadata.get(&self.namespace)?;
        let (last, parents) = self.path.split_last()?;
        for key in parents {
            fields = as_struct(fields.fields.get(key)?)?;
        }
        fields.fields.get(last)
    }
}

fn value_matcher(context: &mut Context, message: &matcher::ValueMatcher) -> Option<ValueMatcher> {
    message.check(context);
    if context.too_deep() {
        return None;
    }
    match &message.match_pattern {
        None => {
            context.error_at("match_pattern", "is required");
            None
        }
        Some(MatchPattern::NullMatch(_)) => Some(ValueMatcher::Null),
        Some(MatchPattern::BoolMatch(value)) => Some(ValueMatcher::Bool(*value)),
        Some(MatchPattern::PresentMatch(value)) => Some(ValueMatcher::Present(*value)),
        Some(MatchPattern::StringMatch(one)) => context
            .field("string_match", |context| StringMatcher::parse(context, one))
            .map(ValueMatcher::Text),
        Some(MatchPattern::DoubleMatch(one)) => match one.match_pattern {
            Some(matcher::double_matcher::MatchPattern::Exact(value)) => {
                Some(ValueMatcher::Number(value))
            }
            Some(matcher::double_matcher::MatchPattern::Range(range)) => {
                Some(ValueMatcher::Range(range.start, range.end))
            }
            None => None,
        },
        Some(MatchPattern::ListMatch(list)) => match &list.match_pattern {
            Some(matcher::list_matcher::MatchPattern::OneOf(inner)) => {
                let inner = context.field("list_match.one_of", |c| value_matcher(c, inner))?;
                Some(ValueMatcher::OneOf(Box::new(inner)))
            }
            None => None,
        },
        Some(MatchPattern::OrMatch(or)) => {
            let any = context.each("or_match.value_matchers", &or.value_matchers, value_matcher);
            Some(ValueMatcher::Any(any))
        }
    }
}

impl ValueMatcher {
    fn matches(&self, value: Option<&Value>) -> bool {
        let kind = value.and_then(|value| value.kind.as_ref());
        match (self, kind) {
            (ValueMatcher::Present(present), kind) => kind.is_some() && *present,
            (ValueMatcher::Any(any), _) => any.iter().any(|one| one.matches(value)),
            (ValueMatcher::Null, Some(Kind::NullValue(_))) => true,
            (ValueMatcher::Bool(want), Some(Kind::BoolValue(value))) => want == value,
            (ValueMatcher::Text(text), Some(Kind::StringValue(value))) => {
                text.matches(value.as_bytes())
            }
            (ValueMatcher::Number(want), Some(Kind::NumberValue(value))) => want == value,
            (ValueMatcher::Range(start, end), Some(Kind::NumberValue(value))) => {
                value >= start && value < end
            }
            (ValueMatcher::OneOf(inner), Some(Kind::ListValue(list))) => {
                list.values.iter().any(|value| inner.matches(Some(value)))
            }
            _ => false,
        }
    }
}
