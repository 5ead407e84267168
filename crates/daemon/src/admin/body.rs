//! Response bodies: a whole, or chunks sent as they come.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::sync::mpsc;

#[derive(Debug)]
pub struct Body(Kind);

#[derive(Debug)]
enum Kind {
    Whole(Option<Bytes>),
    Stream(mpsc::Receiver<Bytes>),
}

/// Sends chunks; dropping it ends the response.
#[derive(Clone, Debug)]
pub struct BodySender(mpsc::Sender<Bytes>);

impl Body {
    pub fn empty() -> Body {
        Body(Kind::Whole(None))
    }

    /// At most `capacity` chunks wait for a slow reader.
    pub fn channel(capacity: usize) -> (BodySender, Body) {
        let (sender, receiver) = mpsc::channel(capacity);
        (BodySender(sender), Body(Kind::Stream(receiver)))
    }
}

impl BodySender {
    /// False once the reader is gone.
    pub async fn send(&self, chunk: impl Into<Bytes>) -> bool {
        self.0.send(chunk.into()).await.is_ok()
    }

    /// Returns when the reader is gone.
    pub async fn closed(&self) {
        self.0.closed().await;
    }
}

impl<B: Into<Bytes>> From<B> for Body {
    fn from(bytes: B) -> Body {
        Body(Kind::Whole(Some(bytes.into())))
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let chunk = match &mut self.0 {
            Kind::Whole(bytes) => bytes.take(),
            Kind::Stream(receiver) => match receiver.poll_recv(context) {
                Poll::Ready(chunk) => chunk,
                Poll::Pending => return Poll::Pending,
            },
        };
        Poll::Ready(chunk.map(|chunk| Ok(Frame::data(chunk))))
    }

    fn is_end_stream(&self) -> bool {
        matches!(&self.0, Kind::Whole(None))
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Whole(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            Kind::Stream(_) => SizeHint::default(),
        }
    }
}
