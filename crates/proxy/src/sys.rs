//! What the standard library and tokio do not offer: socket options by number, the original
//! destination of a redirected connection, sockets bound before they connect.
#![allow(unsafe_code)]
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use nix::libc;
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};

use crate::parse::address::{self, BindConfig, SocketOption, SocketOptionValue, SocketState};

/// Sets one option by level and name.
pub fn set_option(socket: BorrowedFd<'_>, option: &SocketOption) -> io::Result<()> {
    let int;
    let bytes: &[u8] = match &option.value {
        SocketOptionValue::Int(value) => {
            int = value.to_ne_bytes();
            &int
        }
        SocketOptionValue::Bytes(bytes) => bytes,
    };
    let length = libc::socklen_t::try_from(bytes.len()).map_err(io::Error::other)?;
    // SAFETY: the descriptor is open for the call (BorrowedFd) and the kernel reads `length` bytes
    // from `bytes`, which outlives the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            option.level,
            option.name,
            bytes.as_ptr().cast(),
            length,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

pub fn set_options(
    socket: BorrowedFd<'_>,
    options: &[SocketOption],
    state: SocketState,
) -> io::Result<()> {
    options
        .iter()
        .filter(|one| one.state == state)
        .try_for_each(|one| set_option(socket, one))
}

/// Where a connection that was redirected here wanted to go.
pub fn original_destination(socket: &impl AsFd, local: SocketAddr) -> Option<SocketAddr> {
    let socket = SockRef::from(socket);
    let original = if local.is_ipv4() {
        socket.original_dst_v4()
    } else {
        socket.original_dst_v6()
    };
    original.ok().and_then(|address| address.as_socket())
}

pub fn set_keepalive(socket: &Socket, keepalive: &address::TcpKeepalive) -> io::Result<()> {
    let mut wanted = TcpKeepalive::new();
    if let Some(time) = keepalive.time {
        wanted = wanted.with_time(time);
    }
    if let Some(interval) = keepalive.interval {
        wanted = wanted.with_interval(interval);
    }
    if let Some(probes) = keepalive.probes {
        wanted = wanted.with_retries(probes);
    }
    socket.set_tcp_keepalive(&wanted)
}

/// A TCP socket ready to connect to `destination`, from the configured source.
pub fn upstream_socket(
    destination: SocketAddr,
    bind: Option<&BindConfig>,
    keepalive: Option<&address::TcpKeepalive>,
) -> io::Result<std::net::TcpStream> {
    let socket = Socket::new(
        Domain::for_address(destination),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    if let Some(keepalive) = keepalive {
        set_keepalive(&socket, keepalive)?;
    }
    if let Some(bind) = bind {
        if bind.freebind {
            socket.set_freebind_v4(true)?;
        }
        set_options(socket.as_fd(), &bind.socket_options, SocketState::Prebind)?;
        let sources = bind.source.iter().chain(&bind.extra_sources);
        let source = sources
            .copied()
            .find(|one| one.is_ipv4() == destination.is_ipv4());
        if let Some(source) = source {
            // The port is chosen at connect, so that many destinations can share one.
            if source.port() == 0 {
                nix::sys::socket::setsockopt(
                    &socket,
                    nix::sys::socket::sockopt::IpBindAddressNoPort,
                    &true,
                )?;
            }
            socket.bind(&source.into())?;
        }
        set_options(socket.as_fd(), &bind.socket_options, SocketState::Bound)?;
    }
    Ok(socket.into())
}

/// A bound, listening TCP socket that shares its port with the other workers' sockets.
pub fn listening_socket(
    address: SocketAddr,
    listener: &crate::parse::listener::Listener,
) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_nonblocking(true)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    if listener.freebind {
        socket.set_freebind_v4(true)?;
    }
    if listener.transparent {
        socket.set_ip_transparent_v4(true)?;
    }
    if let Some(keepalive) = &listener.keepalive {
        set_keepalive(&socket, keepalive)?;
    }
    set_options(
        socket.as_fd(),
        &listener.socket_options,
        SocketState::Prebind,
    )?;
    socket.bind(&address.into())?;
    set_options(socket.as_fd(), &listener.socket_options, SocketState::Bound)?;
    socket.listen(i32::try_from(listener.backlog).unwrap_or(i32::MAX))?;
    set_options(
        socket.as_fd(),
        &listener.socket_options,
        SocketState::Listening,
    )?;
    Ok(socket.into())
}
