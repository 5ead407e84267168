//! Cross-origin requests: preflights are answered here, responses get the allowing headers.

use std::borrow::Cow;
use std::sync::Arc;

use envoy_api::cors;
use prost_types::Any;

use super::{Flow, Hooks, LocalReply, Override, RequestCall, ResponseCall};
use crate::matcher::{Fraction, StringMatcher, fraction};
use crate::parse::Context;
use crate::parse::compat::Message as _;

#[derive(Debug)]
pub struct Config;

#[derive(Debug)]
pub struct Policy {
    origins: Vec<StringMatcher>,
    allow_methods: String,
    allow_headers: String,
    expose_headers: String,
    max_age: String,
    allow_credentials: bool,
    allow_private_network: bool,
    enabled: Fraction,
    shadow: Option<Fraction>,
    forward_not_matching_preflights: bool,
}

fields! {
    cors::Cors {}
    cors::CorsPolicy {
        read: allow_origin_string_match, allow_methods, allow_headers, expose_headers, max_age,
            allow_credentials, filter_enabled, shadow_enabled, allow_private_network_access,
            forward_not_matching_preflights;
    }
}

impl Config {
    pub fn parse(context: &mut Context, any: &Any) -> Option<Config> {
        context.open::<cors::Cors>(any).map(|cors::Cors {}| Config)
    }
}

impl Policy {
    pub fn parse(context: &mut Context, any: &Any) -> Option<Policy> {
        let message = context.open::<cors::CorsPolicy>(any)?;
        message.check(context);
        let enabled = context
            .optional(
                "filter_enabled",
                message.filter_enabled.as_ref(),
                fraction::runtime,
            )
            .unwrap_or(Fraction::ALL);
        Some(Policy {
            origins: context.each(
                "allow_origin_string_match",
                &message.allow_origin_string_match,
                StringMatcher::parse,
            ),
            allow_methods: message.allow_methods,
            allow_headers: message.allow_headers,
            expose_headers: message.expose_headers,
            max_age: message.max_age,
            allow_credentials: message.allow_credentials.unwrap_or(false),
            allow_private_network: message.allow_private_network_access.unwrap_or(false),
            enabled,
            shadow: context.optional(
                "shadow_enabled",
                message.shadow_enabled.as_ref(),
                fraction::runtime,
            ),
            forward_not_matching_preflights: message
                .forward_not_matching_preflights
                .unwrap_or(true),
        })
    }
}

#[derive(Debug)]
pub struct Filter {
    /// Set for requests whose responses get headers.
    matched: Option<(Arc<Policy>, Vec<u8>)>,
}

impl Filter {
    pub fn new(_config: &Arc<Config>) -> Filter {
        Filter { matched: None }
    }
}

impl Hooks for Filter {
    fn request_headers(&mut self, name: &str, call: &mut RequestCall<'_, '_>) -> Flow {
        let Some(Override::Cors(policy)) = call.context.settings(name) else {
            return Flow::Continue;
        };
        let enabled = policy.enabled.holds(call.context.draw());
        if !enabled && policy.shadow.is_none_or(|shadow| shadow.is_none()) {
            return Flow::Continue;
        }
        let head = &call.head;
        let Some(origin) = head
            .headers
            .get("origin")
            .filter(|origin| !origin.is_empty())
        else {
            return Flow::Continue;
        };
        let preflight = &head.method[..] == b"OPTIONS"
            && head
                .headers
                .get("access-control-request-method")
                .is_some_and(|m| !m.is_empty());
        if !policy.origins.iter().any(|one| one.matches(origin)) {
            if preflight && enabled && !policy.forward_not_matching_preflights {
                return Flow::Reply(LocalReply::new(200, "cors_response"));
            }
            return Flow::Continue;
        }
        if !enabled {
            return Flow::Continue;
        }
        self.matched = Some((policy.clone(), origin.to_vec()));
        if !preflight {
            return Flow::Continue;
        }
        let wants_private =
            head.headers.get("access-control-request-private-network") == Some(b"true");
        let mut reply = LocalReply::new(200, "cors_response");
        let mut header = |name: &'static str, value: &[u8]| {
            if !value.is_empty() {
                reply.headers.push((Cow::Borrowed(name), value.to_vec()));
            }
        };
        // The origin and the credentials are added on the way out.
        header(
            "access-control-allow-methods",
            policy.allow_methods.as_bytes(),
        );
        header(
            "access-control-allow-headers",
            policy.allow_headers.as_bytes(),
        );
        header("access-control-max-age", policy.max_age.as_bytes());
        if policy.allow_private_network && wants_private {
            header("access-control-allow-private-network", b"true");
        }
        Flow::Reply(reply)
    }

    fn response_headers(&mut self, call: &mut ResponseCall<'_, '_>) {
        let Some((policy, origin)) = &self.matched else {
            return;
        };
        let headers = &mut call.head.headers;
        headers.set("access-control-allow-origin", origin);
        if policy.allow_credentials {
            headers.set("access-control-allow-credentials", b"true");
        }
        if !policy.expose_headers.is_empty() {
            headers.set(
                "access-control-expose-headers",
                policy.expose_headers.as_bytes(),
            );
        }
    }
}
