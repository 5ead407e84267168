//! THE request path, top to bottom: head, filters, route, cluster, host, connection, response, log.
//! Policy is asked, never decided here.
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;

use super::codec::CodecError;
use super::downstream::Downstream;
use super::filters::{FilterContext, FilterStack, Flow, LocalReply};
use super::headers::Headers;
use super::local_reply::{self, RequestError};
use super::manager::path::PathProblem;
use super::manager::{path, request as manager_request, response as manager_response};
use super::request::{Protocol, RequestHead, ResponseHead};
use crate::access_log::Input;
use crate::cluster::Cluster;
use crate::network::Session;
use crate::parse::http_connection_manager::{HttpConnectionManager, RouteSource, Upgrade};
use crate::parse::http_options::Underscores;
use crate::parse::listener::Direction;
use crate::route::{Action, Selected, Selection};
use crate::stats::record;
use crate::stream_info::{ResponseFlags, StreamInfo};
use crate::workers::WorkerTable;

mod forward;
mod mirror;
mod relay;

/// A request as the codec delivered it.
#[derive(Debug)]
pub struct Received {
    pub head: RequestHead,
    pub expects_continue: bool,
    pub header_bytes: u64,
}

/// How a stream ended early.
enum Ended {
    /// The proxy answers.
    Reply(Box<LocalReply>),
    /// The client is gone, or the response had begun: nothing can be said any more.
    Gone,
}

impl From<RequestError> for Ended {
    fn from(error: RequestError) -> Ended {
        Ended::Reply(Box::new(error.reply()))
    }
}

/// One request and its response.
struct Stream {
    session: Rc<Session>,
    http: Arc<HttpConnectionManager>,
    head: RequestHead,
    info: StreamInfo,
    downstream: Downstream,
    /// Begun once the route is known.
    filters: Option<FilterStack>,
    response: Option<ResponseHead>,
    trailers: Option<Headers>,
    expects_continue: bool,
    routes: Option<Rc<WorkerTable>>,
    selected: Option<Selected>,
}

/// Handles one request; the downstream comes back for the next one.
pub async fn handle(
    session: Rc<Session>,
    http: Arc<HttpConnectionManager>,
    received: Received,
    downstream: Downstream,
) -> Downstream {
    let mut info = StreamInfo::new(session.connection.clone(), Some(received.head.protocol));
    info.bytes.request_headers = received.header_bytes;
    record::request_begins(&http.stats, received.head.protocol);
    let mut stream = Stream {
        session,
        http,
        head: received.head,
        info,
        downstream,
        filters: None,
        response: None,
        trailers: None,
        expects_continue: received.expects_continue,
        routes: None,
        selected: None,
    };
    let gone = match stream.run().await {
        Ok(()) => false,
        Err(Ended::Gone) => true,
        Err(Ended::Reply(reply)) => stream.reply(*reply).await.is_err(),
    };
    if gone {
        stream.downstream.reset(h2::Reason::INTERNAL_ERROR.into());
    }
    stream.end();
    stream.downstream
}

/// Answers bytes that were no request.
pub async fn refuse(
    session: &Rc<Session>,
    http: &Arc<HttpConnectionManager>,
    mut downstream: Downstream,
    error: &CodecError,
) -> Downstream {
    let (status, details) = match error {
        CodecError::Protocol { status, details } => (*status, *details),
        _ => (400, "http1.codec_error"),
    };
    downstream.close_after();
    record::request_begins(&http.stats, Protocol::Http11);
    let mut stream = Stream {
        session: session.clone(),
        http: http.clone(),
        head: RequestHead::new("", "", ""),
        info: StreamInfo::new(session.connection.clone(), Some(Protocol::Http11)),
        downstream,
        filters: None,
        response: None,
        trailers: None,
        expects_continue: false,
        routes: None,
        selected: None,
    };
    let reply = match details {
        "request_overall_timeout" => RequestError::RequestTimeout.reply(),
        "request_header_timeout" => RequestError::HeaderTimeout.reply(),
        details => RequestError::Codec { status, details }.reply(),
    };
    let _ = stream.reply(reply).await;
    stream.end();
    stream.downstream
}

impl Stream {
    async fn run(&mut self) -> Result<(), Ended> {
        if let Err(error) = self.admit() {
            if !matches!(error, RequestError::PathRedirect(_)) {
                self.downstream.close_after();
            }
            return Err(error.into());
        }
        let worker = self.session.worker.clone();
        let node = &worker.settings.environment.node;
        let mut random = || worker.random();
        manager_request::apply(
            &mut self.head,
            &mut self.info,
            &self.http,
            node,
            &mut random,
        );
        self.select_route();
        self.request_filters().await?;
        let selected = self.selected()?;
        match &selected.route.action {
            Action::Forward(_) => self.forward(selected).await,
            Action::Redirect(redirect) => {
                let location = redirect.location(&self.head, &selected.route.criteria);
                let mut reply = LocalReply::new(redirect.status, "direct_response");
                reply.headers.push(("location".into(), location));
                self.route_reply(&selected, reply).await
            }
            Action::Direct(direct) => {
                let mut reply = LocalReply::new(direct.status, "direct_response");
                reply.body = direct.body.clone();
                if let Some(location) = direct.location(&self.head) {
                    reply.headers.push(("location".into(), location));
                }
                if let Some(kind) = &direct.content_type {
                    reply
                        .headers
                        .push(("content-type".into(), kind.clone().into_bytes()));
                }
                self.route_reply(&selected, reply).await
            }
            Action::None => Err(RequestError::NoRoute.into()),
        }
    }

    /// What no listener lets pass.
    fn admit(&mut self) -> Result<(), RequestError> {
        let http = &self.http;
        if self.head.protocol == Protocol::Http10 {
            if !http.http1.accept_http10 {
                return Err(RequestError::LowVersion);
            }
            if self.head.authority.is_empty() {
                let host = http.http1.default_host_for_http10.clone();
                self.head.authority = Bytes::from(host.into_bytes());
            }
        }
        if self.head.authority.is_empty() {
            return Err(RequestError::MissingHost);
        }
        if &self.head.method[..] == b"CONNECT" {
            return Err(RequestError::NoRoute);
        }
        if self.head.path.is_empty() {
            return Err(RequestError::MissingPath);
        }
        if self.head.path[0] != b'/' {
            return Err(RequestError::AbsolutePath);
        }
        match http.limits.underscores {
            Underscores::Allow => {}
            Underscores::Drop => {
                self.head
                    .headers
                    .remove_where(|name, _| name.contains(&b'_'));
            }
            Underscores::Reject => {
                if self
                    .head
                    .headers
                    .iter()
                    .any(|(name, _)| name.contains(&b'_'))
                {
                    let details = "http1.unexpected_underscore";
                    return Err(RequestError::Codec {
                        status: 400,
                        details,
                    });
                }
            }
        }
        path::canonicalise(&mut self.head, http).map_err(|problem| match problem {
            PathProblem::Bad => RequestError::BadPath,
            PathProblem::Redirect(path) => RequestError::PathRedirect(path),
        })
    }

    /// The route as of now; filters may change what it depends on and ask again.
    fn select_route(&mut self) {
        if self.routes.is_none() {
            self.routes = match &self.http.routes {
                RouteSource::Inline(table) => Some(WorkerTable::new(table.clone())),
                RouteSource::Rds { name, .. } => self.session.worker.route_slot(name).table(),
            };
        }
        let Some(routes) = &self.routes else { return };
        if !self.info.internal {
            for name in &routes.internal_only_headers {
                self.head.headers.remove(name);
            }
        }
        let random = self.session.worker.random();
        if let Selection::Route(selected) = routes.select(&self.head, &self.info, random) {
            self.note_route(&selected);
            self.selected = Some(selected);
        }
    }

    fn note_route(&mut self, selected: &Selected) {
        self.info.route_name = Some(selected.route.name.clone());
        self.info.virtual_host = Some(selected.virtual_host.name.clone());
        self.info.route_metadata = Some(selected.route.metadata.clone());
        let name = selected.cluster.as_deref();
        if let Some(cluster) = name.and_then(|name| self.session.worker.cluster(name)) {
            self.info.upstream.cluster = selected.cluster.clone();
            self.info.upstream.cluster_metadata = Some(cluster.config.metadata.clone());
            self.info.upstream.cluster_stat_name = Some(cluster.config.stat_name.clone());
        }
    }

    fn selected(&self) -> Result<Selected, RequestError> {
        if let Some(selected) = &self.selected {
            return Ok(selected.clone());
        }
        let Some(routes) = &self.routes else {
            return Err(RequestError::NoRoute);
        };
        match routes.select(&self.head, &self.info, self.session.worker.random()) {
            Selection::Route(selected) => Ok(selected),
            Selection::TlsRequired { location } => Err(RequestError::TlsRequired(location)),
            Selection::NoVirtualHost => Err(RequestError::NoVirtualHost),
            Selection::NoRoute(_) => Err(RequestError::NoRoute),
        }
    }

    async fn request_filters(&mut self) -> Result<(), Ended> {
        let mut resumed = false;
        loop {
            let flow = self.run_request_filters(resumed);
            match flow {
                Flow::Continue => return Ok(()),
                Flow::Reply(reply) => return Err(Ended::Reply(Box::new(reply))),
                Flow::Wait(pause) => {
                    resumed = true;
                    let pause = tokio::time::sleep(pause);
                    tokio::pin!(pause);
                    let downstream = &mut self.downstream;
                    let gone = poll_fn(|cx| {
                        if pause.as_mut().poll(cx).is_ready() {
                            return std::task::Poll::Ready(false);
                        }
                        downstream.poll_gone(cx).map(|_| true)
                    })
                    .await;
                    if gone {
                        return Err(self.client_gone());
                    }
                }
            }
        }
    }

    fn run_request_filters(&mut self, resumed: bool) -> Flow {
        let cluster = self.cluster();
        let random = self.session.worker.random();
        let mut context = FilterContext::new(random, self.session.chain.listener.direction);
        context.route = self.selected.as_ref();
        context.cluster = cluster.as_deref().map(|cluster| &*cluster.config);
        context.end_stream = self.downstream.incoming.is_done();
        let filters = self
            .filters
            .get_or_insert_with(|| self.http.filters.start(self.selected.as_ref()));
        let flow = match resumed {
            false => filters.on_request_headers(&mut self.head, &mut self.info, &mut context),
            true => filters.resume(&mut self.head, &mut self.info, &mut context),
        };
        if context.clear_route {
            self.selected = None;
            self.select_route();
        }
        flow
    }

    fn run_response_filters(&mut self, head: &mut ResponseHead, end: bool) {
        let cluster = self.cluster();
        let random = self.session.worker.random();
        let mut context = FilterContext::new(random, self.session.chain.listener.direction);
        context.route = self.selected.as_ref();
        context.cluster = cluster.as_deref().map(|cluster| &*cluster.config);
        context.end_stream = end;
        if let Some(filters) = &mut self.filters {
            filters.on_response_headers(head, &mut self.info, &mut context);
        }
    }

    /// The cluster that the route chose, where it exists.
    fn cluster(&self) -> Option<Rc<Cluster>> {
        let name = self.selected.as_ref()?.cluster.as_deref()?;
        self.session.worker.cluster(name)
    }

    /// The client went away before the end.
    fn client_gone(&mut self) -> Ended {
        self.info
            .response_flags
            .insert(ResponseFlags::DOWNSTREAM_CONNECTION_TERMINATION);
        self.info.response_code_details = Some("downstream_remote_disconnect".into());
        Ended::Gone
    }

    /// A reply that a route asked for: the route's header edits apply.
    async fn route_reply(&mut self, selected: &Selected, reply: LocalReply) -> Result<(), Ended> {
        selected.finalize_request(&mut self.head, &self.info, true);
        let (mut head, with_body) = local_reply::head_of(&reply, Some(&self.head));
        selected.finalize_response(&mut head, &self.head, &self.info);
        self.send_reply(&reply, head, with_body).await
    }

    async fn reply(&mut self, reply: LocalReply) -> Result<(), Ended> {
        if self.downstream.is_started() {
            return Err(Ended::Gone);
        }
        let (head, with_body) = local_reply::head_of(&reply, Some(&self.head));
        self.send_reply(&reply, head, with_body).await
    }

    async fn send_reply(
        &mut self,
        reply: &LocalReply,
        mut head: ResponseHead,
        with_body: bool,
    ) -> Result<(), Ended> {
        self.info.response_flags.insert(reply.flags);
        self.info.response_code_details = Some(reply.details.clone());
        self.info.response_code = Some(head.status);
        self.run_response_filters(&mut head, !with_body);
        self.send_head(head, !with_body, None)?;
        if with_body {
            self.info.bytes.sent += reply.body.len() as u64;
            let body = reply.body.clone();
            self.sent(|stream| stream.downstream.outgoing.send_data(body))?;
        }
        self.sent(|stream| stream.downstream.outgoing.finish(None))?;
        poll_fn(|cx| self.downstream.outgoing.poll_flush(cx))
            .await
            .map_err(|_| Ended::Gone)
    }

    fn sent(
        &mut self,
        send: impl FnOnce(&mut Stream) -> Result<(), CodecError>,
    ) -> Result<(), Ended> {
        send(self).map_err(|_| Ended::Gone)
    }

    /// The last hand on a response head, then the codec.
    fn send_head(
        &mut self,
        mut head: ResponseHead,
        end: bool,
        upgrade: Option<&[u8]>,
    ) -> Result<(), Ended> {
        let worker = self.session.worker.clone();
        worker.with_date(|date| {
            manager_response::apply(&mut head, &self.info, &self.http, date);
        });
        self.info.response_code = Some(head.status);
        self.info.grpc_status = grpc_status(&head.headers).or(self.info.grpc_status);
        self.info.bytes.response_headers = head.headers.byte_size() as u64;
        self.info.durations.first_downstream_tx = Some(self.info.elapsed());
        let result = self.downstream.send_head(&mut head, end, upgrade);
        self.response = Some(head);
        result.map_err(|_| Ended::Gone)
    }

    /// Is this upgrade allowed here, by the route or the connection manager?
    fn upgrade_allowed(&self, kind: &[u8], selected: &Selected) -> bool {
        let find = |list: &[Upgrade]| {
            list.iter()
                .find(|one| one.kind.as_bytes() == kind)
                .map(|one| one.enabled)
        };
        let by_route = selected
            .forward()
            .and_then(|forward| find(&forward.upgrades));
        by_route
            .or_else(|| find(&self.http.upgrades))
            .unwrap_or(false)
    }

    /// Logs and statistics, once.
    fn end(&mut self) {
        self.info.durations.total = Some(self.info.elapsed());
        self.info.durations.last_downstream_tx = self.info.durations.total;
        record::request_ends(&self.http.stats, &self.info);
        let inbound = self.session.chain.listener.direction == Direction::Inbound;
        if let Some(filters) = &mut self.filters {
            filters.on_end(Some(&self.head), &self.info, inbound);
        }
        let input = Input {
            stream: &self.info,
            request: Some(&self.head),
            response: self.response.as_ref(),
            trailers: self.trailers.as_ref(),
        };
        for log in &self.http.access_logs {
            log.log(&input, self.session.worker.random());
        }
    }
}

fn grpc_status(headers: &Headers) -> Option<u32> {
    headers
        .get_str("grpc-status")
        .and_then(|text| text.parse().ok())
}
