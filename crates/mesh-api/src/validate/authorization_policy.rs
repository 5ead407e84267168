//! AuthorizationPolicy: rules that say what they seem to say.

use super::selector::{self, Targets};
use super::{Check, values};
use crate::kinds::authorization_policy::{
    Action, AuthorizationPolicy, Condition, Operation, Rule, Source,
};

const DRY_RUN: &str = "istio.io/dry-run";

pub fn check(c: &mut Check<'_>, spec: &AuthorizationPolicy) {
    check_dry_run(c);
    let targets = Targets {
        selector: spec.selector.as_ref(),
        target_ref: spec.target_ref.as_ref(),
        target_refs: &spec.target_refs,
    };
    selector::check_targets(c, &targets);
    check_action(c, spec);
    c.each("rules", &spec.rules, |c, rule| {
        check_rule(c, rule, spec.action)
    });
}

fn check_dry_run(c: &mut Check<'_>) {
    let value = c.object.meta.annotations.get(DRY_RUN);
    if value.is_some_and(|value| value.parse::<bool>().is_err()) {
        c.error(
            "",
            format!("the annotation {DRY_RUN} must be true or false"),
        );
    }
}

/// Only an AuthorizationPolicy can be tried without effect.
pub fn refuse_dry_run(c: &mut Check<'_>) {
    if c.object.meta.annotations.contains_key(DRY_RUN) {
        c.error(
            "",
            format!("the annotation {DRY_RUN} is for AuthorizationPolicy only"),
        );
    }
}

fn check_action(c: &mut Check<'_>, spec: &AuthorizationPolicy) {
    let provider = spec
        .provider
        .as_ref()
        .map_or("", |provider| provider.name.as_str());
    match spec.action {
        Action::Custom if provider.is_empty() => {
            c.error("provider", "action CUSTOM needs the name of a provider");
        }
        Action::Custom => {}
        other if spec.provider.is_some() => {
            c.error(
                "provider",
                format!("action {} has no provider", other.as_str()),
            );
        }
        _ => {}
    }
    if spec.rules.is_empty() {
        match spec.action {
            Action::Custom | Action::Deny => {
                let why = "has no effect without rules; an empty rule {} matches every request";
                c.error("rules", format!("action {} {why}", spec.action.as_str()));
            }
            Action::Allow => {
                if !has_target(spec) && c.object.meta.namespace == "istio-system" {
                    c.warn("rules", "without rules every request in the mesh is denied");
                }
            }
            Action::Audit => {}
        }
    }
}

fn has_target(spec: &AuthorizationPolicy) -> bool {
    spec.selector.is_some() || spec.target_ref.is_some() || !spec.target_refs.is_empty()
}

fn check_rule(c: &mut Check<'_>, rule: &Rule, action: Action) {
    c.each("from", &rule.from, |c, from| match &from.source {
        Some(source) => c.at("source", |c| check_source(c, source, action)),
        None => c.error("source", "must be provided"),
    });
    c.each("to", &rule.to, |c, to| match &to.operation {
        Some(operation) => c.at("operation", |c| check_operation(c, operation)),
        None => c.error("operation", "must be provided"),
    });
    c.each("when", &rule.when, |c, condition| {
        check_condition(c, condition, action)
    });
}

fn check_source(c: &mut Check<'_>, source: &Source, action: Action) {
    if *source == Source::default() {
        c.error("", "must have at least one field");
    }
    let lists: [(&str, &[String]); 14] = [
        ("principals", &source.principals),
        ("notPrincipals", &source.not_principals),
        ("requestPrincipals", &source.request_principals),
        ("notRequestPrincipals", &source.not_request_principals),
        ("namespaces", &source.namespaces),
        ("notNamespaces", &source.not_namespaces),
        ("serviceAccounts", &source.service_accounts),
        ("notServiceAccounts", &source.not_service_accounts),
        ("ipBlocks", &source.ip_blocks),
        ("notIpBlocks", &source.not_ip_blocks),
        ("remoteIpBlocks", &source.remote_ip_blocks),
        ("notRemoteIpBlocks", &source.not_remote_ip_blocks),
        ("trustDomains", &source.trust_domains),
        ("notTrustDomains", &source.not_trust_domains),
    ];
    check_not_empty(c, &lists);
    for (field, list) in &lists[8..12] {
        c.each(field, list, |c, block| {
            c.verify("", values::ip_or_range(block))
        });
    }
    if action == Action::Custom {
        for (field, list) in &lists[..6] {
            if !list.is_empty() {
                c.error(field, "is not supported with action CUSTOM");
            }
        }
    }
    let accounts = !source.service_accounts.is_empty() || !source.not_service_accounts.is_empty();
    for (field, list) in [&lists[0], &lists[1], &lists[4], &lists[5]] {
        if accounts && !list.is_empty() {
            c.error(field, "cannot stand beside serviceAccounts");
        }
    }
    for (field, list) in &lists[6..8] {
        if list.len() > 16 {
            c.not_allowed(field, "has too many entries", "16 at most");
        }
        c.each(field, list, |c, account| check_service_account(c, account));
    }
}

fn check_service_account(c: &mut Check<'_>, account: &str) {
    let parts: Vec<&str> = account.split('/').collect();
    let bad_shape = parts.len() > 2 || parts.iter().any(|part| part.is_empty());
    if bad_shape || account.contains('*') {
        let allowed = "account or namespace/account, without wildcards";
        c.not_allowed("", "is not a service account", allowed);
    }
}

fn check_not_empty(c: &mut Check<'_>, lists: &[(&str, &[String])]) {
    for (field, list) in lists {
        c.each(field, list, |c, value| {
            if value.is_empty() {
                c.error("", "must not be empty");
            }
        });
    }
}

fn check_operation(c: &mut Check<'_>, operation: &Operation) {
    if *operation == Operation::default() {
        c.error("", "must have at least one field");
    }
    let lists: [(&str, &[String]); 8] = [
        ("ports", &operation.ports),
        ("notPorts", &operation.not_ports),
        ("paths", &operation.paths),
        ("notPaths", &operation.not_paths),
        ("hosts", &operation.hosts),
        ("notHosts", &operation.not_hosts),
        ("methods", &operation.methods),
        ("notMethods", &operation.not_methods),
    ];
    check_not_empty(c, &lists);
    for (field, list) in &lists[..2] {
        c.each(field, list, |c, port| c.verify("", policy_port(port)));
    }
    for (field, list) in &lists[2..4] {
        c.each(field, list, |c, path| c.verify("", path_template(path)));
    }
}

fn policy_port(port: &str) -> Result<(), String> {
    match port.parse::<u16>() {
        Ok(_) => Ok(()),
        Err(_) => Err(format!("{:?} is not a port", values::cut(port))),
    }
}

/// `{*}` is one segment, `{**}` any number and the last template of a path; nothing else may be
/// in such a segment.
fn path_template(path: &str) -> Result<(), String> {
    if !path.contains(['{', '}']) {
        return Ok(());
    }
    let bad = |why: &str| {
        Err(format!(
            "{:?} is not a path template: {why}",
            values::cut(path)
        ))
    };
    let mut ended = false;
    for segment in path.split('/').skip(1) {
        let is_template = matches!(segment, "{*}" | "{**}");
        if ended && is_template {
            return bad("{**} must be the last one");
        }
        if !is_template && segment.contains(['{', '}']) {
            return bad("only {*} and {**} are allowed");
        }
        if !is_template && segment.contains('*') {
            return bad("`*` cannot stand beside a template");
        }
        ended |= segment == "{**}";
    }
    match path.starts_with('/') {
        true => Ok(()),
        false => bad("it does not start with `/`"),
    }
}

const KEYS: &str = "request.headers[x], source.ip, remote.ip, source.namespace, \
    source.serviceAccount, source.trustDomain, source.principal, request.auth.principal, \
    request.auth.audiences, request.auth.presenter, request.auth.claims[x], destination.ip, \
    destination.port, connection.sni, experimental.envoy.filters.x[y]";

fn check_condition(c: &mut Check<'_>, condition: &Condition, action: Action) {
    if condition.values.is_empty() && condition.not_values.is_empty() {
        c.error("values", "values or notValues must be provided");
    }
    check_not_empty(
        c,
        &[
            ("values", &condition.values),
            ("notValues", &condition.not_values),
        ],
    );
    let key = condition.key.as_str();
    let bracketed = |prefix: &str| {
        key.strip_prefix(prefix)
            .and_then(|rest| rest.strip_prefix('['))
            .is_some_and(|rest| rest.len() > 1 && rest.ends_with(']'))
    };
    let lists = [
        ("values", &condition.values),
        ("notValues", &condition.not_values),
    ];
    match key {
        "source.ip" | "remote.ip" | "destination.ip" => {
            for (field, list) in lists {
                c.each(field, list, |c, block| {
                    c.verify("", values::ip_or_range(block))
                });
            }
        }
        "destination.port" => {
            for (field, list) in lists {
                c.each(field, list, |c, port| c.verify("", policy_port(port)));
            }
        }
        "source.serviceAccount" => {
            for (field, list) in lists {
                c.each(field, list, |c, account| check_service_account(c, account));
            }
        }
        "source.namespace"
        | "source.trustDomain"
        | "source.principal"
        | "request.auth.principal"
        | "request.auth.audiences"
        | "request.auth.presenter"
        | "connection.sni" => {}
        _ if bracketed("request.headers") || bracketed("request.auth.claims") => {}
        _ if key.starts_with("experimental.envoy.filters.") && key.ends_with(']') => {}
        _ => {
            let message = format!("unknown key {:?}", values::cut(key));
            c.not_allowed("key", message, KEYS);
        }
    }
    let needs_identity = key.starts_with("request.auth.")
        || matches!(
            key,
            "source.namespace" | "source.principal" | "source.serviceAccount"
        );
    if action == Action::Custom && needs_identity {
        c.error("key", "is not supported with action CUSTOM");
    }
}
