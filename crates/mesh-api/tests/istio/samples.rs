//! Istio's sample files parse and validate, as far as we know their kinds.

use mesh_api::kinds::Kind;
use mesh_api::parse::{self, ParseOptions};
use mesh_api::{Reason, validate};

use crate::crd_fields::round_trip;
use crate::testdata::{self, Ratchet};

fn try_file(name: &str, text: &str, strict: bool) -> Result<(), String> {
    let parsed = parse::parse(name, text, &ParseOptions::default());
    for found in parsed.diagnostics.iter().filter(|d| d.is_error()) {
        if strict || found.reason != Reason::UnknownKind {
            return Err(found.to_string());
        }
    }
    for object in &parsed.objects {
        if let Some(error) = validate::rules(object).iter().find(|d| d.is_error()) {
            return Err(error.to_string());
        }
        round_trip(object)?;
    }
    Ok(())
}

#[test]
fn samples_parse_and_validate() {
    let mut ratchet = Ratchet::new("samples");
    for file in testdata::files("istio/samples", &["yaml"]) {
        let path = file.to_string_lossy();
        let name = path.split("istio/samples/").last().unwrap().to_owned();
        let text = std::fs::read_to_string(&file).unwrap();
        let strict = name.starts_with("bookinfo/networking/");
        ratchet.row(&name, try_file(&name, &text, strict));
    }
    ratchet.finish();
}

#[test]
fn every_kind_is_in_the_table_once() {
    for (index, kind) in Kind::ALL.iter().enumerate() {
        let same = |other: &Kind| other.plural() == kind.plural();
        assert_eq!(Kind::ALL.iter().position(same), Some(index), "{kind}");
        assert_eq!(Kind::from_name(kind.name()), Some(*kind));
    }
}
