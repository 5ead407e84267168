//! The network RBAC filter: decides once per connection. Where the filter chain was replaced since,
//! the new chain's filter decides before the next HTTP request; a TCP connection has no next
//! request, so its verdict holds until its replaced chain is drained.

use std::sync::Arc;

use envoy_api::rbac_network;

use crate::parse::Context;
use crate::parse::compat::Message as _;
use crate::rbac::{Facts, Rbac, Verdict};
use crate::stream_info::StreamInfo;

#[derive(Debug)]
pub struct NetworkRbac {
    pub stat_prefix: Arc<str>,
    pub shadow_prefix: Arc<str>,
    rules: Option<Rbac>,
    shadow: Option<Rbac>,
    counters: crate::stats::rbac::RbacCounters,
}

fields! {
    rbac_network::Rbac {
        read: rules, shadow_rules, shadow_rules_stat_prefix, stat_prefix, enforcement_type;
        reject: matcher, shadow_matcher, delay_deny;
    }
}

impl NetworkRbac {
    pub fn parse(context: &mut Context, message: &rbac_network::Rbac) -> Option<NetworkRbac> {
        use rbac_network::rbac::EnforcementType;
        message.check(context);
        context.non_empty("stat_prefix", &message.stat_prefix);
        let rules = context.optional("rules", message.rules.as_ref(), Rbac::parse);
        let shadow = context.optional("shadow_rules", message.shadow_rules.as_ref(), Rbac::parse);
        let kind = message.enforcement_type;
        let kind = context.enumeration::<EnforcementType>("enforcement_type", kind)?;
        if kind == EnforcementType::Continuous {
            context.error_at("enforcement_type", "CONTINUOUS is not supported");
        }
        let prefix = &message.stat_prefix;
        // Envoy inserts no dot where the prefix already ends with one.
        let dot = if prefix.ends_with('.') { "" } else { "." };
        let counters = crate::stats::rbac::RbacCounters::new(
            &context.environment().stats,
            &format!("{prefix}{dot}rbac."),
            &message.shadow_rules_stat_prefix,
        );
        Some(NetworkRbac {
            stat_prefix: message.stat_prefix.as_str().into(),
            shadow_prefix: message.shadow_rules_stat_prefix.as_str().into(),
            rules,
            shadow,
            counters,
        })
    }

    /// The verdict for this connection; a denial's details go into
    /// `connection_termination_details` and the connection is closed.
    pub fn check(&self, stream: &mut StreamInfo) -> Verdict {
        let facts = Facts {
            stream,
            request: None,
        };
        if let Some(shadow) = &self.shadow {
            let verdict = shadow.evaluate(&facts);
            self.counters.shadow(verdict.allowed);
        }
        let Some(rules) = &self.rules else {
            return Verdict {
                allowed: true,
                policy: None,
            };
        };
        let verdict = rules.evaluate(&facts);
        self.counters.enforced(verdict.allowed);
        if !verdict.allowed {
            stream.connection_termination_details = Some(verdict.details().into());
        }
        verdict
    }
}
