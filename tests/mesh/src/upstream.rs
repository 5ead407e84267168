//! Servers behind the proxy under test: they note what they saw and do what the call's script says.

use crate::call::{Behaviour, Protocol, Upstream};
use crate::certificates::Certificates;
use crate::http1::{Body, Head, Length, filler, read_body, read_head, shown};
use crate::normal;
use crate::wire::{self, Wire};
use anyhow::Result;
use bytes::{Bytes, BytesMut};
use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};
use std::collections::{BTreeMap, VecDeque};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

/// What the servers shall do next, and what they saw.
#[derive(Default)]
pub struct Script {
    next: Mutex<VecDeque<Behaviour>>,
    saw: Mutex<Vec<Value>>,
    /// Counts the calls: what belongs to an earlier one is not noted any more.
    call: AtomicU64,
}

impl Script {
    /// Replaces the script and forgets what was seen.
    pub fn begin(&self, behaviours: &[Behaviour]) {
        *self.next.lock().unwrap() = behaviours.iter().cloned().collect();
        self.call.fetch_add(1, Ordering::SeqCst);
        self.saw.lock().unwrap().clear();
    }

    pub fn saw(&self) -> Vec<Value> {
        self.saw.lock().unwrap().clone()
    }

    fn call(&self) -> u64 {
        self.call.load(Ordering::SeqCst)
    }

    fn note(&self, call: u64, value: Value) {
        let mut saw = self.saw.lock().unwrap();
        if call == self.call() {
            saw.push(value);
        }
    }

    fn take(&self, at: &str) -> Behaviour {
        let mut next = self.next.lock().unwrap();
        let here = |behaviour: &Behaviour| behaviour.at.as_deref().is_none_or(|name| name == at);
        let Some(index) = next.iter().position(here) else {
            return Behaviour::default();
        };
        if next.iter().filter(|behaviour| here(behaviour)).count() > 1 {
            return next.remove(index).unwrap_or_default();
        }
        next[index].clone()
    }
}

/// The running servers of one case.
pub struct Upstreams {
    pub ports: BTreeMap<String, u16>,
    pub script: Arc<Script>,
    // Held: the ports of servers that are down, and the tasks, which end with this value.
    _down: Vec<Socket>,
    _tasks: JoinSet<()>,
}

#[derive(Clone)]
struct Server {
    name: Arc<str>,
    settings: Upstream,
    script: Arc<Script>,
    certificates: Arc<Certificates>,
}

impl Upstreams {
    pub async fn start(
        wanted: &BTreeMap<String, Upstream>,
        certificates: &Arc<Certificates>,
    ) -> Result<Upstreams> {
        let mut started = Upstreams {
            ports: BTreeMap::new(),
            script: Arc::default(),
            _down: Vec::new(),
            _tasks: JoinSet::new(),
        };
        for (name, settings) in wanted {
            let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
            let port = if settings.down {
                // Bound but not listening: connections are refused and nobody else gets the port.
                let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
                socket.bind(&loopback.into())?;
                let port = socket
                    .local_addr()?
                    .as_socket()
                    .map_or(0, |address| address.port());
                started._down.push(socket);
                port
            } else {
                let listener = TcpListener::bind(loopback).await?;
                let port = listener.local_addr()?.port();
                let server = Server {
                    name: name.as_str().into(),
                    settings: settings.clone(),
                    script: started.script.clone(),
                    certificates: certificates.clone(),
                };
                started._tasks.spawn(accept_loop(listener, server));
                port
            };
            started.ports.insert(name.clone(), port);
        }
        Ok(started)
    }
}

async fn accept_loop(listener: TcpListener, server: Server) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                if let Ok((tcp, _)) = accepted {
                    let _ = tcp.set_nodelay(true);
                    let server = server.clone();
                    connections.spawn(async move {
                        let tls = server.settings.tls.as_ref();
                        let wire = wire::accept(tcp, tls, &server.certificates).await;
                        if let Ok(wire) = wire {
                            // A broken connection is the proxy's business: it shows in the result.
                            let _ = server.serve(wire).await;
                        }
                    });
                }
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

impl Server {
    async fn serve(&self, wire: Wire) -> Result<()> {
        match self.settings.protocol {
            Protocol::H1 | Protocol::H10 => self.serve_http1(wire).await,
            Protocol::H2 => self.serve_http2(wire).await,
            Protocol::Tcp => self.serve_tcp(wire).await,
        }
    }

    /// Every piece comes back with the server's name before it.
    async fn serve_tcp(&self, mut wire: Wire) -> Result<()> {
        let facts = wire.tls_facts(&self.certificates);
        let call = self.script.call();
        let behaviour = self.script.take(&self.name);
        if behaviour.reset {
            wire.reset();
            return Ok(());
        }
        if let Some(raw) = &behaviour.raw {
            wire.write_all(raw.as_bytes()).await?;
        }
        let mut received = Vec::new();
        let mut buffer = BytesMut::new();
        while !behaviour.close && wire.read_buf(&mut buffer).await? > 0 {
            received.extend_from_slice(&buffer);
            // In one write, so that a reader in turns sees it whole.
            let answer = [self.name.as_bytes(), b":", &buffer.split()].concat();
            wire.write_all(&answer).await?;
        }
        self.script.note(
            call,
            json!({"at": &*self.name, "body": shown(&received), "tls": facts}),
        );
        wire.shutdown().await?;
        Ok(())
    }

    async fn serve_http1(&self, mut wire: Wire) -> Result<()> {
        let facts = wire.tls_facts(&self.certificates);
        let mut buffer = BytesMut::new();
        while let Some(head) = read_head(&mut wire, &mut buffer).await? {
            let call = self.script.call();
            let behaviour = self.script.take(&self.name);
            let mut parts = head.first.split(' ');
            let mut seen = json!({
                "at": &*self.name,
                "method": parts.next(),
                "path": parts.next(),
                "version": parts.next(),
                "headers": normal::headers(&head.headers),
            });
            if !facts.is_null() {
                seen["tls"] = facts.clone();
            }
            if behaviour.reset || behaviour.close {
                self.script.note(call, seen);
                if behaviour.reset {
                    wire.reset();
                }
                return Ok(());
            }
            if head.get("expect").is_some() && behaviour.status.is_none_or(|code| code < 400) {
                wire.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
            }
            let body = read_body(&mut wire, &mut buffer, head.length(Length::None)).await;
            add_body(&mut seen, &body);
            self.script.note(call, seen);
            if !body.complete {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(behaviour.delay_ms)).await;
            if let Some(raw) = &behaviour.raw {
                wire.write_all(raw.as_bytes()).await?;
                wire.shutdown().await?;
                return Ok(());
            }
            if head.get("upgrade").is_some() && behaviour.status.is_none() {
                return self.echo_upgraded(wire, buffer, &head).await;
            }
            if !self
                .respond_http1(&mut wire, &head, &behaviour, &body.bytes)
                .await?
            {
                wire.reset();
                return Ok(());
            }
        }
        Ok(())
    }

    /// False when the connection must now be reset.
    async fn respond_http1(
        &self,
        wire: &mut Wire,
        head: &Head,
        behaviour: &Behaviour,
        request_body: &[u8],
    ) -> Result<bool> {
        let body = self.body(behaviour, request_body);
        let mut text = String::new();
        for code in &behaviour.informational {
            text += &format!("HTTP/1.1 {code} Early\r\nlink: </style.css>\r\n\r\n");
        }
        let status = behaviour.status.unwrap_or(200);
        text += &format!("HTTP/1.1 {status} Answer\r\n");
        for (name, value) in &behaviour.headers {
            text += &format!("{name}: {value}\r\n");
        }
        let chunked = behaviour.chunked || !behaviour.trailers.is_empty();
        let bodyless = matches!(status, 204 | 304);
        text += &match (chunked, bodyless) {
            (_, true) => "\r\n".to_owned(),
            (true, _) => "transfer-encoding: chunked\r\n\r\n".to_owned(),
            _ => format!("content-length: {}\r\n\r\n", body.len()),
        };
        wire.write_all(text.as_bytes()).await?;
        if bodyless || head.first.starts_with("HEAD ") {
            return Ok(true);
        }
        if behaviour.cut {
            wire.write_all(&body[..body.len() / 2]).await?;
            wire.flush().await?;
            // The proxy shall see the bytes before the reset overtakes them.
            tokio::time::sleep(Duration::from_millis(100)).await;
            return Ok(false);
        }
        if !chunked {
            wire.write_all(&body).await?;
            return Ok(true);
        }
        for piece in body.chunks(16_384) {
            wire.write_all(format!("{:x}\r\n", piece.len()).as_bytes())
                .await?;
            wire.write_all(piece).await?;
            wire.write_all(b"\r\n").await?;
        }
        let trailers = behaviour
            .trailers
            .iter()
            .map(|(n, v)| format!("{n}: {v}\r\n"));
        wire.write_all(format!("0\r\n{}\r\n", trailers.collect::<String>()).as_bytes())
            .await?;
        Ok(true)
    }

    fn body(&self, behaviour: &Behaviour, request_body: &[u8]) -> Vec<u8> {
        match (&behaviour.body, behaviour.body_bytes) {
            (_, Some(count)) => filler(count),
            (Some(text), _) => text.clone().into_bytes(),
            _ if behaviour.echo => request_body.to_vec(),
            _ => format!("answer of {}", self.name).into_bytes(),
        }
    }

    async fn echo_upgraded(&self, mut wire: Wire, mut rest: BytesMut, head: &Head) -> Result<()> {
        let protocol = head.get("upgrade").unwrap_or("websocket");
        let text = format!(
            "HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: {protocol}\r\n\r\n"
        );
        wire.write_all(text.as_bytes()).await?;
        loop {
            if rest.is_empty() && wire.read_buf(&mut rest).await? == 0 {
                wire.shutdown().await?;
                return Ok(());
            }
            wire.write_all(&rest.split()).await?;
        }
    }

    async fn serve_http2(&self, wire: Wire) -> Result<()> {
        let facts = wire.tls_facts(&self.certificates);
        let mut connection = h2::server::Builder::new()
            .initial_window_size(1 << 20)
            .enable_connect_protocol()
            .handshake::<_, Bytes>(wire)
            .await?;
        let mut streams = JoinSet::new();
        while let Some(accepted) = connection.accept().await {
            let (request, respond) = accepted?;
            let (server, facts) = (self.clone(), facts.clone());
            streams.spawn(async move { server.serve_stream(request, respond, facts).await });
        }
        Ok(())
    }

    async fn serve_stream(
        &self,
        request: http::Request<h2::RecvStream>,
        mut respond: h2::server::SendResponse<Bytes>,
        facts: Value,
    ) -> Result<()> {
        let call = self.script.call();
        let behaviour = self.script.take(&self.name);
        let (head, mut incoming) = request.into_parts();
        let mut seen = json!({
            "at": &*self.name,
            "method": head.method.as_str(),
            "path": head.uri.path_and_query().map_or("", |path| path.as_str()),
            "authority": head.uri.authority().map(|authority| authority.as_str()),
            "scheme": head.uri.scheme_str(),
            "version": "HTTP/2",
            "headers": normal::header_map(&head.headers),
        });
        if !facts.is_null() {
            seen["tls"] = facts;
        }
        if behaviour.reset || behaviour.close {
            self.script.note(call, seen);
            respond.send_reset(h2::Reason::REFUSED_STREAM);
            return Ok(());
        }
        let kind = head
            .headers
            .get("content-type")
            .and_then(|value| value.to_str().ok());
        if behaviour.status.is_none()
            && kind.is_some_and(|kind| kind.starts_with("application/grpc"))
        {
            return self
                .echo_stream(&behaviour, incoming, respond, (call, seen))
                .await;
        }
        let mut body = Body {
            complete: true,
            ..Body::default()
        };
        while let Some(piece) = incoming.data().await {
            let piece = piece?;
            incoming.flow_control().release_capacity(piece.len())?;
            body.bytes.extend_from_slice(&piece);
        }
        if let Some(trailers) = incoming.trailers().await? {
            body.trailers = normal::pairs_of(&trailers);
        }
        add_body(&mut seen, &body);
        self.script.note(call, seen);
        tokio::time::sleep(Duration::from_millis(behaviour.delay_ms)).await;
        let mut response = http::Response::builder().status(behaviour.status.unwrap_or(200));
        for (name, value) in &behaviour.headers {
            response = response.header(name, value);
        }
        let bytes = self.body(&behaviour, &body.bytes);
        let trailers = &behaviour.trailers;
        let only_head = bytes.is_empty() && trailers.is_empty();
        let mut stream = respond.send_response(response.body(())?, only_head)?;
        if behaviour.cut {
            stream.send_data(Bytes::from(bytes[..bytes.len() / 2].to_vec()), false)?;
            tokio::time::sleep(Duration::from_millis(100)).await;
            stream.send_reset(h2::Reason::INTERNAL_ERROR);
            return Ok(());
        }
        if !only_head {
            stream.send_data(Bytes::from(bytes), trailers.is_empty())?;
        }
        if !trailers.is_empty() {
            stream.send_trailers(normal::map_of(trailers)?)?;
        }
        Ok(())
    }

    /// gRPC both ways: every DATA frame comes back at once, then the trailers.
    async fn echo_stream(
        &self,
        behaviour: &Behaviour,
        mut incoming: h2::RecvStream,
        mut respond: h2::server::SendResponse<Bytes>,
        (call, mut seen): (u64, Value),
    ) -> Result<()> {
        let response = http::Response::builder().header("content-type", "application/grpc");
        let mut stream = respond.send_response(response.body(())?, false)?;
        let mut body = Body {
            complete: true,
            ..Body::default()
        };
        while let Some(piece) = incoming.data().await {
            let piece = piece?;
            incoming.flow_control().release_capacity(piece.len())?;
            body.bytes.extend_from_slice(&piece);
            stream.send_data(piece, false)?;
        }
        if let Some(trailers) = incoming.trailers().await? {
            body.trailers = normal::pairs_of(&trailers);
        }
        add_body(&mut seen, &body);
        self.script.note(call, seen);
        let status = [("grpc-status".to_owned(), "0".to_owned())];
        let trailers = if behaviour.trailers.is_empty() {
            &status[..]
        } else {
            &behaviour.trailers
        };
        stream.send_trailers(normal::map_of(trailers)?)?;
        Ok(())
    }
}

fn add_body(seen: &mut Value, body: &Body) {
    seen["body"] = shown(&body.bytes);
    if !body.trailers.is_empty() {
        seen["trailers"] = normal::headers(&body.trailers);
    }
    if !body.complete {
        seen["incomplete"] = Value::Bool(true);
    }
}
