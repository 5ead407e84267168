//! Accepts TLS connections, bounded, and hands their calls on.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use daemon::drain::DrainWatch;
use daemon::tasks::Tasks;
use pki::SpiffeId;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use xds::grpc::server::{Call, Limits, serve_connection};
use xds::grpc::{Code, Status};

use super::discovery::Discovery;
use crate::ca_service::{self, CertificateService};

/// A client must have finished its handshake by then.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// What TLS says about the other side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    pub address: SocketAddr,
    /// Verified against the roots of the mesh.
    pub has_certificate: bool,
    /// The workload's id in the certificate, if that is what it holds.
    pub id: Option<SpiffeId>,
}

/// Everything that answers calls.
pub(crate) struct Services {
    pub discovery: Arc<Discovery>,
    pub certificates: Arc<CertificateService>,
}

/// Accepts until the drain starts.
pub(crate) async fn accept(
    listener: TcpListener,
    tls: TlsAcceptor,
    services: Arc<Services>,
    max_connections: usize,
    drain: DrainWatch,
) {
    let free = Arc::new(Semaphore::new(max_connections));
    let connections = Tasks::new();
    loop {
        let next = async {
            // Accepting only with a free place leaves the surplus in the kernel's queue.
            let place = free.clone().acquire_owned().await;
            (place, listener.accept().await)
        };
        let Some((place, accepted)) = drain.unless_draining(next).await else {
            break;
        };
        match accepted {
            Ok((io, address)) => {
                let (tls, services, drain) = (tls.clone(), services.clone(), drain.clone());
                connections.spawn("discovery connection", async move {
                    let _place = place;
                    serve(io, address, tls, services, drain).await;
                });
            }
            Err(error) => {
                tracing::warn!(%error, "discovery: accept failed");
                // Out of descriptors, most likely: do not spin.
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    connections.join().await;
}

async fn serve(
    io: TcpStream,
    address: SocketAddr,
    tls: TlsAcceptor,
    services: Arc<Services>,
    drain: DrainWatch,
) {
    let _ = io.set_nodelay(true);
    let io = match tokio::time::timeout(HANDSHAKE_TIMEOUT, tls.accept(io)).await {
        Ok(Ok(io)) => io,
        Ok(Err(error)) => {
            tracing::debug!(%address, %error, "TLS handshake failed");
            return;
        }
        Err(_) => return,
    };
    let chain = io.get_ref().1.peer_certificates().unwrap_or_default();
    let peer = Arc::new(Peer {
        address,
        has_certificate: !chain.is_empty(),
        id: pki::certificate::peer_identity(chain),
    });
    let handler = move |call: Call| {
        let (services, peer) = (services.clone(), peer.clone());
        async move { dispatch(call, &services, &peer).await }
    };
    let limits = Limits::default();
    let draining = drain.clone();
    let ended = serve_connection(
        io,
        handler,
        &limits,
        async move { draining.started().await },
    );
    if let Err(error) = ended.await {
        tracing::debug!(%address, %error, "discovery connection ended");
    }
}

async fn dispatch(call: Call, services: &Services, peer: &Peer) -> Result<(), Status> {
    if call.path == ca_service::PATH {
        return services.certificates.answer(call, peer).await;
    }
    match xds::Service::from_path(&call.path) {
        Some((xds::Service::Aggregated, mode)) => services.discovery.serve(call, mode, peer).await,
        _ => {
            let message = format!("no method {}", call.path);
            Err(Status::new(Code::Unimplemented, message))
        }
    }
}
