//! Attempts: choose a host, lease a connection, send, and decide whether the answer will do.
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::relay::{Answered, Timers};
use super::{Ended, Stream};
use crate::cluster::connect::{ConnectFailure, ConnectOptions};
use crate::cluster::pool::PoolFailure;
use crate::cluster::shared::{Host, RoutingPriority};
use crate::cluster::{Cluster, HostChoice};
use crate::http::codec::CodecError;
use crate::http::exchange::Exchange;
use crate::http::local_reply::RequestError;
use crate::http::replay::RequestBody;
use crate::http::request::Scheme;
use crate::retry::{Decision, ResetReason, RetryState};
use crate::route::hash::hash_of;
use crate::route::{Forward, Selected};
use crate::stats::record::Active;
use crate::stats::tables::Cluster as Stat;
use crate::stream_info::ResponseFlags;

/// How much of a body is kept for another attempt unless the route says otherwise.
const DEFAULT_REPLAY: usize = 1024 * 1024;

/// An attempt that ended before response headers.
pub(super) struct Failure {
    pub error: RequestError,
    pub reason: ResetReason,
    /// Bytes of the request may have reached the upstream.
    pub sent: bool,
}

impl Failure {
    pub(super) fn reset(reason: ResetReason, sent: bool) -> Failure {
        Failure {
            error: RequestError::Reset {
                reason,
                transport: None,
                retried: false,
            },
            reason,
            sent,
        }
    }
}

/// Counts a request in the cluster's and host's blocks while it lives.
pub(super) struct ActiveRequest {
    cluster: Rc<Cluster>,
    priority: RoutingPriority,
    host: Arc<Host>,
    _active: Active,
}

impl ActiveRequest {
    fn take(
        cluster: &Rc<Cluster>,
        priority: RoutingPriority,
        host: &Arc<Host>,
    ) -> Option<ActiveRequest> {
        let requests = &cluster.block.priority(priority).requests;
        let most = cluster.config.circuit_breakers.of(priority).max_requests;
        if requests.fetch_add(1, Ordering::Relaxed) >= most {
            requests.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        host.block.active_requests.fetch_add(1, Ordering::Relaxed);
        host.block.requests_total.fetch_add(1, Ordering::Relaxed);
        let active = Active::request(&cluster.stats);
        Some(ActiveRequest {
            cluster: cluster.clone(),
            priority,
            host: host.clone(),
            _active: active,
        })
    }
}

impl Drop for ActiveRequest {
    fn drop(&mut self) {
        let requests = &self.cluster.block.priority(self.priority).requests;
        requests.fetch_sub(1, Ordering::Relaxed);
        self.host
            .block
            .active_requests
            .fetch_sub(1, Ordering::Relaxed);
    }
}

/// Counts a retry in the cluster's block while it lives.
struct RetryPermit(Rc<Cluster>, RoutingPriority);

impl Drop for RetryPermit {
    fn drop(&mut self) {
        self.0
            .block
            .priority(self.1)
            .retries
            .fetch_sub(1, Ordering::Relaxed);
    }
}

fn take_retry(cluster: &Rc<Cluster>, priority: RoutingPriority) -> Option<RetryPermit> {
    let block = cluster.block.priority(priority);
    let thresholds = cluster.config.circuit_breakers.of(priority);
    let most = match &thresholds.retry_budget {
        None => thresholds.max_retries,
        Some(budget) => {
            let active = f64::from(block.requests.load(Ordering::Relaxed));
            ((active * budget.percent / 100.0) as u32).max(budget.min_retry_concurrency)
        }
    };
    if block.retries.fetch_add(1, Ordering::Relaxed) >= most {
        block.retries.fetch_sub(1, Ordering::Relaxed);
        cluster.stats.inc(Stat::RqRetryOverflow);
        return None;
    }
    cluster.stats.inc(Stat::RqRetry);
    Some(RetryPermit(cluster.clone(), priority))
}

/// What stays the same over the attempts of one request.
pub(super) struct Plan {
    pub cluster: Rc<Cluster>,
    pub priority: RoutingPriority,
    pub hash: Option<u64>,
    pub set_cookie: Option<String>,
    pub tried: Vec<Arc<Host>>,
    pub retry: Option<RetryState>,
    pub started: Instant,
}

impl Stream {
    // tidy: long function: one loop over the attempts of a request.
    pub(super) async fn forward(&mut self, selected: Selected) -> Result<(), Ended> {
        let Some(forward) = selected.forward() else {
            return Err(RequestError::NoRoute.into());
        };
        if let Some(kind) = self.head.upgrade.clone()
            && !self.upgrade_allowed(&kind, &selected)
        {
            self.downstream.close_after();
            return Err(RequestError::UpgradeNotAllowed.into());
        }
        let cluster = self.cluster_of(&selected, forward)?;
        let timeouts = selected.timeouts(&mut self.head);
        let mut plan = self.plan(&cluster, forward);
        selected.finalize_request(&mut self.head, &self.info, true);
        let suppress = self.http.filters.router.suppress_envoy_headers;
        timeouts.announce(&mut self.head, suppress, forward.max_grpc_timeout.is_some());
        let ended = self.downstream.incoming.is_done();
        let keeps =
            plan.retry.as_ref().is_some_and(RetryState::is_enabled) || !forward.mirrors.is_empty();
        let limit = if keeps {
            selected.route.buffer_limit.unwrap_or(DEFAULT_REPLAY)
        } else {
            0
        };
        let mut body = RequestBody::new(limit, ended);
        let mut timers = Timers::new(&timeouts, self.stream_idle(forward), &self.http);
        if self.expects_continue && !self.http.proxy_100_continue {
            self.downstream.send_continue();
        }
        let include_count = selected.virtual_host.include_request_attempt_count;
        let mut permit: Option<RetryPermit> = None;
        loop {
            self.count_attempt(include_count);
            if self.info.attempt_count > 1 {
                let left = timeouts.after(plan.started.elapsed());
                left.announce(&mut self.head, suppress, forward.max_grpc_timeout.is_some());
            }
            body.rewind();
            timers.begin_attempt();
            let result = self
                .attempt(&selected, &mut plan, &mut body, &mut timers)
                .await?;
            let decision = self.judge(&mut plan, &body, &result, &mut permit);
            match (decision, result) {
                (Decision::Retry { after }, _) => {
                    self.back_off(after, &mut timers).await?;
                    self.info.upstream.transport_failure_reason = None;
                }
                (decision, Ok(answered)) => {
                    drop(permit.take());
                    let flags = &mut self.info.response_flags;
                    if decision == Decision::Overflow {
                        flags.insert(ResponseFlags::UPSTREAM_OVERFLOW);
                    }
                    if decision == Decision::LimitExceeded {
                        flags.insert(ResponseFlags::UPSTREAM_RETRY_LIMIT_EXCEEDED);
                    }
                    let relayed = self
                        .relay((&selected, &plan), answered, &mut body, &mut timers)
                        .await;
                    self.mirror(forward, &body);
                    return relayed;
                }
                (decision, Err(mut failure)) => {
                    if let RequestError::Reset { retried, .. } = &mut failure.error {
                        *retried = self.info.attempt_count > 1;
                    }
                    if decision == Decision::LimitExceeded {
                        let flag = ResponseFlags::UPSTREAM_RETRY_LIMIT_EXCEEDED;
                        self.info.response_flags.insert(flag);
                    }
                    self.mirror(forward, &body);
                    return Err(failure.error.into());
                }
            }
        }
    }

    /// The cluster that a filter or the route chose.
    fn cluster_of(
        &self,
        selected: &Selected,
        forward: &Forward,
    ) -> Result<Rc<Cluster>, RequestError> {
        let chosen = self.info.upstream.cluster.as_ref();
        let name = chosen.or(selected.cluster.as_ref());
        let status = forward.cluster_not_found_status;
        name.and_then(|name| self.session.worker.cluster(name))
            .ok_or(RequestError::NoCluster { status })
    }

    fn count_attempt(&mut self, announce: bool) {
        self.info.attempt_count += 1;
        if announce {
            let count = self.info.attempt_count.to_string();
            let headers = &mut self.head.headers;
            headers.set("x-envoy-attempt-count", count.as_bytes());
        }
    }

    fn plan(&mut self, cluster: &Rc<Cluster>, forward: &Forward) -> Plan {
        let hash = match forward.hash.is_empty() {
            true => None,
            false => Some(hash_of(&forward.hash, &self.head, &self.info)),
        };
        let retry = RetryState::new(forward.retry.as_ref(), &mut self.head);
        Plan {
            cluster: cluster.clone(),
            priority: forward.priority,
            hash: hash.as_ref().and_then(|one| one.hash),
            set_cookie: hash
                .and_then(|one| one.set_cookie)
                .map(|cookie| cookie.line),
            tried: Vec::new(),
            retry,
            started: Instant::now(),
        }
    }

    fn stream_idle(&self, forward: &Forward) -> Option<Duration> {
        forward
            .idle_timeout
            .unwrap_or(self.http.stream_idle_timeout)
    }

    /// What follows from an attempt's end; `Retry` takes a permit of the breaker.
    fn judge(
        &mut self,
        plan: &mut Plan,
        body: &RequestBody,
        result: &Result<Answered, Failure>,
        held: &mut Option<RetryPermit>,
    ) -> Decision {
        let random = self.session.worker.random();
        let Some(retry) = plan.retry.as_mut() else {
            return Decision::No;
        };
        if !body.can_replay() || self.head.upgrade.is_some() {
            return Decision::No;
        }
        // The permit of the attempt that just ended is free again.
        drop(held.take());
        let (cluster, priority) = (plan.cluster.clone(), plan.priority);
        let permit = || {
            *held = take_retry(&cluster, priority);
            held.is_some()
        };
        match result {
            Ok(answered) => retry.after_headers(&answered.head, random, permit),
            Err(failure) => retry.after_reset(failure.reason, failure.sent, random, permit),
        }
    }

    async fn back_off(&mut self, after: Duration, timers: &mut Timers) -> Result<(), Ended> {
        let pause = tokio::time::sleep(after);
        tokio::pin!(pause);
        enum Next {
            Go,
            Gone,
            Late,
        }
        let downstream = &mut self.downstream;
        let next = std::future::poll_fn(|cx| {
            use std::task::Poll;
            if pause.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Next::Go);
            }
            if downstream.poll_gone(cx).is_ready() {
                return Poll::Ready(Next::Gone);
            }
            if timers.global.poll(cx).is_ready() {
                Poll::Ready(Next::Late)
            } else {
                Poll::Pending
            }
        })
        .await;
        match next {
            Next::Go => Ok(()),
            Next::Gone => Err(self.client_gone()),
            Next::Late => Err(RequestError::Timeout.into()),
        }
    }

    /// One attempt, up to its response headers.
    async fn attempt(
        &mut self,
        selected: &Selected,
        plan: &mut Plan,
        body: &mut RequestBody,
        timers: &mut Timers,
    ) -> Result<Result<Answered, Failure>, Ended> {
        let Some(host) = self.choose(plan) else {
            return Err(RequestError::NoHealthyUpstream.into());
        };
        plan.tried.push(host.clone());
        self.info.upstream.host = Some(host.clone());
        self.info.upstream.remote = host.address.socket();
        let Some(active) = ActiveRequest::take(&plan.cluster, plan.priority, &host) else {
            return Ok(Err(Failure::reset(ResetReason::Overflow, false)));
        };
        selected.rewrite_to_host(&mut self.head, &host.hostname, true);
        let exchange = match self.open_exchange(plan, &host, body, timers).await? {
            Ok(exchange) => exchange,
            Err(failure) => return Ok(Err(failure)),
        };
        self.info.upstream.protocol = Some(exchange.protocol());
        let random = self.session.worker.random();
        let answered = match self.await_answer(exchange, body, timers).await {
            Ok(answered) => answered,
            Err(ended) => {
                if self
                    .info
                    .response_flags
                    .contains(ResponseFlags::UPSTREAM_REQUEST_TIMEOUT)
                {
                    plan.cluster.on_timeout(&host, random);
                }
                return Err(ended);
            }
        };
        Ok(match answered {
            Ok(mut answered) => {
                plan.cluster
                    .on_response(&host, answered.head.status, random);
                answered.active = Some(active);
                Ok(answered)
            }
            Err(failure) => {
                plan.cluster.on_reset(&host, failure.reason, random);
                Err(failure)
            }
        })
    }

    /// A connection of the host's pool with the request's head on it.
    async fn open_exchange(
        &mut self,
        plan: &mut Plan,
        host: &Arc<Host>,
        body: &RequestBody,
        timers: &mut Timers,
    ) -> Result<Result<Exchange, Failure>, Ended> {
        let pool = plan
            .cluster
            .pool(host, self.downstream.is_http2(), self.options(plan));
        let mut again = true;
        loop {
            let lease = match self.lease(&pool, plan.priority, timers).await? {
                Ok(lease) => lease,
                Err(PoolFailure::Overflow) => {
                    return Ok(Err(Failure::reset(ResetReason::Overflow, false)));
                }
                Err(PoolFailure::Connect(failure)) => {
                    let random = self.session.worker.random();
                    plan.cluster
                        .on_connect_failure(host, failure.timeout, random);
                    return Ok(Err(self.connect_failed(failure)));
                }
            };
            self.note_connection(lease.connection());
            self.set_upstream_scheme();
            let mut with_expect = None;
            if self.expects_continue && self.http.proxy_100_continue {
                let head = with_expect.insert(self.head.clone());
                head.headers.append("expect", b"100-continue");
            }
            let end = body.is_empty() && self.head.upgrade.is_none();
            let head = with_expect.as_ref().unwrap_or(&self.head);
            match Exchange::start(pool.clone(), lease, head, end) {
                Ok(exchange) => return Ok(Ok(exchange)),
                // The connection ended in this very moment: nothing was sent on it.
                Err(CodecError::Closed | CodecError::Refused) if again => again = false,
                Err(error) => return Ok(Err(failure_of(&error, false))),
            }
        }
    }

    fn choose(&mut self, plan: &Plan) -> Option<Arc<Host>> {
        let choice = HostChoice {
            hash: plan.hash,
            random: self.session.worker.random(),
            tried: &plan.tried,
            retry: plan.retry.as_ref().map(|retry| retry.policy()),
            request: Some(&self.head),
            downstream: &self.info.downstream,
        };
        plan.cluster.choose_host(&choice)
    }

    fn options(&self, plan: &Plan) -> ConnectOptions {
        let server_name = plan.cluster.config.auto_sni.then(|| {
            let authority = self.sni_source(plan);
            let text = std::str::from_utf8(&authority).unwrap_or_default();
            Arc::from(host_of(text))
        });
        ConnectOptions {
            alpn: self.info.upstream_alpn.clone(),
            server_name,
        }
    }

    fn sni_source(&self, plan: &Plan) -> Bytes {
        let header = plan.cluster.config.override_auto_sni_header.as_deref();
        let named = header.and_then(|name| self.head.header(name));
        named.map_or_else(
            || self.head.authority.clone(),
            |value| Bytes::from(value.into_owned()),
        )
    }

    fn connect_failed(&mut self, failure: ConnectFailure) -> Failure {
        let reason = match failure.timeout {
            true => ResetReason::ConnectTimeout,
            false => ResetReason::ConnectFailure,
        };
        self.info.upstream.transport_failure_reason = Some(failure.reason.clone());
        let transport = Some(failure.reason);
        Failure {
            error: RequestError::Reset {
                reason,
                transport,
                retried: false,
            },
            reason,
            sent: false,
        }
    }

    fn note_connection(&mut self, connection: &crate::cluster::connect::UpstreamConnection) {
        let upstream = &mut self.info.upstream;
        upstream.local = connection.local;
        upstream.tls = connection.tls.clone();
        upstream.connection_id = Some(connection.id);
        upstream.connection_requests = connection.requests.get();
        let now = self.info.started.elapsed();
        self.info.durations.upstream_connect = Some(connection.connect_time);
        self.info.durations.first_upstream_tx.get_or_insert(now);
    }

    /// `:scheme` towards the upstream is that of its transport only where nothing else said so.
    fn set_upstream_scheme(&mut self) {
        if self.head.headers.get("x-forwarded-proto") == Some(b"https") {
            self.head.scheme = Scheme::Https;
        }
    }
}

/// The name in an authority, without port and brackets.
fn host_of(authority: &str) -> &str {
    if let Some(rest) = authority.strip_prefix('[') {
        return rest.split(']').next().unwrap_or_default();
    }
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    }
}

/// A codec's error as the reason of an attempt's end.
pub(super) fn failure_of(error: &CodecError, sent: bool) -> Failure {
    let reason = match error {
        CodecError::Closed | CodecError::Io(_) => ResetReason::ConnectionTermination,
        CodecError::Protocol { .. } => ResetReason::ProtocolError,
        CodecError::Reset(_) => ResetReason::RemoteReset,
        CodecError::Refused => ResetReason::RefusedStream,
    };
    Failure::reset(reason, sent)
}
