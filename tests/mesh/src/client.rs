//! The client of a case: one call over HTTP/1.x, HTTP/2 or plain bytes, and what came back.

use crate::call::{Call, Protocol};
use crate::certificates::Certificates;
use crate::http1::{self, Head, Length, filler, grpc_frame, read_body, read_head, shown};
use crate::normal;
use crate::wire::{self, Wire};
use anyhow::{Context, Result};
use bytes::{Bytes, BytesMut};
use serde_json::{Map, Value, json};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

/// No single call takes longer; a proxy that hangs is a result, not a hang of the test.
const DEADLINE: Duration = Duration::from_secs(10);

/// Longer than Envoy's delayed close.
const CLOSE_WAIT: Duration = Duration::from_millis(1300);

/// An HTTP/1.1 connection kept for the next call.
pub struct Kept {
    wire: Wire,
    buffer: BytesMut,
}

/// One call to `port`; a kept connection goes in and comes out.
pub async fn perform(
    call: &Call,
    port: u16,
    certificates: &Certificates,
    kept: &mut Option<Kept>,
) -> Value {
    let limit = call.abandon_ms.map_or(DEADLINE, Duration::from_millis);
    let exchange = async {
        match call.protocol {
            Protocol::H2 => http2(call, port, certificates).await,
            Protocol::Tcp => tcp(call, port, certificates).await,
            Protocol::H1 | Protocol::H10 => http1(call, port, certificates, kept).await,
        }
    };
    match tokio::time::timeout(limit, exchange).await {
        Ok(Ok(result)) => result,
        Ok(Err(error)) => json!({"failed": failure(&error)}),
        Err(_) if call.abandon_ms.is_some() => json!({"failed": "abandoned"}),
        Err(_) => json!({"failed": "no end within the deadline"}),
    }
}

/// The kind of failure, without texts of the operating system or of a TLS library.
fn failure(error: &anyhow::Error) -> String {
    if let Some(io) = error.downcast_ref::<std::io::Error>() {
        return match io.kind() {
            std::io::ErrorKind::InvalidData => "tls".to_owned(),
            std::io::ErrorKind::UnexpectedEof => "closed".to_owned(),
            std::io::ErrorKind::ConnectionReset | std::io::ErrorKind::BrokenPipe => {
                "reset".to_owned()
            }
            kind => kind.to_string(),
        };
    }
    match error.downcast_ref::<h2::Error>() {
        Some(h2) => h2
            .reason()
            .map_or_else(|| "closed".to_owned(), |reason| format!("{reason:?}")),
        None => format!("{error}"),
    }
}

async fn dial(call: &Call, port: u16, certificates: &Certificates) -> Result<Wire> {
    let tcp = match call.source {
        None => TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?,
        Some(source) => {
            let socket = TcpSocket::new_v4()?;
            socket.bind(SocketAddr::new(source, 0))?;
            socket
                .connect(SocketAddr::new(IpAddr::from(Ipv4Addr::LOCALHOST), port))
                .await?
        }
    };
    tcp.set_nodelay(true)?;
    wire::connect(tcp, call.tls.as_ref(), certificates).await
}

fn tls_result(wire: &Wire, call: &Call, certificates: &Certificates, result: &mut Value) {
    if call.tls.is_some() {
        result["tls"] = wire.tls_facts(certificates);
    }
}

async fn http1(
    call: &Call,
    port: u16,
    certificates: &Certificates,
    kept: &mut Option<Kept>,
) -> Result<Value> {
    let (mut wire, mut buffer) = match kept.take() {
        Some(kept) => (kept.wire, kept.buffer),
        None => (dial(call, port, certificates).await?, BytesMut::new()),
    };
    let mut facts = json!({});
    tls_result(&wire, call, certificates, &mut facts);
    if let Some(raw) = &call.raw {
        return raw_exchange(call, raw, wire).await;
    }
    wire.write_all(request_head(call).as_bytes()).await?;
    let expects = call
        .headers
        .iter()
        .any(|(name, _)| name.eq_ignore_ascii_case("expect"));
    if !expects {
        write_body(call, &mut wire).await?;
    }
    let mut result = loop {
        let head = read_head(&mut wire, &mut buffer).await?.context("closed")?;
        let status = status_of(&head);
        if status == 101 && call.upgrade.is_some() {
            let mut result = head_result(&head);
            result["echoed"] = shown(&lockstep(call, &mut wire, &mut buffer).await?);
            break result;
        }
        if (100..200).contains(&status) {
            push(&mut facts, "informational", json!(status));
            if status == 100 && expects {
                write_body(call, &mut wire).await?;
            }
            continue;
        }
        let method = call.call.split(' ').next().unwrap_or_default();
        let none = method == "HEAD" || matches!(status, 204 | 304);
        let length = if none {
            Length::None
        } else {
            head.length(Length::UntilClose)
        };
        let body = read_body(&mut wire, &mut buffer, length).await;
        let mut result = head_result(&head);
        result["body"] = shown(&body.bytes);
        if !body.trailers.is_empty() {
            result["trailers"] = normal::headers(&body.trailers);
        }
        if !body.complete {
            result["incomplete"] = Value::Bool(true);
        }
        break result;
    };
    merge(&mut result, facts);
    if call.keep.is_some() {
        *kept = Some(Kept { wire, buffer });
    }
    Ok(result)
}

fn request_head(call: &Call) -> String {
    let (method, path) = call.call.split_once(' ').unwrap_or(("GET", "/"));
    let version = if call.protocol == Protocol::H10 {
        "HTTP/1.0"
    } else {
        "HTTP/1.1"
    };
    let mut text = format!("{method} {path} {version}\r\n");
    if call.protocol == Protocol::H1 || call.host.is_some() {
        text += &format!("Host: {}\r\n", call.host.as_deref().unwrap_or("host.test"));
    }
    for (name, value) in &call.headers {
        text += &format!("{name}: {value}\r\n");
    }
    if let Some(protocol) = &call.upgrade {
        text += &format!("Connection: Upgrade\r\nUpgrade: {protocol}\r\n");
        text += "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    } else if !call.chunks.is_empty() {
        text += "Transfer-Encoding: chunked\r\n";
    } else if let Some(length) = body_of(call).map(|body| body.len()) {
        text += &format!("Content-Length: {length}\r\n");
    }
    text + "\r\n"
}

fn body_of(call: &Call) -> Option<Vec<u8>> {
    let sized = call.body_bytes.map(filler);
    sized.or_else(|| call.body.as_ref().map(|text| text.clone().into_bytes()))
}

async fn write_body(call: &Call, wire: &mut Wire) -> Result<()> {
    if call.upgrade.is_some() {
        return Ok(());
    }
    if let Some(body) = body_of(call) {
        // An early answer may close the connection while we write: reading tells what it was.
        let _ = wire.write_all(&body).await;
    }
    if !call.chunks.is_empty() {
        for chunk in &call.chunks {
            wire.write_all(format!("{:x}\r\n{chunk}\r\n", chunk.len()).as_bytes())
                .await?;
        }
        let trailers = call
            .trailers
            .iter()
            .map(|(name, value)| format!("{name}: {value}\r\n"));
        wire.write_all(format!("0\r\n{}\r\n", trailers.collect::<String>()).as_bytes())
            .await?;
    }
    Ok(())
}

/// Each chunk is sent when the one before has come back.
async fn lockstep(call: &Call, wire: &mut Wire, buffer: &mut BytesMut) -> Result<Vec<u8>> {
    let (mut sent, mut received) = (0, Vec::new());
    for chunk in &call.chunks {
        wire.write_all(chunk.as_bytes()).await?;
        sent += chunk.len();
        loop {
            received.extend_from_slice(&buffer.split());
            if received.len() >= sent {
                break;
            }
            if wire.read_buf(buffer).await? == 0 {
                return Ok(received);
            }
        }
    }
    Ok(received)
}

/// Exact bytes out; then the answers, and whether the proxy closed.
async fn raw_exchange(call: &Call, raw: &str, mut wire: Wire) -> Result<Value> {
    // One character is one byte: a quoted YAML text may hold any.
    let bytes: Vec<u8> = raw
        .chars()
        .map(|c| u8::try_from(u32::from(c)).unwrap_or(b'?'))
        .collect();
    wire.write_all(&bytes).await?;
    let mut buffer = BytesMut::new();
    let mut results = Vec::new();
    for _ in 0..call.responses.unwrap_or(1) {
        let Some(head) = read_head(&mut wire, &mut buffer).await.unwrap_or(None) else {
            break;
        };
        let mut result = head_result(&head);
        let status = status_of(&head);
        let none = matches!(status, 100..=199 | 204 | 304) || raw.starts_with("HEAD ");
        let length = if none {
            Length::None
        } else {
            head.length(Length::UntilClose)
        };
        result["body"] = shown(&read_body(&mut wire, &mut buffer, length).await.bytes);
        results.push(result);
    }
    let rest = read_body(&mut wire, &mut buffer, Length::UntilClose);
    let closed = tokio::time::timeout(CLOSE_WAIT, rest).await.is_ok();
    Ok(json!({"responses": results, "closed": closed}))
}

fn status_of(head: &Head) -> u16 {
    head.first
        .split(' ')
        .nth(1)
        .and_then(|code| code.parse().ok())
        .unwrap_or(0)
}

fn head_result(head: &Head) -> Value {
    json!({
        "version": head.first.split(' ').next(),
        "status": status_of(head),
        "headers": normal::headers(&head.headers),
    })
}

fn push(result: &mut Value, key: &str, item: Value) {
    if let Some(map) = result.as_object_mut() {
        let list = map.entry(key).or_insert_with(|| json!([]));
        if let Some(list) = list.as_array_mut() {
            list.push(item);
        }
    }
}

fn merge(result: &mut Value, other: Value) {
    if let (Some(map), Value::Object(other)) = (result.as_object_mut(), other) {
        map.extend(other);
    }
}

async fn tcp(call: &Call, port: u16, certificates: &Certificates) -> Result<Value> {
    let mut wire = dial(call, port, certificates).await?;
    let mut result = json!({});
    tls_result(&wire, call, certificates, &mut result);
    let mut received = Vec::new();
    let mut buffer = BytesMut::new();
    for piece in &call.chunks {
        wire.write_all(piece.as_bytes()).await?;
        if call.lockstep {
            if wire.read_buf(&mut buffer).await? == 0 {
                break;
            }
            received.extend_from_slice(&buffer.split());
        }
    }
    if let Some(body) = body_of(call) {
        wire.write_all(&body).await?;
    }
    wire.shutdown().await?;
    loop {
        match wire.read_buf(&mut buffer).await {
            Ok(0) => {
                result["end"] = json!("closed");
                break;
            }
            Ok(_) => received.extend_from_slice(&buffer.split()),
            Err(_) => {
                result["end"] = json!("reset");
                break;
            }
        }
    }
    result["received"] = shown(&received);
    Ok(result)
}

async fn http2(call: &Call, port: u16, certificates: &Certificates) -> Result<Value> {
    let wire = dial(call, port, certificates).await?;
    let mut facts = json!({});
    tls_result(&wire, call, certificates, &mut facts);
    let (sender, connection) = h2::client::Builder::new()
        .initial_window_size(1 << 20)
        .handshake::<_, Bytes>(wire)
        .await?;
    let exchange = http2_exchange(call, sender);
    tokio::pin!(connection);
    tokio::pin!(exchange);
    let mut result = tokio::select! {
        biased;
        result = &mut exchange => result?,
        ended = &mut connection => match ended {
            Err(error) => return Err(error.into()),
            Ok(()) => exchange.await?,
        },
    };
    merge(&mut result, facts);
    Ok(result)
}

async fn http2_exchange(call: &Call, sender: h2::client::SendRequest<Bytes>) -> Result<Value> {
    let mut sender = sender.ready().await?;
    let (method, path) = call.call.split_once(' ').unwrap_or(("GET", "/"));
    let host = call.host.as_deref().unwrap_or("host.test");
    let scheme = if call.tls.is_some() { "https" } else { "http" };
    let mut request = http::Request::builder()
        .method(method)
        .version(http::Version::HTTP_2)
        .uri(format!("{scheme}://{host}{path}"));
    if !call.grpc.is_empty() {
        request = request
            .header("content-type", "application/grpc")
            .header("te", "trailers");
    }
    for (name, value) in &call.headers {
        request = request.header(name, value);
    }
    let pieces = http2_pieces(call);
    let (response, mut stream) = sender.send_request(request.body(())?, pieces.is_empty())?;
    let mut received = Vec::new();
    if call.lockstep {
        let response = response.await?;
        let mut body = response_parts(&response);
        let mut incoming = response.into_body();
        let mut sent = 0;
        for piece in &pieces {
            sent += piece.len();
            stream.send_data(Bytes::from(piece.clone()), false)?;
            while received.len() < sent {
                let Some(data) = incoming.data().await else {
                    break;
                };
                let data = data?;
                incoming.flow_control().release_capacity(data.len())?;
                received.extend_from_slice(&data);
            }
        }
        stream.send_data(Bytes::new(), true)?;
        finish(call, &mut body, incoming, received).await;
        return Ok(body);
    }
    let last = pieces.len().saturating_sub(1);
    for (index, piece) in pieces.iter().enumerate() {
        let end = index == last && call.trailers.is_empty();
        // The peer may answer and reset before it has read everything.
        let _ = stream.send_data(Bytes::from(piece.clone()), end);
    }
    if !call.trailers.is_empty() {
        stream.send_trailers(normal::map_of(&call.trailers)?)?;
    }
    let response = response.await?;
    let mut result = response_parts(&response);
    finish(call, &mut result, response.into_body(), received).await;
    Ok(result)
}

fn http2_pieces(call: &Call) -> Vec<Vec<u8>> {
    if !call.grpc.is_empty() {
        return call
            .grpc
            .iter()
            .map(|message| grpc_frame(message))
            .collect();
    }
    let chunks = call.chunks.iter().map(|chunk| chunk.clone().into_bytes());
    body_of(call).into_iter().chain(chunks).collect()
}

fn response_parts(response: &http::Response<h2::RecvStream>) -> Value {
    json!({
        "version": "HTTP/2",
        "status": response.status().as_u16(),
        "headers": normal::header_map(response.headers()),
    })
}

/// The rest of the body, the trailers, or the reset.
async fn finish(
    call: &Call,
    result: &mut Value,
    mut incoming: h2::RecvStream,
    mut received: Vec<u8>,
) {
    let mut reset = None;
    while let Some(data) = incoming.data().await {
        match data {
            Ok(data) => {
                let _ = incoming.flow_control().release_capacity(data.len());
                received.extend_from_slice(&data);
            }
            Err(error) => {
                reset = Some(failure(&error.into()));
                break;
            }
        }
    }
    match incoming.trailers().await {
        Ok(Some(trailers)) => result["trailers"] = normal::header_map(&trailers),
        Ok(None) => {}
        Err(error) => reset = reset.or_else(|| Some(failure(&error.into()))),
    }
    if let Some(reason) = reset {
        result["reset"] = Value::String(reason);
    }
    let messages = !call.grpc.is_empty();
    result["body"] = shown(&received);
    if messages {
        result["messages"] = grpc_messages(&received);
        result
            .as_object_mut()
            .map(|map: &mut Map<String, Value>| map.remove("body"));
    }
}

fn grpc_messages(mut bytes: &[u8]) -> Value {
    let mut messages = Vec::new();
    while bytes.len() >= 5 {
        let length = u32::from_be_bytes([bytes[1], bytes[2], bytes[3], bytes[4]]) as usize;
        let end = (5 + length).min(bytes.len());
        messages.push(Value::String(http1::latin1(&bytes[5..end])));
        bytes = &bytes[end..];
    }
    Value::Array(messages)
}
