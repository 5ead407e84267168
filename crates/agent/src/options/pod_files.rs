//! The downward API's files of labels and annotations: `key="value"` lines, quoted as Go does.

use std::collections::BTreeMap;
use std::path::Path;

use crate::AgentError;

/// A missing file is an empty one: not every pod has labels.
pub fn read(path: &Path) -> Result<BTreeMap<String, String>, AgentError> {
    match std::fs::read_to_string(path) {
        Ok(text) => parse(&text).map_err(|line| {
            let reason = format!("line {line} is not KEY=\"VALUE\"");
            AgentError::setting(&path.display().to_string(), reason)
        }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(BTreeMap::new()),
        Err(error) => Err(AgentError::io(path.display().to_string())(error)),
    }
}

/// An error is the number of the line.
fn parse(text: &str) -> Result<BTreeMap<String, String>, usize> {
    let lines = text
        .lines()
        .enumerate()
        .filter(|(_, line)| !line.trim().is_empty());
    lines
        .map(|(index, line)| {
            let (key, value) = line.split_once('=').ok_or(index + 1)?;
            // Go's quoting of what Kubernetes lets through is JSON's.
            let value = serde_json::from_str(value).map_err(|_| index + 1)?;
            Ok((key.to_string(), value))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        let text = "app=\"a\"\nconfig=\"foo: bar\\nother: \\\"x\\\"\"\nodd=\"a=b\"\n";
        let map = parse(text).unwrap();
        assert_eq!(map["config"], "foo: bar\nother: \"x\"");
        assert_eq!((map["app"].as_str(), map["odd"].as_str()), ("a", "a=b"));
        assert_eq!(parse("a=\"b\"\nbroken"), Err(2));
    }
}
