//! `stolos apply`: Istio configuration into the control plane, and the wait until it is in force.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use super::Scope;
use crate::exit::CliError;
use crate::mesh::{Mesh, block_on, expect};

/// A file larger than this is refused before it is sent.
const MOST_BYTES: u64 = 64 << 20;

#[derive(Debug, Args)]
pub struct Apply {
    /// A file, a directory, or `-` for standard input; may be given several times.
    #[arg(short, long = "filename", required = true, value_name = "FILE|DIR|-")]
    filename: Vec<PathBuf>,
    /// Also the directories below a directory.
    #[arg(short = 'R', long)]
    recursive: bool,
    /// Return only when every proxy concerned has acknowledged it.
    #[arg(long)]
    wait: bool,
    /// How long to wait.
    #[arg(long, default_value = "60s", value_parser = duration)]
    timeout: Duration,
    /// Check only, change nothing.
    #[arg(long)]
    dry_run: bool,
}

pub fn run(arguments: Apply, scope: &Scope) -> Result<ExitCode, CliError> {
    let files = read_all(&arguments.filename, arguments.recursive)?;
    block_on(async {
        let mesh = Mesh::find(scope.mesh.as_deref())?;
        let generation = send(&mesh, &files, &arguments, scope).await?;
        if arguments.wait && !arguments.dry_run {
            wait(&mesh, generation, arguments.timeout).await?;
        }
        Ok(ExitCode::SUCCESS)
    })
}

/// Sends the files and prints what became of each object; the generation they make.
async fn send(
    mesh: &Mesh,
    files: &[Value],
    arguments: &Apply,
    scope: &Scope,
) -> Result<u64, CliError> {
    let body = json!({
        "files": files, "namespace": scope.namespace, "dryRun": arguments.dry_run,
    });
    let answer = mesh.control.post("/v1/apply", &body).await?;
    let json = answer.json();
    for warning in list(&json, "warnings") {
        eprintln!("{}", diagnostic(warning));
    }
    let errors: Vec<String> = list(&json, "errors").iter().map(diagnostic).collect();
    if !errors.is_empty() {
        return Err(CliError::Input(format!(
            "nothing was applied, for these reasons:\n{}",
            errors.join("\n")
        )));
    }
    let json = expect(answer)?;
    let results = list(&json, "results");
    let suffix = if arguments.dry_run { " (dry run)" } else { "" };
    for result in results {
        println!("{} {}{suffix}", object_name(result), word(result, "action"));
    }
    if results.is_empty() {
        return Err(CliError::Input(
            "there is no object in the input".to_owned(),
        ));
    }
    if results
        .iter()
        .any(|result| word(result, "kind") == "Gateway")
        && !arguments.dry_run
    {
        // The ports that gateways serve follow at once, and `--wait` then waits for them too.
        expect(mesh.supervisor.post("/v1/refresh", &json!({})).await?)?;
    }
    Ok(json["generation"].as_u64().unwrap_or_default())
}

/// Returns when every connected proxy has acknowledged the generation.
pub async fn wait(mesh: &Mesh, generation: u64, timeout: Duration) -> Result<(), CliError> {
    let path = format!(
        "/v1/wait?generation={generation}&timeout={}ms",
        timeout.as_millis()
    );
    let limit = timeout + Duration::from_secs(10);
    let answer = mesh
        .control
        .call("GET", &path, Default::default(), limit)
        .await?;
    let json = expect(answer)?;
    for rejected in list(&json, "rejected") {
        eprintln!(
            "{} refuses {}: {}",
            word(rejected, "id"),
            word(rejected, "type"),
            word(rejected, "message")
        );
    }
    if json["done"].as_bool() == Some(true) {
        let count = list(&json, "proxies").len();
        println!("acknowledged by {count} proxies (generation {generation})");
        return Ok(());
    }
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let waiting: Vec<String> = list(&json, "waiting").iter().map(text).collect();
    Err(CliError::Timeout(format!(
        "not acknowledged within {timeout:?} by: {}; see `stolos status`",
        waiting.join(", ")
    )))
}

/// The members of a list in JSON.
pub fn list<'a>(json: &'a Value, name: &str) -> &'a [Value] {
    json[name].as_array().map_or(&[], Vec::as_slice)
}

/// A member's text.
pub fn word<'a>(json: &'a Value, name: &str) -> &'a str {
    json[name].as_str().unwrap_or_default()
}

/// `virtualservice.networking.istio.io/reviews`, as kubectl says it.
pub fn object_name(object: &Value) -> String {
    let kind = word(object, "kind");
    let group = mesh_api::Kind::from_word(kind)
        .map(mesh_api::Kind::group)
        .unwrap_or_default();
    let dot = if group.is_empty() { "" } else { "." };
    format!(
        "{}{dot}{group}/{}",
        kind.to_lowercase(),
        word(object, "name")
    )
}

/// A diagnostic as one line.
pub fn diagnostic(value: &Value) -> String {
    match serde_json::from_value::<mesh_api::Diagnostic>(value.clone()) {
        Ok(diagnostic) => diagnostic.to_string(),
        Err(_) => value
            .as_str()
            .map_or_else(|| value.to_string(), str::to_owned),
    }
}

/// Every file's name and text.
pub fn read_all(paths: &[PathBuf], recursive: bool) -> Result<Vec<Value>, CliError> {
    let mut files = Vec::new();
    for path in paths {
        if path.as_os_str() == "-" {
            let mut bytes = Vec::new();
            let read = std::io::stdin()
                .take(MOST_BYTES + 1)
                .read_to_end(&mut bytes);
            read.map_err(|error| CliError::Input(format!("standard input: {error}")))?;
            files.push(text_of("<stdin>", bytes)?);
        } else if path.is_dir() {
            read_directory(path, recursive, &mut files)?;
        } else {
            files.push(read_file(path)?);
        }
    }
    Ok(files)
}

fn read_directory(path: &Path, recursive: bool, files: &mut Vec<Value>) -> Result<(), CliError> {
    let failed = |error: std::io::Error| CliError::Input(format!("{}: {error}", path.display()));
    let mut entries: Vec<PathBuf> = Vec::new();
    for entry in std::fs::read_dir(path).map_err(failed)? {
        entries.push(entry.map_err(failed)?.path());
    }
    entries.sort();
    for entry in entries {
        let extension = entry.extension().and_then(|one| one.to_str());
        if entry.is_dir() && recursive {
            read_directory(&entry, recursive, files)?;
        } else if entry.is_file() && matches!(extension, Some("yaml" | "yml" | "json"))
            // The platform's own settings, beside the configuration in a mesh's directory.
            && entry.file_name() != Some(local::manifest::local_mesh::FILE.as_ref())
        {
            files.push(read_file(&entry)?);
        }
    }
    Ok(())
}

fn read_file(path: &Path) -> Result<Value, CliError> {
    let failed = |error: std::io::Error| CliError::Input(format!("{}: {error}", path.display()));
    if std::fs::metadata(path).map_err(failed)?.len() > MOST_BYTES {
        let text = format!("{}: larger than {} MiB", path.display(), MOST_BYTES >> 20);
        return Err(CliError::Input(text));
    }
    let bytes = std::fs::read(path).map_err(failed)?;
    text_of(&path.display().to_string(), bytes)
}

/// A file for the control plane; what is no text is refused with its place.
fn text_of(name: &str, bytes: Vec<u8>) -> Result<Value, CliError> {
    match String::from_utf8(bytes) {
        Ok(text) => Ok(json!({"name": name, "text": text})),
        Err(error) => {
            let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
            let line = valid.iter().filter(|byte| **byte == b'\n').count() + 1;
            let start = valid.iter().rposition(|byte| *byte == b'\n');
            let begun = &valid[start.map_or(0, |at| at + 1)..];
            let column = String::from_utf8_lossy(begun).chars().count() + 1;
            let text = format!("{name}:{line}:{column}: error: this is not UTF-8 text");
            Err(CliError::Input(text))
        }
    }
}

/// `90s`, `2m`, `500ms`, `1h`; a plain number is seconds.
pub fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|one: char| one.is_ascii_alphabetic());
    let number: f64 = digits
        .parse()
        .map_err(|_| format!("{text:?} is no duration like 90s"))?;
    let factor = match &text[digits.len()..] {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        unit => return Err(format!("{unit:?} is no unit; use ms, s, m or h")),
    };
    Duration::try_from_secs_f64(number * factor).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, want) in [
            ("90s", Ok(90_000)),
            ("2m", Ok(120_000)),
            ("250ms", Ok(250)),
            ("3", Ok(3_000)),
            ("1d", Err(())),
            ("", Err(())),
            ("-1s", Err(())),
        ] {
            let millis = duration(text).map(|one| one.as_millis()).map_err(|_| ());
            assert_eq!(millis, want, "{text}");
        }
    }

    #[test]
    fn bytes_that_are_no_text_have_a_place() {
        let error = text_of("a.yaml", b"a: b\nc: \xff".to_vec()).expect_err("no UTF-8");
        let want = "a.yaml:2:4: error: this is not UTF-8 text";
        assert_eq!(error.to_string(), want, "line and column");
    }

    #[test]
    fn names_are_kubectls() {
        let object = json!({"kind": "VirtualService", "name": "reviews"});
        assert_eq!(
            object_name(&object),
            "virtualservice.networking.istio.io/reviews",
            "a kind"
        );
        let object = json!({"kind": "Secret", "name": "a"});
        assert_eq!(
            object_name(&object),
            "secret/a",
            "the core group has no name"
        );
    }
}
