//! Keeps one discovery stream to one server: connects, reconnects with jittered back-off, moves
//! requests and responses between the wire and the sans-IO `client::Client`.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use envoy_api::ResourceType;
use prost::Message;
use tokio::sync::{Notify, mpsc};

use super::Status;
pub use super::transport::{Address, Target};
use super::transport::{Call, Connection, Requests, Responses};
pub use crate::client::{Client, Received, Update};
use crate::client::{ClientError, Request};
pub use crate::{Interest, Mode, Service};

/// Updates that wait for their receiver; more are left in the socket.
const QUEUED_EVENTS: usize = 16;
const FIRST_BACK_OFF: Duration = Duration::from_millis(100);
const LAST_BACK_OFF: Duration = Duration::from_secs(10);

/// What happens on the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A stream is open; all subscriptions are announced on it.
    Connected,
    /// The stream is gone (or could not be opened); another follows after a pause.
    Disconnected {
        /// Why, for logs.
        reason: String,
    },
    /// Resources, to be accepted or rejected through the handle.
    Update(Update),
}

/// Subscribes and acknowledges. Cheap to clone; the stream ends with the last handle, or when the
/// events' receiver is dropped.
#[derive(Clone)]
pub struct Handle {
    shared: Arc<Shared>,
    _alive: mpsc::Sender<()>,
}

struct Shared {
    client: Mutex<Client>,
    changed: Notify,
}

impl Shared {
    fn client(&self) -> MutexGuard<'_, Client> {
        self.client.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Handle {
    /// Replaces what is wanted of one type.
    pub fn subscribe(&self, kind: ResourceType, interest: Interest) {
        self.shared.client().subscribe(kind, interest);
        self.shared.changed.notify_one();
    }

    /// The update is in force.
    pub fn accept(&self, update: &Update) {
        self.shared.client().accept(update);
        self.shared.changed.notify_one();
    }

    /// The update is refused as a whole; the message should name resource and field.
    pub fn reject(&self, update: &Update, message: String) {
        self.shared.client().reject(update, message);
        self.shared.changed.notify_one();
    }
}

/// Starts the stream's task on the current tokio runtime.
pub fn spawn(target: Target, client: Client) -> (Handle, mpsc::Receiver<Event>) {
    let shared = Arc::new(Shared {
        client: Mutex::new(client),
        changed: Notify::new(),
    });
    let (events, receiver) = mpsc::channel(QUEUED_EVENTS);
    let (alive, mut handles) = mpsc::channel::<()>(1);
    let task = Task {
        target,
        shared: shared.clone(),
        events: events.clone(),
    };
    tokio::spawn(async move {
        tokio::select! {
            () = task.run() => {}
            () = events.closed() => {}
            _ = handles.recv() => {}
        }
    });
    (
        Handle {
            shared,
            _alive: alive,
        },
        receiver,
    )
}

struct Task {
    target: Target,
    shared: Arc<Shared>,
    events: mpsc::Sender<Event>,
}

impl Task {
    async fn run(self) {
        let mut back_off = FIRST_BACK_OFF;
        loop {
            let mut answered = false;
            let reason = match self.stream(&mut answered).await {
                Ok(()) => "the server ended the stream".to_owned(),
                Err(status) => status.to_string(),
            };
            self.shared.client().disconnected();
            tracing::debug!(%reason, "discovery stream ended");
            if self
                .events
                .send(Event::Disconnected { reason })
                .await
                .is_err()
            {
                return;
            }
            if answered {
                back_off = FIRST_BACK_OFF;
            }
            tokio::time::sleep(jittered(back_off)).await;
            back_off = (back_off * 2).min(LAST_BACK_OFF);
        }
    }

    /// One stream from connect to end.
    async fn stream(&self, answered: &mut bool) -> Result<(), Status> {
        let mut connection = Connection::connect(&self.target).await?;
        let path = self.shared.client().path();
        let Call {
            requests,
            responses,
        } = connection.open(path)?;
        self.shared.client().connected();
        tokio::select! {
            ended = self.write(requests) => ended,
            ended = self.read(responses, answered) => ended,
        }
    }

    async fn write(&self, requests: Requests) -> Result<(), Status> {
        loop {
            // Not in the loop's head: the guard must not live across the await.
            let next = self.shared.client().next_request();
            match next {
                Some(Request::Delta(request)) => {
                    requests.send(vec![request.encode_to_vec().into()]).await?;
                }
                Some(Request::Full(request)) => {
                    requests.send(vec![request.encode_to_vec().into()]).await?;
                }
                None => self.shared.changed.notified().await,
            }
        }
    }

    async fn read(&self, mut responses: Responses, answered: &mut bool) -> Result<(), Status> {
        responses.accepted().await?;
        self.deliver(Event::Connected).await?;
        while let Some(message) = responses.next().await? {
            *answered = true;
            // The place first: an update that the client has counted must not get lost.
            let place = self.events.reserve().await.map_err(|_| nobody_listens())?;
            let update = self.shared.client().received(message);
            match update {
                Ok(update) => place.send(Event::Update(update)),
                Err(ClientError::Unasked(type_url)) => {
                    tracing::warn!(%type_url, "resources of a type that was not subscribed to");
                    self.shared.changed.notify_one();
                }
                Err(ClientError::Wire(error)) => return Err(Status::internal(error)),
            }
        }
        Ok(())
    }

    async fn deliver(&self, event: Event) -> Result<(), Status> {
        self.events.send(event).await.map_err(|_| nobody_listens())
    }
}

fn nobody_listens() -> Status {
    Status::unavailable("nobody listens")
}

/// Between half and all of the duration: many clients must not return at the same instant.
fn jittered(duration: Duration) -> Duration {
    let random = RandomState::new().build_hasher().finish();
    duration.mul_f64(0.5 + (random % 1024) as f64 / 2048.0)
}
