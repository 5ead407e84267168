//! Telemetry.

use super::Check;
use super::selector::{self, Targets};
use crate::kinds::telemetry::{
    AccessLogging, CustomTagType, Metrics, ProviderRef, TagOperation, Telemetry, Tracing,
};

pub fn check(c: &mut Check<'_>, spec: &Telemetry) {
    let targets = Targets {
        selector: spec.selector.as_ref(),
        target_ref: spec.target_ref.as_ref(),
        target_refs: &spec.target_refs,
    };
    selector::check_targets(c, &targets);
    if spec.tracing.len() > 1 {
        c.warn(
            "tracing",
            "multiple tracing entries are not supported, the first one counts",
        );
    }
    c.each("tracing", &spec.tracing, check_tracing);
    c.each("metrics", &spec.metrics, check_metrics);
    c.each("accessLogging", &spec.access_logging, check_logging);
}

fn check_providers(c: &mut Check<'_>, providers: &[ProviderRef]) {
    c.each("providers", providers, |c, provider| {
        if provider.name.is_empty() {
            c.error("name", "must be set");
        }
    });
}

fn check_tracing(c: &mut Check<'_>, tracing: &Tracing) {
    check_providers(c, &tracing.providers);
    if tracing.providers.len() > 1 {
        c.warn(
            "providers",
            "multiple providers are not supported, the first one counts",
        );
    }
    if tracing
        .random_sampling_percentage
        .is_some_and(|p| !(0.0..=100.0).contains(&p))
    {
        c.not_allowed("randomSamplingPercentage", "out of range", "0 to 100");
    }
    for (name, tag) in &tracing.custom_tags {
        let path = format!("customTags.{name}");
        match &tag.r#type {
            None => c.error(
                &path,
                "literal, environment, header or formatter must be set",
            ),
            Some(CustomTagType::Literal(tag) | CustomTagType::Formatter(tag)) => {
                if tag.value.is_empty() {
                    c.error(&path, "the value must be set");
                }
            }
            Some(CustomTagType::Environment(tag) | CustomTagType::Header(tag)) => {
                if tag.name.is_empty() {
                    c.error(&path, "the name must be set");
                }
            }
        }
    }
}

fn check_metrics(c: &mut Check<'_>, metrics: &Metrics) {
    check_providers(c, &metrics.providers);
    c.each("overrides", &metrics.overrides, |c, overrides| {
        for (name, tag) in &overrides.tag_overrides {
            let path = format!("tagOverrides.{name}.value");
            match (tag.operation, tag.value.is_empty()) {
                (TagOperation::Upsert, true) => {
                    c.error(&path, "must be set when operation is UPSERT");
                }
                (TagOperation::Remove, false) => {
                    c.error(&path, "must not be set when operation is REMOVE");
                }
                _ => {}
            }
        }
    });
}

fn check_logging(c: &mut Check<'_>, logging: &AccessLogging) {
    check_providers(c, &logging.providers);
    if let Some(filter) = &logging.filter
        && !is_balanced(&filter.expression)
    {
        c.error("filter.expression", "is not an expression");
    }
}

/// Not CEL's grammar, only its most common slip: brackets and quotes that do not close.
fn is_balanced(expression: &str) -> bool {
    let mut open: Vec<char> = Vec::new();
    let mut quote: Option<char> = None;
    for c in expression.chars() {
        match (quote, c) {
            (Some(q), c) if c == q => quote = None,
            (Some(_), _) => {}
            (None, '\'' | '"') => quote = Some(c),
            (None, '(') => open.push(')'),
            (None, '[') => open.push(']'),
            (None, '{') => open.push('}'),
            (None, ')' | ']' | '}') if open.pop() != Some(c) => return false,
            _ => {}
        }
    }
    open.is_empty() && quote.is_none()
}
