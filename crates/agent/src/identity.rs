//! The pod's identity over time: first certificate, renewal at half of its life, retries.
//! Readers see the newest one through a watch channel; nothing is ever written to a disk.

use std::sync::Arc;
use std::time::Duration;

use daemon::drain::DrainWatch;
use jiff::Timestamp;
use pki::SpiffeId;
use pki::rotation::{self, Schedule};
use tokio::sync::watch;

use crate::ca_client::{self, Issued};
use crate::control_plane::{BackOff, ControlPlane};

/// `None` until the first certificate is there.
pub type IdentityWatch = watch::Receiver<Option<Arc<Issued>>>;

pub struct Renewal {
    pub authority: ControlPlane,
    pub id: SpiffeId,
    pub ttl: Duration,
    pub schedule: Schedule,
}

pub struct Publisher(watch::Sender<Option<Arc<Issued>>>);

pub fn channel() -> (Publisher, IdentityWatch) {
    let (sender, receiver) = watch::channel(None);
    (Publisher(sender), receiver)
}

impl Renewal {
    /// Obtains and renews until the drain starts.
    pub async fn run(self, publisher: Publisher, drain: DrainWatch) {
        while let Some(pause) = drain.unless_draining(self.renew(&publisher)).await {
            if drain
                .unless_draining(tokio::time::sleep(pause))
                .await
                .is_none()
            {
                return;
            }
        }
    }

    /// One certificate, however long it takes; gives the time until the next.
    async fn renew(&self, publisher: &Publisher) -> Duration {
        // A pod that waits for its first certificate cannot start; the others have hours.
        let last = if publisher.0.borrow().is_some() {
            10
        } else {
            1
        };
        let mut back_off = BackOff::new(Duration::from_millis(100), Duration::from_secs(last));
        loop {
            let current = publisher.0.borrow().clone();
            let issued =
                ca_client::issue(&self.authority, &self.id, self.ttl, current.as_deref()).await;
            match issued {
                Ok(issued) => {
                    let (from, to) = (issued.leaf.not_before, issued.leaf.not_after);
                    let random = rotation::random();
                    let pause = self.schedule.delay(from, to, Timestamp::now(), random);
                    tracing::info!(
                        id = %self.id, serial = issued.leaf.serial, until = %to, renew_in = ?pause,
                        "certificate issued"
                    );
                    publisher.0.send_replace(Some(Arc::new(issued)));
                    // A certificate that is due at once must not make a busy loop.
                    return pause.max(Duration::from_millis(100));
                }
                Err(error) => {
                    let pause = back_off.delay();
                    let authority = &self.authority.server.address;
                    tracing::warn!(%error, authority, retry_in = ?pause, "no certificate yet");
                    tokio::time::sleep(pause).await;
                }
            }
        }
    }
}
