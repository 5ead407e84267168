//! `stolos logs`: what a pod's containers have printed.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use super::Scope;
use super::apply::word;
use crate::exit::CliError;
use crate::mesh::{Mesh, block_on};
use crate::pod;

#[derive(Debug, Args)]
pub struct Logs {
    /// `NAME`, `NAME.NAMESPACE` or `deployment/NAME`.
    pod: String,
    /// The container; the first one of the application where not given. `istio-proxy` is the
    /// sidecar.
    #[arg(short, long)]
    container: Option<String>,
    /// Go on as more is printed.
    #[arg(short, long)]
    follow: bool,
    /// Only the last lines.
    #[arg(long, value_name = "LINES")]
    tail: Option<usize>,
}

pub fn run(arguments: Logs, scope: &Scope) -> Result<ExitCode, CliError> {
    let path = block_on(path(&arguments, scope))?;
    let failed = |error: std::io::Error| CliError::failed(format!("{}: {error}", path.display()));
    let mut file = File::open(&path).map_err(failed)?;
    let mut text = Vec::new();
    file.read_to_end(&mut text).map_err(failed)?;
    let from = arguments
        .tail
        .map_or(0, |lines| start_of_last(&text, lines));
    if !print(&text[from..]) {
        return Ok(ExitCode::SUCCESS);
    }
    if !arguments.follow {
        return Ok(ExitCode::SUCCESS);
    }
    loop {
        std::thread::sleep(Duration::from_millis(100));
        let Some(more) = read_more(&path, &mut file).map_err(failed)? else {
            continue;
        };
        if !print(&more) {
            return Ok(ExitCode::SUCCESS);
        }
    }
}

/// A reader that has gone away (`| head`) ends the command.
fn print(text: &[u8]) -> bool {
    let mut out = std::io::stdout().lock();
    out.write_all(text).and_then(|()| out.flush()).is_ok()
}

/// What was added; a file that was replaced or cut is read from its start.
fn read_more(path: &Path, file: &mut File) -> std::io::Result<Option<Vec<u8>>> {
    use std::os::unix::fs::MetadataExt;
    let Ok(now) = std::fs::metadata(path) else {
        return Ok(None);
    };
    let position = file.stream_position()?;
    if now.ino() != file.metadata()?.ino() {
        *file = File::open(path)?;
    } else if now.len() < position {
        file.seek(SeekFrom::Start(0))?;
    }
    let mut more = Vec::new();
    file.read_to_end(&mut more)?;
    Ok((!more.is_empty()).then_some(more))
}

fn start_of_last(text: &[u8], lines: usize) -> usize {
    let body = text.strip_suffix(b"\n").unwrap_or(text);
    let mut ends = body
        .iter()
        .enumerate()
        .rev()
        .filter(|(_, byte)| **byte == b'\n');
    match lines {
        0 => text.len(),
        _ => ends.nth(lines - 1).map_or(0, |(at, _)| at + 1),
    }
}

async fn path(arguments: &Logs, scope: &Scope) -> Result<PathBuf, CliError> {
    let mesh = Mesh::find(scope.mesh.as_deref())?;
    let pod = pod::find(&mesh, &scope.namespace, &arguments.pod).await?;
    let record = pod::record(&mesh, &pod).await?;
    let specs = super::apply::list(&record, "specs");
    let first = specs
        .first()
        .map_or("istio-proxy", |spec| word(spec, "name"));
    let container = arguments.container.as_deref().unwrap_or(first);
    let path = Path::new(word(&record, "logs")).join(format!("{container}.log"));
    let is_name = !container.contains('/');
    if !is_name || !path.exists() {
        let mut names: Vec<&str> = pod.containers.keys().map(String::as_str).collect();
        names.sort_unstable();
        return Err(CliError::failed(format!(
            "container {container} of pod {} has printed nothing; containers: {}",
            pod.name,
            names.join(", ")
        )));
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines() {
        for (lines, want) in [(0, ""), (1, "c\n"), (2, "b\nc\n"), (9, "a\nb\nc\n")] {
            let text = b"a\nb\nc\n";
            let got = &text[start_of_last(text, lines)..];
            assert_eq!(String::from_utf8_lossy(got), want, "{lines} lines");
        }
    }
}
