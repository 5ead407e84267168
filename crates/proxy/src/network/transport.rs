//! A connection's bytes: a socket (with bytes already read in front) or TLS over one.
use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::{client, server};

#[derive(Debug)]
enum Raw {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// A socket; what listener filters read is delivered first.
#[derive(Debug)]
pub struct Socket {
    raw: Raw,
    prefix: BytesMut,
}

impl Socket {
    pub fn tcp(stream: TcpStream) -> Socket {
        Socket {
            raw: Raw::Tcp(stream),
            prefix: BytesMut::new(),
        }
    }

    pub fn unix(stream: UnixStream) -> Socket {
        Socket {
            raw: Raw::Unix(stream),
            prefix: BytesMut::new(),
        }
    }

    /// Puts bytes in front of what the socket will deliver.
    pub fn with_prefix(mut self, prefix: BytesMut) -> Socket {
        self.prefix = prefix;
        self
    }

    pub fn take_prefix(&mut self) -> BytesMut {
        std::mem::take(&mut self.prefix)
    }

    pub fn as_tcp(&self) -> Option<&TcpStream> {
        match &self.raw {
            Raw::Tcp(stream) => Some(stream),
            Raw::Unix(_) => None,
        }
    }

    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.as_tcp().and_then(|stream| stream.local_addr().ok())
    }

    /// Something can be read (also the end); costs no system call.
    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.prefix.is_empty() {
            return Poll::Ready(Ok(()));
        }
        match &self.raw {
            Raw::Tcp(stream) => stream.poll_read_ready(cx),
            Raw::Unix(stream) => stream.poll_read_ready(cx),
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.prefix.is_empty() {
            let count = self.prefix.len().min(buf.remaining());
            buf.put_slice(&self.prefix[..count]);
            self.prefix.advance(count);
            if self.prefix.is_empty() {
                self.prefix = BytesMut::new();
            }
            return Poll::Ready(Ok(()));
        }
        match &mut self.raw {
            Raw::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Raw::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.raw {
            Raw::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            Raw::Unix(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.raw {
            Raw::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Raw::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.raw {
            Raw::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Raw::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

/// A plain or TLS connection, downstream or upstream.
#[derive(Debug)]
pub enum Transport {
    Plain(Socket),
    Server(Box<server::TlsStream<Socket>>),
    Client(Box<client::TlsStream<Socket>>),
}

impl Transport {
    pub fn socket(&self) -> &Socket {
        match self {
            Transport::Plain(socket) => socket,
            Transport::Server(stream) => stream.get_ref().0,
            Transport::Client(stream) => stream.get_ref().0,
        }
    }

    /// Plaintext or its end may be ready: asked before a buffer is taken for an idle connection.
    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Transport::Plain(socket) => socket.poll_readable(cx),
            Transport::Server(stream) => {
                let (socket, session) = stream.get_ref();
                if session.wants_read() {
                    socket.poll_readable(cx)
                } else {
                    Poll::Ready(Ok(()))
                }
            }
            Transport::Client(stream) => {
                let (socket, session) = stream.get_ref();
                if session.wants_read() {
                    socket.poll_readable(cx)
                } else {
                    Poll::Ready(Ok(()))
                }
            }
        }
    }
}

macro_rules! delegate {
    ($self:ident, $stream:ident => $call:expr) => {
        match $self.get_mut() {
            Transport::Plain($stream) => {
                let $stream = Pin::new($stream);
                $call
            }
            Transport::Server($stream) => {
                let $stream = Pin::new($stream.as_mut());
                $call
            }
            Transport::Client($stream) => {
                let $stream = Pin::new($stream.as_mut());
                $call
            }
        }
    };
}

impl AsyncRead for Transport {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        delegate!(self, stream => stream.poll_read(cx, buf))
    }
}

impl AsyncWrite for Transport {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        delegate!(self, stream => stream.poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        delegate!(self, stream => stream.poll_write_vectored(cx, slices))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        delegate!(self, stream => stream.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        delegate!(self, stream => stream.poll_shutdown(cx))
    }
}

/// A transport shared by the reading and the writing half inside one task.
#[derive(Clone, Debug)]
pub struct Io(Rc<RefCell<Transport>>);

impl Io {
    pub fn new(transport: Transport) -> Io {
        Io(Rc::new(RefCell::new(transport)))
    }

    /// The transport back, when the other half is gone.
    pub fn into_transport(self) -> Option<Transport> {
        Rc::into_inner(self.0).map(RefCell::into_inner)
    }

    pub fn with<T>(&self, look: impl FnOnce(&Transport) -> T) -> T {
        look(&self.0.borrow())
    }

    pub fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.borrow().poll_readable(cx)
    }

    /// Reads into the spare capacity of `buf`, which must have some; 0 is the end.
    pub fn poll_read(&self, cx: &mut Context<'_>, buf: &mut BytesMut) -> Poll<io::Result<usize>> {
        let mut transport = self.0.borrow_mut();
        read_into(Pin::new(&mut *transport), cx, buf)
    }

    pub fn poll_write(&self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.0.borrow_mut()).poll_write(cx, bytes)
    }

    pub fn poll_write_vectored(
        &self,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.0.borrow_mut()).poll_write_vectored(cx, slices)
    }

    pub fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0.borrow_mut()).poll_flush(cx)
    }

    pub fn poll_shutdown(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0.borrow_mut()).poll_shutdown(cx)
    }
}

fn read_into(
    transport: Pin<&mut Transport>,
    cx: &mut Context<'_>,
    buf: &mut BytesMut,
) -> Poll<io::Result<usize>> {
    use tokio::io::AsyncReadExt;
    let transport = transport.get_mut();
    let mut read = std::pin::pin!(transport.read_buf(buf));
    let count = ready!(read.as_mut().poll(cx))?;
    Poll::Ready(Ok(count))
}
