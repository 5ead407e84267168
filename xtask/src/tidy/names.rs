//! Rules on names: banned words, no `get_`, and no `..` where every field must be named.

use super::Breach;
use super::source::Source;

const BANNED: &[&str] = &[
    "Manager", "Helper", "Util", "Utils", "Common", "Info", "Data", "Impl", "Wrapper", "Misc",
];

/// The standard library's own.
const STANDARD: &[&str] = &["get_ref", "get_mut", "get_all", "get_str"];

/// Names that are not ours to choose, or that say what they are.
const ALLOWED: &[(&str, &str)] = &[
    ("StreamInfo", "Envoy's word for the record of a stream"),
    ("stream_info", "the file of StreamInfo"),
    ("HttpConnectionManager", "Envoy's message"),
    ("ConnectionManager", "Envoy's word"),
    ("http_connection_manager", "Envoy's message"),
    ("NameInfo", "Istio's message"),
    ("Data", "the associated type of http_body::Body"),
    ("RedisInfo", "a peer's message"),
    ("manager", "Envoy's HTTP connection manager"),
    ("server_info", "Envoy's admin page"),
    ("ServerInfo", "Envoy's admin message"),
];

pub fn check(source: &Source, breaches: &mut Vec<Breach>) {
    let file = source
        .name
        .rsplit('/')
        .next()
        .unwrap_or_default()
        .trim_end_matches(".rs");
    if is_banned(file) {
        breaches.push(Breach::new(&source.name, "a banned word as file name"));
    }
    let parses = source.name.starts_with("crates/proxy/src/parse");
    for (number, line) in source.product_code() {
        let place = format!("{}:{number}", source.name);
        let words: Vec<&str> = line
            .split(|c: char| !c.is_alphanumeric() && c != '_')
            .filter(|word| !word.is_empty())
            .collect();
        for pair in words.windows(2) {
            let [keyword, name] = pair else { continue };
            let names = matches!(
                *keyword,
                "struct" | "enum" | "trait" | "type" | "mod" | "union"
            );
            if names && is_banned(name) {
                breaches.push(Breach::new(
                    &place,
                    format!("banned word in the name {name}"),
                ));
            }
            if *keyword == "fn" && name.starts_with("get_") && !STANDARD.contains(name) {
                breaches.push(Breach::new(&place, format!("no `get_` prefix: {name}")));
            }
        }
        if parses && has_rest_pattern(line) {
            let text = "`..` hides unread fields: name every field of a parsed message";
            breaches.push(Breach::new(&place, text));
        }
    }
}

fn is_banned(name: &str) -> bool {
    if ALLOWED.iter().any(|(allowed, _)| *allowed == name) {
        return false;
    }
    BANNED.iter().any(|word| {
        let snake = word.to_ascii_lowercase();
        name == *word
            || name == snake
            || name.ends_with(word)
            || name.ends_with(&format!("_{snake}"))
    })
}

/// `module::Message { …, .. }` on one line, or `..` alone on its line; the variants of our own
/// enums (`Address::Name { host, .. }`) hide no field of Envoy's.
fn has_rest_pattern(line: &str) -> bool {
    let compact: String = line.chars().filter(|c| !c.is_whitespace()).collect();
    let Some(rest) = compact.find("..}") else {
        return compact == "..";
    };
    let open = compact[..rest].rfind('{').unwrap_or(0);
    let path = compact[..open].rsplit(|c: char| !c.is_alphanumeric() && c != '_' && c != ':');
    let path = path.into_iter().next().unwrap_or_default();
    let path = path.strip_prefix("let").unwrap_or(path);
    path.contains("::") && path.starts_with(|c: char| c.is_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn breaches(name: &str, text: &str) -> usize {
        let mut found = Vec::new();
        check(&Source::new(name.into(), text.to_owned()), &mut found);
        found.len()
    }

    #[test]
    fn names_and_patterns() {
        for (file, text, want, why) in [
            ("crates/x/src/a.rs", "struct RouteTable;", 0, "a good name"),
            ("crates/x/src/a.rs", "struct RouteManager;", 1, "a suffix"),
            ("crates/x/src/a.rs", "mod utils;", 1, "a module"),
            ("crates/x/src/helper.rs", "", 1, "a file"),
            ("crates/x/src/a.rs", "fn get_route() {}", 1, "a prefix"),
            ("crates/x/src/a.rs", "struct StreamInfo;", 0, "Envoy's word"),
            (
                "crates/proxy/src/parse/a.rs",
                "let core::Node { id, .. } = m;",
                1,
                "a rest pattern",
            ),
            (
                "crates/proxy/src/parse/a.rs",
                "let x = A { b, ..A::default() };",
                0,
                "an update",
            ),
            (
                "crates/proxy/src/parse/a.rs",
                "Address::Name { host, .. } => host,",
                0,
                "an enum of ours",
            ),
            (
                "crates/proxy/src/state.rs",
                "let core::Node { id, .. } = m;",
                0,
                "not parsing",
            ),
        ] {
            assert_eq!(breaches(file, text), want, "{why}");
        }
    }
}
