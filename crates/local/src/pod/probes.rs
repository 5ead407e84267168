//! Asking a container for its health from inside the pod: over the pod's own loopback to its IP,
//! which capture leaves alone, so that probes work under STRICT mTLS.

use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream as StdStream};
use std::time::Duration;

use http_body_util::{BodyExt, Empty, Full, Limited};
use hyper::body::Bytes;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

use crate::init::protocol::{Container, Exit};
use crate::manifest::template::{ProbeAction, ProbeTemplate};
use crate::node::in_network;
use crate::pod::process::PodProcess;

/// More than this of an answer is not read.
const MOST_BYTES: usize = 64 * 1024;

/// One question. `exec` is the process to start for an exec probe.
pub async fn ask(
    process: &PodProcess,
    ip: Ipv4Addr,
    probe: &ProbeTemplate,
    exec: impl FnOnce(&[String]) -> Container,
) -> Result<(), String> {
    let question = async {
        match &probe.action {
            ProbeAction::Http {
                port,
                path,
                headers,
            } => http(process.network(), (ip, *port), path, headers).await,
            ProbeAction::Tcp { port } => connect(process.network(), (ip, *port))
                .await
                .map(|_| ())
                .map_err(|error| error.to_string()),
            ProbeAction::Grpc { port, service } => {
                grpc(process.network(), (ip, *port), service).await
            }
            ProbeAction::Exec { command } => run(process, exec(command)).await,
        }
    };
    tokio::time::timeout(probe.timeout, question)
        .await
        .unwrap_or_else(|_| Err(format!("no answer within {:?}", probe.timeout)))
}

/// A connection made inside the pod's network namespace.
pub async fn connect(network: &File, (ip, port): (Ipv4Addr, u16)) -> io::Result<TcpStream> {
    let address = SocketAddr::new(IpAddr::V4(ip), port);
    let stream = in_network(network, move || {
        let stream = StdStream::connect_timeout(&address, Duration::from_secs(10))?;
        stream.set_nonblocking(true)?;
        Ok(stream)
    })
    .await?;
    TcpStream::from_std(stream)
}

/// GET; everything from 200 to 399 is healthy, as for the kubelet.
pub async fn http(
    network: &File,
    address: (Ipv4Addr, u16),
    path: &str,
    headers: &[(String, String)],
) -> Result<(), String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let stream = connect(network, address)
        .await
        .map_err(|error| text(&error))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| text(&error))?;
    let _connection = daemon::tasks::spawn("probe", async move {
        let _ = connection.await;
    });
    let mut request = http::Request::get(path).header("user-agent", "kube-probe/1.37");
    if !headers
        .iter()
        .any(|(name, _)| name.eq_ignore_ascii_case("host"))
    {
        request = request.header("host", format!("{}:{}", address.0, address.1));
    }
    for (name, value) in headers {
        request = request.header(name, value);
    }
    let request = request
        .body(Empty::<Bytes>::new())
        .map_err(|error| text(&error))?;
    let response = sender
        .send_request(request)
        .await
        .map_err(|error| text(&error))?;
    let status = response.status().as_u16();
    if (200..400).contains(&status) {
        Ok(())
    } else {
        Err(format!("status {status}"))
    }
}

/// `grpc.health.v1.Health/Check`; SERVING (1) is healthy.
async fn grpc(network: &File, address: (Ipv4Addr, u16), service: &str) -> Result<(), String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let stream = connect(network, address)
        .await
        .map_err(|error| text(&error))?;
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .map_err(|error| text(&error))?;
    let _connection = daemon::tasks::spawn("probe", async move {
        let _ = connection.await;
    });
    let uri = format!(
        "http://{}:{}/grpc.health.v1.Health/Check",
        address.0, address.1
    );
    let request = http::Request::post(uri)
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Full::new(health_request(service)))
        .map_err(|error| text(&error))?;
    let response = sender
        .send_request(request)
        .await
        .map_err(|error| text(&error))?;
    let body = Limited::new(response.into_body(), MOST_BYTES)
        .collect()
        .await
        .map_err(|error| text(&error))?
        .to_bytes();
    // Frame: flag, length; message: field 1 as a varint.
    match body.get(5..) {
        Some([0x08, 1, ..]) => Ok(()),
        _ => Err("the gRPC health service does not say SERVING".to_owned()),
    }
}

fn health_request(service: &str) -> Bytes {
    let service = &service.as_bytes()[..service.len().min(127)];
    let mut message = Vec::new();
    if !service.is_empty() {
        message.push(0x0a); // field 1, a string, shorter than 128 bytes
        message.push(service.len() as u8);
        message.extend_from_slice(service);
    }
    let mut frame = vec![0, 0, 0, 0, message.len() as u8];
    frame.extend_from_slice(&message);
    Bytes::from(frame)
}

async fn run(process: &PodProcess, container: Container) -> Result<(), String> {
    match process.run_once(container).await {
        Exit::Code(0) => Ok(()),
        exit => Err(exit.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn health_requests_are_framed() {
        assert_eq!(&health_request("")[..], [0, 0, 0, 0, 0], "an empty message");
        assert_eq!(
            &health_request("ab")[..],
            [0, 0, 0, 0, 4, 0x0a, 2, b'a', b'b']
        );
    }
}
