//! Envoy's URI templates: `{*}` is one path segment, `{**}` any number of them, last.

use envoy_api::core;

use crate::matcher::Regex;
use crate::parse::Context;
use crate::parse::network_filter::config_name;

#[derive(Debug)]
pub struct PathTemplate(Regex);

const CONFIG: &str = "envoy.extensions.path.match.uri_template.v3.UriTemplateMatchConfig";

#[derive(Clone, PartialEq, prost::Message)]
struct UriTemplateMatchConfig {
    #[prost(string, tag = "1")]
    path_template: String,
}

/// A literal character of a path, as the URI template parser admits it.
const SEGMENT: &str = "[a-zA-Z0-9-._~%!$&'()+,;:@=]";

impl PathTemplate {
    pub fn parse(context: &mut Context, message: &core::TypedExtensionConfig) -> Option<Self> {
        let any = message.typed_config.as_ref();
        let Some(any) = any.filter(|any| config_name(any) == CONFIG) else {
            context.error(format!("path matcher '{}' is not supported", message.name));
            return None;
        };
        let config = <UriTemplateMatchConfig as prost::Message>::decode(any.value.as_slice());
        let template = config
            .map(|config| config.path_template)
            .unwrap_or_default();
        match PathTemplate::new(&template) {
            Ok(parsed) => Some(parsed),
            Err(reason) => {
                context.error_at("path_template", reason);
                None
            }
        }
    }

    fn new(template: &str) -> Result<PathTemplate, String> {
        let bad = |why: &str| format!("invalid path_template '{template}': {why}");
        let Some(rest) = template.strip_prefix('/') else {
            return Err(bad("no leading /"));
        };
        let mut pattern = String::new();
        let segments: Vec<&str> = rest.split('/').collect();
        for (index, segment) in segments.iter().enumerate() {
            pattern.push('/');
            match *segment {
                "{*}" | "*" => pattern.push_str(&format!("{SEGMENT}+")),
                "{**}" | "**" => {
                    if index + 1 != segments.len() {
                        return Err(bad("** must be last"));
                    }
                    pattern.push_str("[a-zA-Z0-9-._~%!$&'()+,;:@=/]*");
                }
                text => match text
                    .strip_prefix('{')
                    .and_then(|text| text.strip_suffix('}'))
                {
                    Some(inner) => {
                        // {name}, {name=*}, {name=**}
                        let glob = inner.split_once('=').map_or("*", |(_, glob)| glob);
                        match glob {
                            "*" => pattern.push_str(&format!("{SEGMENT}+")),
                            "**" if index + 1 == segments.len() => {
                                pattern.push_str("[a-zA-Z0-9-._~%!$&'()+,;:@=/]*");
                            }
                            _ => return Err(bad("unsupported variable")),
                        }
                    }
                    None if text.contains(['{', '}', '*']) => {
                        return Err(bad("a wildcard must be a whole segment"));
                    }
                    None => pattern.push_str(&regex::escape(text)),
                },
            }
        }
        Regex::new(&pattern).map(PathTemplate)
    }

    pub fn matches(&self, path: &[u8]) -> bool {
        self.0.is_full_match(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches_segments() {
        for (template, path, want) in [
            ("/foo/{*}", "/foo/bar", true),
            ("/foo/{*}", "/foo/bar/baz", false),
            ("/foo/{*}", "/foo/", false),
            ("/foo/{**}", "/foo/bar/baz", true),
            ("/foo/{**}", "/foo/", true),
            ("/{*}/bar/{**}", "/x/bar/y/z", true),
            ("/{*}/bar/{**}", "/x/baz/y", false),
            ("/v1/{id}", "/v1/7", true),
        ] {
            let parsed = PathTemplate::new(template).expect(template);
            assert_eq!(parsed.matches(path.as_bytes()), want, "{template} {path}");
        }
        for template in ["foo", "/{**}/a", "/a{*}", "/{a=b*}"] {
            assert!(
                PathTemplate::new(template).is_err(),
                "{template} must be refused"
            );
        }
    }
}
