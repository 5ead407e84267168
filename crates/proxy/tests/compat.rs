//! `docs/compat/envoy.md` is what the parsers' tables say. `STOLOS_GOLDEN=rewrite` writes it anew.

use std::fmt::Write as _;
use std::path::Path;

use proxy::parse::compat::{Support, table};

const TITLE: &str = "\
# What of Envoy's API our proxy performs

Generated from the parsers' own tables by `cargo xtask golden`; a test compares.

* **read**: parsed; values that are not performed are refused where they are read.
* **rejected**: setting it is an error that names the field (a NACK).
* **ignored**: accepted and without effect, for the reason given.

A message that is not here is refused by its type.
";

#[test]
fn golden_table_of_envoy_fields() {
    let mut text = TITLE.to_owned();
    for row in table() {
        let names = |wanted: fn(&Support) -> bool| {
            let fields = row.fields.iter().filter(|field| wanted(&field.support));
            fields
                .map(|field| format!("`{}`", field.name))
                .collect::<Vec<_>>()
                .join(", ")
        };
        let _ = writeln!(text, "\n## {}\n", row.message);
        for (title, fields) in [
            ("read", names(|support| matches!(support, Support::Read))),
            (
                "rejected",
                names(|support| matches!(support, Support::Rejected)),
            ),
        ] {
            if !fields.is_empty() {
                let _ = writeln!(text, "* **{title}**: {fields}");
            }
        }
        for field in row.fields {
            if let Support::Ignored(why) = field.support {
                let _ = writeln!(text, "* **ignored**: `{}`: {why}", field.name);
            }
        }
    }
    compare("docs/compat/envoy.md", &text);
}

fn compare(file: &str, want: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .join(file);
    if std::env::var("STOLOS_GOLDEN").is_ok_and(|value| value == "rewrite") {
        std::fs::write(&path, want).expect("writes docs/compat/envoy.md");
    }
    let have = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        have == want,
        "{file} is not what the tables say: run `cargo xtask golden`"
    );
}
