//! The HTTP RBAC filter: rules that are enforced, rules that only tell what they would do.

use std::sync::Arc;

use bytes::Bytes;
use envoy_api::rbac_http;
use prost_types::{Any, Struct, Value, value::Kind};

use super::{Flow, Hooks, LocalReply, Override, RequestCall};
use crate::parse::Context;
use crate::parse::compat::Message as _;
use crate::rbac::{Action, Facts, Rbac, Verdict};
use crate::stats::rbac::RbacCounters;

#[derive(Debug)]
pub struct Config {
    rules: Option<Rbac>,
    shadow: Option<Rbac>,
    shadow_prefix: String,
    counters: RbacCounters,
}

/// `None`: no rules for this route.
#[derive(Debug)]
pub struct PerRoute(Option<Arc<Config>>);

fields! {
    rbac_http::Rbac {
        read: rules, rules_stat_prefix, shadow_rules, shadow_rules_stat_prefix;
        reject: matcher, shadow_matcher, track_per_rule_stats;
    }
    rbac_http::RbacPerRoute { read: rbac; }
}

impl Config {
    pub fn parse(context: &mut Context, any: &Any) -> Option<Config> {
        let message = context.open::<rbac_http::Rbac>(any)?;
        Config::of(context, &message)
    }

    fn of(context: &mut Context, message: &rbac_http::Rbac) -> Option<Config> {
        message.check(context);
        let rules = context.optional("rules", message.rules.as_ref(), Rbac::parse);
        let shadow = context.optional("shadow_rules", message.shadow_rules.as_ref(), Rbac::parse);
        let shadow_prefix = message.shadow_rules_stat_prefix.clone();
        let prefix = format!("http.rbac.{}", message.rules_stat_prefix);
        let counters = RbacCounters::new(&context.environment().stats, &prefix, &shadow_prefix);
        Some(Config {
            rules,
            shadow,
            shadow_prefix,
            counters,
        })
    }
}

impl PerRoute {
    pub fn parse(context: &mut Context, any: &Any) -> Option<PerRoute> {
        let message = context.open::<rbac_http::RbacPerRoute>(any)?;
        message.check(context);
        Some(PerRoute(
            context
                .optional("rbac", message.rbac.as_ref(), Config::of)
                .map(Arc::new),
        ))
    }
}

#[derive(Debug)]
pub struct Filter {
    config: Arc<Config>,
}

impl Filter {
    pub fn new(config: &Arc<Config>) -> Filter {
        Filter {
            config: config.clone(),
        }
    }
}

const NAMESPACE: &str = "envoy.filters.http.rbac";

fn text(value: &str) -> Value {
    Value {
        kind: Some(Kind::StringValue(value.to_owned())),
    }
}

/// What Envoy leaves for later filters and logs: the engine's result and the policy.
fn remember(metadata: &mut Struct, prefix: &str, verdict: &Verdict) {
    let result = if verdict.allowed { "allowed" } else { "denied" };
    metadata
        .fields
        .insert(format!("{prefix}engine_result"), text(result));
    if let Some(policy) = &verdict.policy {
        metadata
            .fields
            .insert(format!("{prefix}effective_policy_id"), text(policy));
    }
}

impl Hooks for Filter {
    fn request_headers(&mut self, name: &str, call: &mut RequestCall<'_, '_>) -> Flow {
        let config = match call.context.settings(name) {
            Some(Override::Rbac(route)) => match &route.0 {
                Some(config) => config.clone(),
                None => return Flow::Continue,
            },
            _ => self.config.clone(),
        };
        if let Some(shadow) = &config.shadow {
            let verdict = shadow.evaluate(&Facts {
                stream: call.stream,
                request: Some(call.head),
            });
            config.counters.shadow(verdict.allowed);
            let metadata = call
                .stream
                .dynamic_metadata
                .entry(NAMESPACE.to_owned())
                .or_default();
            remember(
                metadata,
                &format!("{}shadow_", config.shadow_prefix),
                &verdict,
            );
        }
        let Some(rules) = &config.rules else {
            return Flow::Continue;
        };
        let verdict = rules.evaluate(&Facts {
            stream: call.stream,
            request: Some(call.head),
        });
        config.counters.enforced(verdict.allowed);
        if rules.action == Action::Log {
            let matched = Value {
                kind: Some(Kind::BoolValue(verdict.policy.is_some())),
            };
            let metadata = call
                .stream
                .dynamic_metadata
                .entry("envoy.common".to_owned());
            metadata
                .or_default()
                .fields
                .insert("access_log_hint".to_owned(), matched);
            return Flow::Continue;
        }
        let metadata = call
            .stream
            .dynamic_metadata
            .entry(NAMESPACE.to_owned())
            .or_default();
        remember(metadata, "enforced_", &verdict);
        if verdict.allowed {
            return Flow::Continue;
        }
        let mut reply = LocalReply::new(403, verdict.details());
        reply.body = Bytes::from_static(b"RBAC: access denied");
        Flow::Reply(reply)
    }
}
