//! One byte stream, plain or TLS, that can also be cut with a TCP reset; TLS settings of both ends.

use crate::certificates::Certificates;
use anyhow::Result;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme};
use serde::Deserialize;
use serde_json::{Value, json};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

pub enum Wire {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Wire {
    fn tcp(&self) -> &TcpStream {
        match self {
            Wire::Plain(tcp) => tcp,
            Wire::Tls(tls) => tls.sides().0,
        }
    }

    /// Ends the connection with a reset instead of a FIN.
    pub fn reset(self) {
        let _ = socket2::SockRef::from(self.tcp()).set_linger(Some(Duration::ZERO));
    }

    /// What TLS agreed on; null without TLS.
    pub fn tls_facts(&self, certificates: &Certificates) -> Value {
        let Wire::Tls(tls) = self else {
            return Value::Null;
        };
        let (connection, server_name): (&rustls::CommonState, _) = match tls.sides().1 {
            TlsSide::Client(client) => (client, None),
            TlsSide::Server(server) => (server, server.server_name().map(str::to_owned)),
        };
        let peer = connection
            .peer_certificates()
            .and_then(|chain| chain.first());
        json!({
            "alpn": connection.alpn_protocol().map(String::from_utf8_lossy),
            "version": connection.protocol_version().map(|v| format!("{v:?}")),
            "peer": peer.map(|certificate| certificates.name_of(certificate)),
            "sni": server_name,
        })
    }
}

enum TlsSide<'a> {
    Client(&'a rustls::ClientConnection),
    Server(&'a rustls::ServerConnection),
}

trait Sides {
    fn sides(&self) -> (&TcpStream, TlsSide<'_>);
}

impl Sides for TlsStream<TcpStream> {
    fn sides(&self) -> (&TcpStream, TlsSide<'_>) {
        match self {
            TlsStream::Client(stream) => {
                let (tcp, connection) = stream.get_ref();
                (tcp, TlsSide::Client(connection))
            }
            TlsStream::Server(stream) => {
                let (tcp, connection) = stream.get_ref();
                (tcp, TlsSide::Server(connection))
            }
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        match self.get_mut() {
            Wire::Plain(tcp) => Pin::new(tcp).poll_read(context, buffer),
            Wire::Tls(tls) => Pin::new(tls.as_mut()).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        match self.get_mut() {
            Wire::Plain(tcp) => Pin::new(tcp).poll_write(context, bytes),
            Wire::Tls(tls) => Pin::new(tls.as_mut()).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        match self.get_mut() {
            Wire::Plain(tcp) => Pin::new(tcp).poll_flush(context),
            Wire::Tls(tls) => Pin::new(tls.as_mut()).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        match self.get_mut() {
            Wire::Plain(tcp) => Pin::new(tcp).poll_shutdown(context),
            Wire::Tls(tls) => Pin::new(tls.as_mut()).poll_shutdown(context),
        }
    }
}

/// A client's side of TLS in a call.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ClientTls {
    pub sni: Option<String>,
    pub alpn: Vec<String>,
    /// The name of a certificate to show.
    pub certificate: Option<String>,
}

/// A server's side of TLS: its certificate, and whether it asks for the client's.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ServerTls {
    pub certificate: String,
    pub alpn: Vec<String>,
    pub client_certificate: bool,
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

fn protocols(names: &[String]) -> Vec<Vec<u8>> {
    names.iter().map(|name| name.as_bytes().to_vec()).collect()
}

pub async fn accept(
    tcp: TcpStream,
    tls: Option<&ServerTls>,
    certificates: &Certificates,
) -> Result<Wire> {
    let Some(tls) = tls else {
        return Ok(Wire::Plain(tcp));
    };
    let builder =
        ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
    let builder = if tls.client_certificate {
        let mut roots = RootCertStore::empty();
        roots.add(certificates.certificate("ca")?)?;
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider()).build()?;
        builder.with_client_cert_verifier(verifier)
    } else {
        builder.with_no_client_auth()
    };
    let chain = vec![certificates.certificate(&tls.certificate)?];
    let mut config = builder.with_single_cert(chain, certificates.key(&tls.certificate)?)?;
    config.alpn_protocols = protocols(&tls.alpn);
    let stream = TlsAcceptor::from(Arc::new(config)).accept(tcp).await?;
    Ok(Wire::Tls(Box::new(TlsStream::Server(stream))))
}

pub async fn connect(
    tcp: TcpStream,
    tls: Option<&ClientTls>,
    certificates: &Certificates,
) -> Result<Wire> {
    let Some(tls) = tls else {
        return Ok(Wire::Plain(tcp));
    };
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AcceptsAnything));
    let mut config = match &tls.certificate {
        Some(name) => builder.with_client_auth_cert(
            vec![certificates.certificate(name)?],
            certificates.key(name)?,
        )?,
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = protocols(&tls.alpn);
    config.enable_sni = tls.sni.is_some();
    let name = tls.sni.clone().unwrap_or_else(|| "127.0.0.1".to_owned());
    let connector = TlsConnector::from(Arc::new(config));
    let stream = connector.connect(ServerName::try_from(name)?, tcp).await?;
    Ok(Wire::Tls(Box::new(TlsStream::Client(stream))))
}

/// The client records which certificate it saw instead of judging it.
#[derive(Debug)]
struct AcceptsAnything;

impl ServerCertVerifier for AcceptsAnything {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}
