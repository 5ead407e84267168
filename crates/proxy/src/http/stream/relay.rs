//! Both directions of a stream once its upstream connection is there: the request going out while
//! the answer is awaited, then the response coming back while the request may still be going out.
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

use super::forward::{ActiveRequest, Failure, Plan, failure_of};
use super::{Ended, Stream, grpc_status};
use crate::cluster::pool::{Lease, Pool, PoolFailure};
use crate::cluster::shared::RoutingPriority;
use crate::http::codec::h1::BodyLength;
use crate::http::codec::{CodecError, Frame, Incoming, Outgoing};
use crate::http::exchange::{Answer, Exchange};
use crate::http::filters::FilterStack;
use crate::http::local_reply::RequestError;
use crate::http::replay::{HIGH_WATER, RequestBody, Side};
use crate::http::request::ResponseHead;
use crate::parse::http_connection_manager::HttpConnectionManager;
use crate::retry::ResetReason;
use crate::route::{Selected, Timeouts};
use crate::stream_info::ResponseFlags;

/// A timer that is armed when it is needed.
pub(super) struct Timer {
    limit: Option<Duration>,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Timer {
    fn new(limit: Option<Duration>) -> Timer {
        Timer { limit, sleep: None }
    }

    fn arm(&mut self) {
        if let (Some(limit), None) = (self.limit, &self.sleep) {
            self.sleep = Some(Box::pin(tokio::time::sleep(limit)));
        }
    }

    fn disarm(&mut self) {
        self.sleep = None;
    }

    /// Begins anew, because something moved.
    fn touch(&mut self) {
        if let (Some(limit), Some(sleep)) = (self.limit, &mut self.sleep) {
            sleep.as_mut().reset(Instant::now() + limit);
        }
    }

    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.sleep {
            Some(sleep) => sleep.as_mut().poll(cx),
            None => Poll::Pending,
        }
    }
}

/// The limits of one request.
pub(super) struct Timers {
    pub(super) global: Timer,
    per_try: Timer,
    per_try_idle: Timer,
    idle: Timer,
    duration: Timer,
    /// Until the whole request is here.
    request: Timer,
}

impl Timers {
    pub(super) fn new(
        timeouts: &Timeouts,
        idle: Option<Duration>,
        http: &HttpConnectionManager,
    ) -> Timers {
        let mut timers = Timers {
            global: Timer::new(timeouts.global),
            per_try: Timer::new(timeouts.per_try),
            per_try_idle: Timer::new(timeouts.per_try_idle),
            idle: Timer::new(idle),
            duration: Timer::new(timeouts.max_stream.or(http.limits.max_stream_duration)),
            request: Timer::new(http.request_timeout),
        };
        timers.request.arm();
        timers.idle.arm();
        timers.duration.arm();
        timers
    }

    pub(super) fn begin_attempt(&mut self) {
        self.per_try.disarm();
        self.per_try_idle.disarm();
    }

    /// The whole request is with the upstream: now the route's timeouts count.
    fn request_complete(&mut self) {
        self.request.disarm();
        self.global.arm();
        self.per_try.arm();
        self.per_try_idle.arm();
    }

    fn poll(&mut self, cx: &mut Context<'_>, request_complete: bool) -> Poll<RequestError> {
        if self.request.poll(cx).is_ready() {
            return Poll::Ready(RequestError::RequestTimeout);
        }
        if self.duration.poll(cx).is_ready() {
            return Poll::Ready(RequestError::MaxDuration { request_complete });
        }
        if self.global.poll(cx).is_ready() {
            return Poll::Ready(RequestError::Timeout);
        }
        if self.per_try.poll(cx).is_ready() {
            return Poll::Ready(RequestError::PerTryTimeout);
        }
        if self.per_try_idle.poll(cx).is_ready() {
            return Poll::Ready(RequestError::PerTryIdleTimeout);
        }
        if self.idle.poll(cx).is_ready() {
            return Poll::Ready(RequestError::StreamIdle { request_complete });
        }
        Poll::Pending
    }
}

/// A response head and the exchange that goes on.
pub(super) struct Answered {
    pub exchange: Exchange,
    pub head: ResponseHead,
    pub upgraded: bool,
    pub active: Option<ActiveRequest>,
}

enum Step {
    Answer(Answer),
    Failed(Failure),
    /// The request's body broke off, or was no HTTP.
    Client(CodecError),
    Gone,
    Late(RequestError),
}

impl Stream {
    /// A connection, unless the client or the time goes first.
    pub(super) async fn lease(
        &mut self,
        pool: &Rc<Pool>,
        priority: RoutingPriority,
        timers: &mut Timers,
    ) -> Result<Result<Lease, PoolFailure>, Ended> {
        let complete = self.downstream.incoming.is_done();
        if complete {
            timers.request_complete();
        }
        let mut lease = std::pin::pin!(pool.lease(priority));
        let downstream = &mut self.downstream;
        let result = poll_fn(|cx| {
            if let Poll::Ready(result) = lease.as_mut().poll(cx) {
                return Poll::Ready(Ok(result));
            }
            if downstream.poll_gone(cx).is_ready() {
                return Poll::Ready(Err(None));
            }
            timers.poll(cx, complete).map(|error| Err(Some(error)))
        })
        .await;
        match result {
            Ok(result) => Ok(result),
            Err(None) => Err(self.client_gone()),
            Err(Some(error)) => Err(error.into()),
        }
    }

    /// Sends the request and waits for response headers, both at once.
    // tidy: long function: one select over both directions, then one arm for each step.
    pub(super) async fn await_answer(
        &mut self,
        mut exchange: Exchange,
        body: &mut RequestBody,
        timers: &mut Timers,
    ) -> Result<Result<Answered, Failure>, Ended> {
        let upgrade = self.head.upgrade.is_some();
        let mut sending = true;
        loop {
            let step = {
                let downstream = &mut self.downstream;
                let exchange = &mut exchange;
                poll_fn(|cx| {
                    if sending {
                        // Nothing follows an upgrade's head until the upstream has agreed.
                        let sent = match upgrade {
                            true => exchange.poll_flush(cx).map_err(Side::Upstream),
                            false => body.poll_send(cx, &mut downstream.incoming, exchange),
                        };
                        match sent {
                            Poll::Pending => {}
                            Poll::Ready(Ok(())) => {
                                sending = false;
                                timers.request_complete();
                            }
                            Poll::Ready(Err(Side::Downstream(error))) => {
                                return Poll::Ready(Step::Client(error));
                            }
                            // An early answer may still be on its way.
                            Poll::Ready(Err(Side::Upstream(_))) => sending = false,
                        }
                        let _ = downstream.outgoing.poll_flush(cx);
                    }
                    match exchange.poll_answer(cx) {
                        Poll::Ready(Ok(answer)) => return Poll::Ready(Step::Answer(answer)),
                        Poll::Ready(Err(error)) => {
                            let sent = exchange.has_sent();
                            return Poll::Ready(Step::Failed(failure_of(&error, sent)));
                        }
                        Poll::Pending => {}
                    }
                    if !sending && downstream.poll_gone(cx).is_ready() {
                        return Poll::Ready(Step::Gone);
                    }
                    timers.poll(cx, body.is_finished()).map(Step::Late)
                })
                .await
            };
            match step {
                Step::Answer(Answer::Interim(100)) => {
                    if self.expects_continue && self.http.proxy_100_continue {
                        self.downstream.send_continue();
                        sending = true;
                    }
                }
                Step::Answer(Answer::Interim(_)) => {}
                Step::Answer(Answer::Head { head, upgraded }) => {
                    let now = self.info.elapsed();
                    self.info.durations.first_upstream_rx = Some(now);
                    self.info.bytes.received = body.received;
                    return Ok(Ok(Answered {
                        exchange,
                        head,
                        upgraded,
                        active: None,
                    }));
                }
                Step::Failed(failure) => {
                    self.info.bytes.received = body.received;
                    return Ok(Err(failure));
                }
                Step::Client(CodecError::Protocol { status, details }) => {
                    self.downstream.close_after();
                    return Err(RequestError::Codec { status, details }.into());
                }
                Step::Client(_) | Step::Gone => return Err(self.client_gone()),
                Step::Late(
                    error @ (RequestError::PerTryTimeout | RequestError::PerTryIdleTimeout),
                ) => {
                    let reason = ResetReason::PerTryTimeout;
                    return Ok(Err(Failure {
                        error,
                        reason,
                        sent: true,
                    }));
                }
                Step::Late(error) => {
                    self.info.bytes.received = body.received;
                    self.info.response_flags.insert(error.reply().flags);
                    return Err(error.into());
                }
            }
        }
    }

    /// The response on its way to the client.
    pub(super) async fn relay(
        &mut self,
        (selected, plan): (&Selected, &Plan),
        answered: Answered,
        body: &mut RequestBody,
        timers: &mut Timers,
    ) -> Result<(), Ended> {
        let Answered {
            mut exchange,
            mut head,
            upgraded,
            active,
        } = answered;
        timers.per_try.disarm();
        timers.per_try_idle.disarm();
        timers.idle.touch();
        let upgrade = if upgraded {
            self.head.upgrade.clone()
        } else {
            None
        };
        let end = exchange.is_answered() && !upgraded;
        // As in Envoy: only where the whole request went before, and nobody forbade it.
        if body.is_finished() && self.head.upgrade.is_none() {
            self.announce_service_time(plan, &mut head);
        }
        if self.head.upgrade.is_some() && !upgraded {
            self.downstream.close_after();
        }
        self.prepare_head(selected, plan, &mut head, end);
        self.send_head(head, end, upgrade.as_deref())?;
        if upgraded {
            timers.global.disarm();
            self.info.upgraded = true;
            if let Incoming::H1(reader) = &mut self.downstream.incoming {
                reader.begin_body(BodyLength::Tunnel);
            }
            self.downstream.close_after();
            *body = RequestBody::new(0, false);
        }
        let result = self.pump(&mut exchange, body, timers, upgraded).await;
        self.info.bytes.received = body.received.max(self.info.bytes.received);
        self.info.bytes.upstream_sent = self.info.bytes.received;
        self.info.bytes.upstream_received = self.info.bytes.sent;
        self.info.durations.last_upstream_rx = Some(self.info.elapsed());
        exchange.end();
        drop(active);
        result
    }

    fn announce_service_time(&self, plan: &Plan, head: &mut ResponseHead) {
        if !self.http.filters.router.suppress_envoy_headers {
            let took = plan.started.elapsed().as_millis().to_string();
            head.headers
                .set("x-envoy-upstream-service-time", took.as_bytes());
        }
    }

    fn prepare_head(
        &mut self,
        selected: &Selected,
        plan: &Plan,
        head: &mut ResponseHead,
        end: bool,
    ) {
        if selected.virtual_host.include_attempt_count_in_response {
            let count = self.info.attempt_count.to_string();
            head.headers.set("x-envoy-attempt-count", count.as_bytes());
        }
        if let Some(cookie) = &plan.set_cookie {
            head.headers.append("set-cookie", cookie.as_bytes());
        }
        self.info.response_code = Some(head.status);
        self.info.response_code_details = Some("via_upstream".into());
        selected.finalize_response(head, &self.head, &self.info);
        self.run_response_filters(head, end);
    }

    async fn pump(
        &mut self,
        exchange: &mut Exchange,
        body: &mut RequestBody,
        timers: &mut Timers,
        tunnel: bool,
    ) -> Result<(), Ended> {
        let mut response = Response {
            done: false,
            trailers: None,
            sent: 0,
        };
        let mut filters = self.filters.take();
        let mut observer = filters.as_mut().filter(|filters| filters.wants_data());
        let mut sending = !body.is_finished() || exchange.queued() > 0;
        let outcome = {
            let downstream = &mut self.downstream;
            poll_fn(|cx| {
                let before = response.sent + body.received;
                if sending {
                    match body.poll_send(cx, &mut downstream.incoming, exchange) {
                        Poll::Pending => {}
                        // A tunnel ends with its client, as in Envoy.
                        Poll::Ready(Ok(())) if tunnel => return Poll::Ready(Over::Client),
                        Poll::Ready(Ok(())) | Poll::Ready(Err(Side::Upstream(_))) => {
                            sending = false
                        }
                        Poll::Ready(Err(Side::Downstream(_))) => {
                            return Poll::Ready(Over::Client);
                        }
                    }
                }
                match response.poll(
                    cx,
                    exchange,
                    &mut downstream.outgoing,
                    observer.as_deref_mut(),
                ) {
                    Poll::Ready(Ok(())) => return Poll::Ready(Over::Complete),
                    Poll::Ready(Err(over)) => return Poll::Ready(over),
                    Poll::Pending => {}
                }
                if !sending && !tunnel && downstream.poll_gone(cx).is_ready() {
                    return Poll::Ready(Over::Client);
                }
                if response.sent + body.received != before {
                    timers.idle.touch();
                }
                timers.poll(cx, !sending).map(Over::Late)
            })
            .await
        };
        self.filters = filters;
        self.info.bytes.sent += response.sent;
        if let Some(trailers) = response.trailers {
            self.info.grpc_status = grpc_status(&trailers).or(self.info.grpc_status);
            self.info.bytes.response_trailers = trailers.byte_size() as u64;
            self.trailers = Some(trailers);
        }
        self.pump_ended(outcome)
    }

    fn pump_ended(&mut self, outcome: Over) -> Result<(), Ended> {
        match outcome {
            Over::Complete => Ok(()),
            Over::Client => Err(self.client_gone()),
            Over::Upstream(error) => {
                let flag = match error {
                    CodecError::Reset(_) | CodecError::Refused => {
                        ResponseFlags::UPSTREAM_REMOTE_RESET
                    }
                    CodecError::Protocol { .. } => ResponseFlags::UPSTREAM_PROTOCOL_ERROR,
                    _ => ResponseFlags::UPSTREAM_CONNECTION_TERMINATION,
                };
                self.info.response_flags.insert(flag);
                self.info.response_code_details =
                    Some("upstream_reset_after_response_started".into());
                Err(Ended::Gone)
            }
            Over::Late(error) => {
                let reply = error.reply();
                self.info.response_flags.insert(reply.flags);
                self.info.response_code_details = Some(reply.details);
                Err(Ended::Gone)
            }
        }
    }
}

/// How relaying a response ended.
enum Over {
    Complete,
    Client,
    Upstream(CodecError),
    Late(RequestError),
}

struct Response {
    done: bool,
    trailers: Option<crate::http::headers::Headers>,
    sent: u64,
}

impl Response {
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        exchange: &mut Exchange,
        outgoing: &mut Outgoing,
        mut observer: Option<&mut FilterStack>,
    ) -> Poll<Result<(), Over>> {
        loop {
            if self.done {
                return outgoing
                    .poll_flush(cx)
                    .map(|result| result.map_err(|_| Over::Client));
            }
            if outgoing.queued() > HIGH_WATER {
                match outgoing.poll_flush(cx) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Err(_)) => return Poll::Ready(Err(Over::Client)),
                    Poll::Ready(Ok(())) => {}
                }
            }
            let result = match exchange.poll_frame(cx) {
                Poll::Ready(Ok(Some(Frame::Data(bytes)))) => {
                    self.sent += bytes.len() as u64;
                    if let Some(filters) = &mut observer {
                        filters.on_response_data(&bytes);
                    }
                    outgoing.send_data(bytes)
                }
                Poll::Ready(Ok(Some(Frame::Trailers(trailers)))) => {
                    self.done = true;
                    let result = outgoing.finish(Some(&trailers));
                    self.trailers = Some(trailers);
                    result
                }
                Poll::Ready(Ok(None)) => {
                    self.done = true;
                    outgoing.finish(None)
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(Over::Upstream(error))),
                Poll::Pending => {
                    if let Poll::Ready(Err(_)) = outgoing.poll_flush(cx) {
                        return Poll::Ready(Err(Over::Client));
                    }
                    return Poll::Pending;
                }
            };
            if result.is_err() {
                return Poll::Ready(Err(Over::Client));
            }
        }
    }
}
