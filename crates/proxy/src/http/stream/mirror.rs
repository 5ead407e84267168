//! Copies of requests to other clusters: sent on their own, answered to nobody.
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;

use super::Stream;
use crate::cluster::{Cluster, HostChoice};
use crate::http::exchange::{Answer, Exchange};
use crate::http::replay::RequestBody;
use crate::http::request::RequestHead;
use crate::route::{Forward, Mirror, MirrorCluster};

/// A copy is given up after this.
const MIRROR_TIMEOUT: Duration = Duration::from_secs(15);

impl Stream {
    /// Sends the copies that the route asks for; a body that was too large to keep has none.
    pub(super) fn mirror(&self, forward: &Forward, body: &RequestBody) {
        if forward.mirrors.is_empty() || self.head.upgrade.is_some() {
            return;
        }
        if !body.can_replay() || !body.is_ended() {
            tracing::debug!("request body too large to mirror");
            return;
        }
        for mirror in &forward.mirrors {
            if !mirror.fraction.holds(self.session.worker.random()) {
                continue;
            }
            let name = match &mirror.cluster {
                MirrorCluster::Fixed(name) => Some(name.to_string()),
                MirrorCluster::Header(header) => {
                    self.head.headers.get_str(header).map(str::to_owned)
                }
            };
            let cluster = name.and_then(|name| self.session.worker.cluster(&name));
            let Some(cluster) = cluster else { continue };
            let head = copy_of(&self.head, mirror);
            let copy = Copy {
                cluster,
                head,
                body: body.kept().to_vec(),
                random: self.session.worker.random(),
                downstream: self.info.downstream.clone(),
            };
            tokio::task::spawn_local(async move {
                let _ = tokio::time::timeout(MIRROR_TIMEOUT, copy.send()).await;
            });
        }
    }
}

fn copy_of(head: &RequestHead, mirror: &Mirror) -> RequestHead {
    let mut head = head.clone();
    if let Some(host) = &mirror.host_rewrite {
        head.authority = Bytes::copy_from_slice(host.as_bytes());
    } else if !mirror.keep_host {
        let authority = head.authority.clone();
        let port = authority
            .iter()
            .rposition(|byte| *byte == b':')
            .unwrap_or(authority.len());
        head.authority = [&authority[..port], b"-shadow", &authority[port..]]
            .concat()
            .into();
    }
    head
}

struct Copy {
    cluster: Rc<Cluster>,
    head: RequestHead,
    body: Vec<Bytes>,
    random: u64,
    downstream: Rc<crate::stream_info::Connection>,
}

impl Copy {
    async fn send(self) -> Option<()> {
        let choice = HostChoice {
            hash: None,
            random: self.random,
            tried: &[],
            retry: None,
            request: Some(&self.head),
            downstream: &self.downstream,
        };
        let host = self.cluster.choose_host(&choice)?;
        let http2 = self.head.protocol == crate::http::request::Protocol::Http2;
        let pool = self.cluster.pool(&host, http2, Default::default());
        let lease = pool.lease(Default::default()).await.ok()?;
        let end = self.body.is_empty();
        let mut exchange = Exchange::start(pool, lease, &self.head, end).ok()?;
        for bytes in self.body {
            exchange.send_data(bytes).ok()?;
        }
        exchange.finish(None).ok()?;
        std::future::poll_fn(|cx| exchange.poll_flush(cx))
            .await
            .ok()?;
        loop {
            let answer = std::future::poll_fn(|cx| exchange.poll_answer(cx))
                .await
                .ok()?;
            if matches!(answer, Answer::Head { .. }) {
                break;
            }
        }
        while std::future::poll_fn(|cx| exchange.poll_frame(cx))
            .await
            .ok()?
            .is_some()
        {}
        exchange.end();
        Some(())
    }
}
