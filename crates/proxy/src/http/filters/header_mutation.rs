//! Header edits as a filter, pseudo headers included.

use std::sync::Arc;

use envoy_api::envoy::config::common::mutation_rules::v3 as rules;
use envoy_api::header_mutation as wire;
use prost_types::Any;

use super::{Flow, Hooks, Override, RequestCall, ResponseCall};
use crate::access_log::Input;
use crate::matcher::StringMatcher;
use crate::parse::Context;
use crate::parse::compat::Message as _;
use crate::route::edits::{EditAction, HeaderEdit, HeaderEdits};

#[derive(Debug, Default)]
pub struct Config {
    request: Vec<Mutation>,
    response: Vec<Mutation>,
}

#[derive(Debug)]
enum Mutation {
    Remove(String),
    RemoveMatching(StringMatcher),
    Add(HeaderEdit),
}

fields! {
    wire::HeaderMutation {
        read: mutations;
        reject: most_specific_header_mutations_wins;
    }
    wire::HeaderMutationPerRoute { read: mutations; }
    wire::Mutations {
        read: request_mutations, response_mutations;
        reject: query_parameter_mutations, response_trailers_mutations,
            request_trailers_mutations;
    }
    rules::HeaderMutation { read: action; }
}

impl Config {
    pub fn parse(context: &mut Context, any: &Any) -> Option<Config> {
        let message = context.open::<wire::HeaderMutation>(any)?;
        message.check(context);
        Some(Config::of(context, message.mutations.as_ref()))
    }

    pub fn parse_per_route(context: &mut Context, any: &Any) -> Option<Config> {
        let message = context.open::<wire::HeaderMutationPerRoute>(any)?;
        message.check(context);
        Some(Config::of(context, message.mutations.as_ref()))
    }

    fn of(context: &mut Context, message: Option<&wire::Mutations>) -> Config {
        let parsed = context.optional("mutations", message, |context, message| {
            message.check(context);
            Some(Config {
                request: context.each("request_mutations", &message.request_mutations, mutation),
                response: context.each("response_mutations", &message.response_mutations, mutation),
            })
        });
        parsed.unwrap_or_default()
    }
}

fn mutation(context: &mut Context, message: &rules::HeaderMutation) -> Option<Mutation> {
    use rules::header_mutation::Action;
    message.check(context);
    match &message.action {
        Some(Action::Remove(name)) => {
            context.non_empty("remove", name);
            Some(Mutation::Remove(name.to_ascii_lowercase()))
        }
        Some(Action::Append(one)) => {
            let edit = context.field("append", |context| HeaderEdit::parse_any(context, one))?;
            // `:path` would have to be routed again; Envoy does that, we refuse.
            if edit.name.starts_with(':') {
                context.error_at("append", "pseudo headers are not supported");
            }
            Some(Mutation::Add(edit))
        }
        Some(Action::RemoveOnMatch(one)) => {
            let matcher = one.key_matcher.as_ref();
            context
                .required("remove_on_match.key_matcher", matcher, StringMatcher::parse)
                .map(Mutation::RemoveMatching)
        }
        None => {
            context.error_at("action", "is required");
            None
        }
    }
}

#[derive(Debug)]
pub struct Filter {
    config: Arc<Config>,
    route: Option<Arc<Config>>,
}

impl Filter {
    pub fn new(config: &Arc<Config>) -> Filter {
        Filter {
            config: config.clone(),
            route: None,
        }
    }
}

fn apply(
    mutations: &[Mutation],
    headers: &mut crate::http::headers::Headers,
    value: impl Fn(&HeaderEdit) -> Vec<u8>,
) {
    for mutation in mutations {
        match mutation {
            Mutation::Remove(name) => {
                headers.remove(name);
            }
            Mutation::RemoveMatching(matcher) => {
                headers.remove_where(|name, _| matcher.matches(&name.to_ascii_lowercase()));
            }
            Mutation::Add(edit) => {
                let edits = HeaderEdits {
                    remove: Vec::new(),
                    add: vec![edit.clone()],
                };
                edits.apply(headers, &[value(edit)]);
            }
        }
    }
}

impl Hooks for Filter {
    fn request_headers(&mut self, name: &str, call: &mut RequestCall<'_, '_>) -> Flow {
        if let Some(Override::HeaderMutation(config)) = call.context.settings(name) {
            self.route = Some(config.clone());
        }
        for config in [Some(&self.config), self.route.as_ref()]
            .into_iter()
            .flatten()
        {
            for mutation in &config.request {
                // One by one: a later value sees what an earlier mutation did.
                let value = match mutation {
                    Mutation::Add(edit)
                        if edit.action != EditAction::OverwriteIfExists
                            || call.head.headers.contains(&edit.name) =>
                    {
                        let (request, response, trailers) = (Some(&*call.head), None, None);
                        let input = Input {
                            stream: call.stream,
                            request,
                            response,
                            trailers,
                        };
                        edit.value.render(&input)
                    }
                    _ => Vec::new(),
                };
                apply(
                    std::slice::from_ref(mutation),
                    &mut call.head.headers,
                    |_| value.clone(),
                );
            }
        }
        Flow::Continue
    }

    fn response_headers(&mut self, call: &mut ResponseCall<'_, '_>) {
        for config in [Some(&self.config), self.route.as_ref()]
            .into_iter()
            .flatten()
        {
            for mutation in &config.response {
                let value = match mutation {
                    Mutation::Add(edit) => {
                        let (request, response, trailers) = (None, Some(&*call.head), None);
                        let input = Input {
                            stream: call.stream,
                            request,
                            response,
                            trailers,
                        };
                        edit.value.render(&input)
                    }
                    _ => Vec::new(),
                };
                apply(
                    std::slice::from_ref(mutation),
                    &mut call.head.headers,
                    |_| value.clone(),
                );
            }
        }
    }
}
