//! The HTTP/1.1 server around a service: accept, limits, access log line, graceful SIGTERM.

use crate::productpage::ProductPage;
use crate::ratings::Ratings;
use crate::reply::{self, Reply};
use crate::settings::Settings;
use crate::{details, productpage, ratings, reviews};
use http::{HeaderValue, Request, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::io::{Write, stdout};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;

const MAX_REQUEST_BODY: usize = 64 << 10;
const HEADER_TIMEOUT: Duration = Duration::from_secs(60);
const DRAIN_TIMEOUT: Duration = Duration::from_secs(20);

/// One of the four services with its state.
#[derive(Clone)]
pub struct App {
    settings: Arc<Settings>,
    service: Service,
}

#[derive(Clone)]
enum Service {
    ProductPage(Arc<ProductPage>),
    Details,
    Reviews,
    Ratings(Arc<Ratings>),
}

impl App {
    pub fn named(name: &str, settings: Arc<Settings>) -> Option<App> {
        let service = match name {
            "productpage" => Service::ProductPage(Arc::default()),
            "details" => Service::Details,
            "reviews" => Service::Reviews,
            "ratings" => Service::Ratings(Arc::new(Ratings::new())),
            _ => return None,
        };
        Some(App { settings, service })
    }

    async fn answer(&self, request: Request<Incoming>) -> Reply {
        let (head, body) = request.into_parts();
        let body = match Limited::new(body, MAX_REQUEST_BODY).collect().await {
            Ok(body) => body.to_bytes(),
            Err(_) => return reply::text(StatusCode::PAYLOAD_TOO_LARGE, "body over 64 KiB\n"),
        };
        let (path, settings, headers) = (head.uri.path(), &self.settings, &head.headers);
        let mut reply = match &self.service {
            Service::Details => details::answer(settings, path, headers).await,
            Service::Reviews => reviews::answer(settings, path, headers).await,
            Service::Ratings(ratings) => {
                let call = ratings::Call {
                    method: &head.method,
                    path,
                    body: &body,
                };
                ratings.answer(settings, call).await
            }
            Service::ProductPage(page) => {
                let call = productpage::Call {
                    method: &head.method,
                    path,
                    headers,
                    body: &body,
                };
                page.answer(settings, call).await
            }
        };
        if let Ok(pod) = HeaderValue::from_str(&settings.pod) {
            reply.headers_mut().insert("x-served-by", pod);
        }
        if path != "/health" {
            // A closed log must not end the service.
            let _ = writeln!(
                stdout(),
                "{} {path} {}",
                head.method,
                reply.status().as_u16()
            );
        }
        reply
    }
}

/// Serves until SIGTERM or SIGINT, then lets requests in flight end.
pub async fn run(app: App, port: u16) -> std::io::Result<()> {
    let listener = listen(port).await?;
    println!("listening on {}", listener.local_addr()?);
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let (stop, stopped) = watch::channel(false);
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(serve(stream, app.clone(), stopped.clone()));
                }
                Err(error) => {
                    // Out of descriptors, mostly: a pause instead of a busy loop.
                    eprintln!("accept: {error}");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            },
            Some(_) = connections.join_next() => {}
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
        }
    }
    drop(listener);
    // The receivers are gone when no connection is left: nothing to tell then.
    let _ = stop.send(true);
    let all_ended = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(DRAIN_TIMEOUT, all_ended)
        .await
        .is_err()
    {
        eprintln!("requests still ran after {DRAIN_TIMEOUT:?}");
    }
    Ok(())
}

/// Both address families where the kernel has them.
async fn listen(port: u16) -> std::io::Result<TcpListener> {
    match TcpListener::bind(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))).await {
        Ok(listener) => Ok(listener),
        Err(_) => TcpListener::bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))).await,
    }
}

async fn serve(stream: TcpStream, app: App, mut stopped: watch::Receiver<bool>) {
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request| {
        let app = app.clone();
        async move { Ok::<_, Infallible>(app.answer(request).await) }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .half_close(true)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    tokio::select! {
        _ = connection.as_mut() => return,
        _ = stopped.wait_for(|stop| *stop) => connection.as_mut().graceful_shutdown(),
    }
    let _ = connection.await;
}
