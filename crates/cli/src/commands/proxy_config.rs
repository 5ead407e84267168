//! `stolos proxy-config`: what one proxy runs with, read from its admin interface inside the
//! pod's network namespace; columns and words are istioctl's.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, ValueEnum};
use serde_json::Value;

use super::Scope;
use crate::exit::CliError;
use crate::mesh::{Mesh, block_on};
use crate::output::{Format, print};
use crate::pod;

mod clusters;
mod dump;
mod endpoints;
mod listeners;
mod routes;
mod secrets;

/// Envoy's admin port in a pod.
const ADMIN: (&str, u16) = ("127.0.0.1", 15000);
const LIMIT: Duration = Duration::from_secs(10);
const MOST_BYTES: u64 = 256 << 20;

#[derive(Debug, Args)]
pub struct ProxyConfig {
    #[arg(value_enum)]
    what: What,
    /// `NAME`, `NAME.NAMESPACE` or `deployment/NAME`.
    pod: String,
    #[arg(short, long, value_enum)]
    output: Option<Format>,
    /// Only what concerns this port.
    #[arg(long)]
    port: Option<u16>,
    /// Only clusters and endpoints of this service's name.
    #[arg(long)]
    fqdn: Option<String>,
    /// Only routes of this name.
    #[arg(long)]
    name: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum What {
    #[value(aliases = ["listener", "l"])]
    Listeners,
    #[value(aliases = ["route", "r"])]
    Routes,
    #[value(aliases = ["cluster", "c"])]
    Clusters,
    #[value(aliases = ["endpoint", "ep"])]
    Endpoints,
    #[value(aliases = ["secret", "s"])]
    Secrets,
    All,
}

/// The filters of the command line.
#[derive(Debug, Default)]
pub struct Filter {
    pub port: Option<u16>,
    pub fqdn: Option<String>,
    pub name: Option<String>,
}

pub fn run(arguments: ProxyConfig, scope: &Scope) -> Result<ExitCode, CliError> {
    let pod = block_on(async {
        let mesh = Mesh::find(scope.mesh.as_deref())?;
        pod::find(&mesh, &scope.namespace, &arguments.pod).await
    })?;
    if pod.proxy.is_empty() {
        return Err(CliError::failed(format!("pod {} has no proxy", pod.name)));
    }
    let get = |path: &'static str| {
        local::node::in_network_of(pod.pid, move || fetch(path)).map_err(|error| {
            CliError::failed(format!(
                "the proxy of pod {} does not answer {path}: {error}",
                pod.name
            ))
        })
    };
    let filter = Filter {
        port: arguments.port,
        fqdn: arguments.fqdn,
        name: arguments.name,
    };
    let dump = dump::Dump::new(get("/config_dump?include_eds")?);
    if let Some(format @ (Format::Json | Format::Yaml)) = arguments.output {
        let value = match arguments.what {
            What::Listeners => Value::from(dump.listeners()),
            What::Routes => Value::from(dump.routes()),
            What::Clusters => Value::from(dump.clusters()),
            What::Endpoints => get("/clusters?format=json")?,
            What::Secrets => Value::from(dump.secrets()),
            What::All => dump.whole(),
        };
        print(&value, format);
        return Ok(ExitCode::SUCCESS);
    }
    let is = |what: What| arguments.what == what || arguments.what == What::All;
    let mut tables = Vec::new();
    if is(What::Clusters) {
        tables.push(clusters::table(&dump.clusters(), &filter));
    }
    if is(What::Listeners) {
        tables.push(listeners::table(&dump.listeners(), &filter));
    }
    if is(What::Routes) {
        tables.push(routes::table(&dump.routes(), &filter));
    }
    if is(What::Endpoints) {
        tables.push(endpoints::table(&get("/clusters?format=json")?, &filter));
    }
    if is(What::Secrets) {
        tables.push(secrets::table(&dump.secrets(), &get("/certs")?));
    }
    for (index, table) in tables.iter().enumerate() {
        if index > 0 {
            println!();
        }
        print!("{table}");
    }
    Ok(ExitCode::SUCCESS)
}

/// One GET, as JSON. HTTP/1.0-style: the connection's end is the body's end.
fn fetch(path: &str) -> std::io::Result<Value> {
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], ADMIN.1));
    let mut stream = TcpStream::connect_timeout(&address, LIMIT)?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.set_write_timeout(Some(LIMIT))?;
    let host = ADMIN.0;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n"
    )?;
    let mut answer = Vec::new();
    stream.take(MOST_BYTES).read_to_end(&mut answer)?;
    parse(&answer).map_err(std::io::Error::other)
}

fn parse(answer: &[u8]) -> Result<Value, String> {
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n");
    let end = end.ok_or("the answer has no head")?;
    let head = String::from_utf8_lossy(&answer[..end]).to_lowercase();
    if !head.starts_with("http/1.1 200") {
        return Err(head.lines().next().unwrap_or_default().to_owned());
    }
    let body = &answer[end + 4..];
    let body = if head.contains("transfer-encoding: chunked") {
        dechunk(body).ok_or("the answer's chunks are broken")?
    } else {
        body.to_vec()
    };
    serde_json::from_slice(&body).map_err(|error| error.to_string())
}

fn dechunk(mut body: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    loop {
        let end = body.windows(2).position(|two| two == b"\r\n")?;
        let line = std::str::from_utf8(&body[..end]).ok()?;
        let size = usize::from_str_radix(line.split(';').next()?.trim(), 16).ok()?;
        body = &body[end + 2..];
        if size == 0 {
            return Some(out);
        }
        out.extend_from_slice(body.get(..size)?);
        body = body.get(size + 2..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn answers() {
        let plain = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}";
        assert_eq!(parse(plain), Ok(json!({})), "with a length");
        let chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
            3\r\n{\"a\r\n4\r\n\":1}\r\n0\r\n\r\n";
        assert_eq!(parse(chunked), Ok(json!({"a": 1})), "in chunks");
        assert!(parse(b"HTTP/1.1 503 No\r\n\r\n").is_err(), "a refusal");
        assert!(parse(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nff\r\n").is_err());
    }
}
