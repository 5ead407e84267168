//! Reading `stolos.yaml`: strict, every error with its place.

use std::collections::BTreeMap;

use mesh_api::decode::{Decode, Decoder};
use mesh_api::mesh_config::MeshConfig;
use mesh_api::node::Span;
use mesh_api::parse::yaml;
use mesh_api::{Diagnostic, Reason, Severity, message};

use crate::manifest::local_mesh::{API_VERSION, ImageRule, KIND, LocalMesh};

message! {
    /// The whole document.
    pub struct Document {
        api_version: String,
        kind: String,
        metadata: Option<DocumentMetadata>,
        spec: Option<LocalMesh>,
    }
}

message! {
    pub struct DocumentMetadata {
        name: String,
        labels: BTreeMap<String, String>,
        annotations: BTreeMap<String, String>,
    }
}

/// The mesh's name and settings; what is wrong goes to `findings`.
pub fn parse(file: &str, text: &str, findings: &mut Vec<Diagnostic>) -> (String, LocalMesh) {
    let finding = |span: Span, path: &str, (reason, message): (Reason, String)| Diagnostic {
        severity: Severity::Error,
        reason,
        file: file.into(),
        line: span.line,
        column: span.column,
        path: path.to_owned(),
        object: None,
        message,
        allowed: None,
    };
    let loaded = yaml::load(text, &yaml::Limits::default());
    for error in loaded.errors {
        findings.push(finding(error.span, "", (Reason::Syntax, error.message)));
    }
    if !findings.is_empty() {
        return Default::default();
    }
    let mut decoder = Decoder::new("");
    let node = loaded.documents.first().cloned().unwrap_or_default();
    let document = Document::decode(&node, &mut decoder).unwrap_or_default();
    for problem in decoder.problems {
        let reason = (problem.reason, problem.message);
        let found = finding(problem.span, &problem.path, reason);
        findings.push(Diagnostic {
            allowed: problem.allowed,
            ..found
        });
    }
    if let Some(config) = node
        .member("spec")
        .and_then(|spec| spec.member("meshConfig"))
    {
        let checked = MeshConfig::from_node(file, config, "spec.meshConfig");
        findings.extend(checked.err().unwrap_or_default());
    }
    let span_of = |key: &str| node.member(key).map_or(node.span, |member| member.span);
    let mut refuse = |key: &str, message: String| {
        findings.push(finding(span_of(key), key, (Reason::Invalid, message)));
    };
    check(&document, &mut refuse);
    let name = document.metadata.unwrap_or_default().name;
    (name, document.spec.unwrap_or_default())
}

/// What the types alone do not say.
fn check(document: &Document, refuse: &mut dyn FnMut(&str, String)) {
    if document.api_version != API_VERSION {
        refuse("apiVersion", format!("must be {API_VERSION}"));
    }
    if document.kind != KIND {
        refuse("kind", format!("must be {KIND}"));
    }
    let name = document
        .metadata
        .as_ref()
        .map_or("", |metadata| &metadata.name);
    if !is_name(name) {
        refuse(
            "metadata",
            "name must be lower-case letters, digits and -, at most 40".to_owned(),
        );
    }
    let Some(settings) = &document.spec else {
        return;
    };
    if settings.build.iter().any(Vec::is_empty) {
        refuse("spec", "build: a command is empty".to_owned());
    }
    let is_incomplete = |rule: &ImageRule| rule.r#match.is_empty() || rule.command.is_empty();
    if settings.images.iter().any(is_incomplete) {
        refuse(
            "spec",
            "images: an entry needs match and command".to_owned(),
        );
    }
    for key in settings.publish.keys() {
        if crate::publish::parse_key(key).is_none() {
            let message = format!("publish: {key:?} is not SERVICE[.NAMESPACE]:PORT");
            refuse("spec", message);
        }
    }
}

/// What can be a folder's name and a part of messages.
pub fn is_name(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    !name.is_empty() && name.len() <= 40 && name.chars().all(allowed) && !name.starts_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_where_and_what_is_allowed() {
        let text = "apiVersion: local.stolos.dev/v1alpha1\nkind: LocalMesh\n\
                    metadata: {name: shop}\nspec:\n  proxy: envoi\n  imagse: []\n";
        let mut findings = Vec::new();
        let (name, _) = parse("shop/stolos.yaml", text, &mut findings);
        assert_eq!(name, "shop");
        let texts: Vec<String> = findings.iter().map(ToString::to_string).collect();
        assert_eq!(texts.len(), 2, "{texts:?}");
        assert!(
            texts[0].starts_with("shop/stolos.yaml:5:"),
            "line of the value: {texts:?}"
        );
        assert!(
            texts[0].contains("stolos") && texts[0].contains("envoy"),
            "allowed: {texts:?}"
        );
        assert!(texts[1].contains("imagse"), "{texts:?}");
    }

    #[test]
    fn a_mesh_config_is_checked_at_its_place() {
        let text = "apiVersion: local.stolos.dev/v1alpha1\nkind: LocalMesh\n\
                    metadata: {name: shop}\nspec:\n  meshConfig:\n    trustDomian: a\n";
        let mut findings = Vec::new();
        parse("stolos.yaml", text, &mut findings);
        let text = findings.iter().map(ToString::to_string).collect::<String>();
        assert!(
            text.starts_with("stolos.yaml:6:5: error: spec.meshConfig.trustDomian"),
            "{text}"
        );
    }

    #[test]
    fn other_kinds_are_refused() {
        let mut findings = Vec::new();
        parse(
            "f",
            "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\n",
            &mut findings,
        );
        assert_eq!(findings.len(), 2, "version and kind: {findings:?}");
    }
}
