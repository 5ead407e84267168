//! Values of authorization rules as matchers: exact, `prefix*`, `*suffix`, `*`, and the shapes
//! of identities (istio.md 1.12).

use envoy_api::matcher::StringMatcher;
use envoy_api::matcher::string_matcher::MatchPattern;
use envoy_api::route::HeaderMatcher;
use envoy_api::route::header_matcher::HeaderMatchSpecifier;
use prost::Message as _;
use prost_types::Any;

use super::rbac_rule::{any_string, present};
use super::route_match::regex;

const SPIFFE: &str = "spiffe://";

/// Envoy's template matcher; its package is small enough to be written here.
#[derive(Clone, PartialEq, prost::Message)]
struct UriTemplateMatchConfig {
    #[prost(string, tag = "1")]
    path_template: String,
}

pub fn uri_template(template: &str) -> Any {
    let config = UriTemplateMatchConfig {
        path_template: template.to_owned(),
    };
    Any {
        type_url: "type.googleapis.com/envoy.extensions.path.match.uri_template.v3.\
            UriTemplateMatchConfig"
            .to_owned(),
        value: config.encode_to_vec(),
    }
}

/// Exact, prefix, suffix or presence.
pub fn string(text: &str, ignore_case: bool) -> StringMatcher {
    let pattern = if text == "*" {
        return any_string();
    } else if let Some(prefix) = text.strip_suffix('*') {
        MatchPattern::Prefix(prefix.to_owned())
    } else if let Some(suffix) = text.strip_prefix('*') {
        MatchPattern::Suffix(suffix.to_owned())
    } else {
        MatchPattern::Exact(text.to_owned())
    };
    StringMatcher {
        match_pattern: Some(pattern),
        ignore_case,
    }
}

pub fn header(name: &str, text: &str, ignore_case: bool) -> HeaderMatcher {
    if text == "*" {
        return present(name);
    }
    HeaderMatcher {
        name: name.to_owned(),
        header_match_specifier: Some(HeaderMatchSpecifier::StringMatch(string(text, ignore_case))),
        ..Default::default()
    }
}

fn safe_regex(pattern: String) -> StringMatcher {
    StringMatcher {
        match_pattern: Some(MatchPattern::SafeRegex(regex(&pattern))),
        ..Default::default()
    }
}

/// Escapes what RE2 would read as a pattern.
fn quote(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len());
    for letter in text.chars() {
        if "\\.+*?()|[]{}^$".contains(letter) {
            quoted.push('\\');
        }
        quoted.push(letter);
    }
    quoted
}

/// `*` may stand anywhere in a namespace.
pub fn namespace(text: &str) -> StringMatcher {
    let pattern: Vec<String> = text.split('*').map(quote).collect();
    safe_regex(format!(".*/ns/{}/.*", pattern.join(".*")))
}

pub fn trust_domain(text: &str) -> StringMatcher {
    if !text.contains('*') {
        return string(&format!("{SPIFFE}{text}/*"), false);
    }
    let pattern: Vec<String> = text.split('*').map(quote).collect();
    safe_regex(format!("{SPIFFE}{}/.*", pattern.join("[^/]*")))
}

/// What identities of this mesh look like.
pub struct Identity<'a> {
    pub trust_domain: &'a str,
    pub aliases: &'a [String],
    pub namespace: &'a str,
}

impl Identity<'_> {
    /// `NAMESPACE/ACCOUNT`, or an account of the policy's own namespace.
    pub fn service_account(&self, text: &str) -> StringMatcher {
        let (namespace, account) = text.split_once('/').unwrap_or((self.namespace, text));
        let (namespace, account) = (quote(namespace), quote(account));
        safe_regex(format!(
            "{SPIFFE}.+/ns/{namespace}/(.+/|)sa/{account}(/.+)?"
        ))
    }

    /// `TRUST-DOMAIN/ns/…/sa/…`; the mesh's own trust domain stands for its aliases too.
    pub fn principal(&self, text: &str) -> Vec<StringMatcher> {
        self.aliased(text)
            .iter()
            .map(|text| one_principal(text))
            .collect()
    }

    fn aliased(&self, text: &str) -> Vec<String> {
        let Some((domain, rest)) = text.split_once('/') else {
            return vec![text.to_owned()];
        };
        let known = || std::iter::once(self.trust_domain).chain(self.aliases.iter().map(|a| &**a));
        let matches = |td: &str| match domain.strip_prefix('*') {
            Some(suffix) => td.ends_with(suffix),
            None => td == domain,
        };
        let local = domain == "cluster.local" || known().any(matches);
        if domain == "*" || !local {
            return vec![text.to_owned()];
        }
        let mut all = Vec::new();
        for td in known() {
            let kept = domain.starts_with('*') && matches(td);
            let one = if kept {
                text.to_owned()
            } else {
                format!("{td}/{rest}")
            };
            if !all.contains(&one) {
                all.push(one);
            }
        }
        all
    }
}

fn one_principal(text: &str) -> StringMatcher {
    if text == "*" {
        return any_string();
    }
    if let Some(suffix) = text.strip_prefix('*') {
        return safe_regex(format!("{SPIFFE}.*{}", quote(suffix)));
    }
    string(&format!("{SPIFFE}{text}"), false)
}
