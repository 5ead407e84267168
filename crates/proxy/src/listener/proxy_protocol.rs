//! The PROXY protocol header, versions 1 and 2, as a listener filter reads it.
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

const V2_SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
const V1_PREFIX: &[u8; 6] = b"PROXY ";
const V1_MAX: usize = 107;

#[derive(Clone, Copy, Debug)]
pub struct Allowed {
    pub none: bool,
    pub v1: bool,
    pub v2: bool,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Header {
    /// More bytes are needed.
    Partial,
    /// There is none, and that is allowed.
    Absent,
    /// `addresses` (source, destination) is `None` for LOCAL and UNKNOWN.
    Found {
        length: usize,
        addresses: Option<(SocketAddr, SocketAddr)>,
    },
}

pub fn parse(bytes: &[u8], allowed: Allowed) -> Result<Header, &'static str> {
    let v2 = starts(bytes, V2_SIGNATURE);
    let v1 = starts(bytes, V1_PREFIX);
    match (v2, v1) {
        (Some(true), _) if allowed.v2 => version2(bytes),
        (_, Some(true)) if allowed.v1 => version1(bytes),
        (Some(true), _) | (_, Some(true)) => Err("this version is not allowed"),
        (None, _) | (_, None) => Ok(Header::Partial),
        _ if allowed.none => Ok(Header::Absent),
        _ => Err("no header"),
    }
}

/// `None` while the bytes are too few to tell.
fn starts(bytes: &[u8], prefix: &[u8]) -> Option<bool> {
    if bytes.len() >= prefix.len() {
        return Some(bytes.starts_with(prefix));
    }
    if prefix.starts_with(bytes) {
        None
    } else {
        Some(false)
    }
}

fn version1(bytes: &[u8]) -> Result<Header, &'static str> {
    let limit = bytes.len().min(V1_MAX);
    let Some(end) = memchr::memmem::find(&bytes[..limit], b"\r\n") else {
        return if bytes.len() >= V1_MAX {
            Err("line too long")
        } else {
            Ok(Header::Partial)
        };
    };
    let line = std::str::from_utf8(&bytes[V1_PREFIX.len()..end]).map_err(|_| "not text")?;
    let mut words = line.split(' ');
    let family = words.next().unwrap_or_default();
    if family == "UNKNOWN" {
        return Ok(Header::Found {
            length: end + 2,
            addresses: None,
        });
    }
    let mut ip = || {
        let ip = words.next().and_then(|word| word.parse::<IpAddr>().ok());
        ip.filter(|ip| ip.is_ipv4() == (family == "TCP4"))
    };
    let (source, destination) = (ip().ok_or("bad address")?, ip().ok_or("bad address")?);
    let mut port = || {
        words
            .next()
            .and_then(|word| word.parse::<u16>().ok())
            .ok_or("bad port")
    };
    let (source_port, destination_port) = (port()?, port()?);
    if !matches!(family, "TCP4" | "TCP6") || words.next().is_some() {
        return Err("bad line");
    }
    let addresses = (
        SocketAddr::new(source, source_port),
        SocketAddr::new(destination, destination_port),
    );
    Ok(Header::Found {
        length: end + 2,
        addresses: Some(addresses),
    })
}

fn version2(bytes: &[u8]) -> Result<Header, &'static str> {
    let Some(fixed) = bytes.get(12..16) else {
        return Ok(Header::Partial);
    };
    let length = 16 + usize::from(u16::from_be_bytes([fixed[2], fixed[3]]));
    if fixed[0] >> 4 != 2 {
        return Err("bad version");
    }
    let Some(body) = bytes.get(16..length) else {
        return if length > 4096 {
            Err("too long")
        } else {
            Ok(Header::Partial)
        };
    };
    let addresses = match (fixed[0] & 15, fixed[1]) {
        (0, _) => None,
        (1, 0x11) => Some(ipv4(body).ok_or("too short")?),
        (1, 0x21) => Some(ipv6(body).ok_or("too short")?),
        (1, _) => return Err("unsupported family"),
        _ => return Err("bad command"),
    };
    Ok(Header::Found { length, addresses })
}

fn ipv4(body: &[u8]) -> Option<(SocketAddr, SocketAddr)> {
    let ip = |at: usize| {
        let bytes: [u8; 4] = body.get(at..at + 4)?.try_into().ok()?;
        Some(IpAddr::V4(Ipv4Addr::from(bytes)))
    };
    Some((
        SocketAddr::new(ip(0)?, port(body, 8)?),
        SocketAddr::new(ip(4)?, port(body, 10)?),
    ))
}

fn ipv6(body: &[u8]) -> Option<(SocketAddr, SocketAddr)> {
    let ip = |at: usize| {
        let bytes: [u8; 16] = body.get(at..at + 16)?.try_into().ok()?;
        Some(IpAddr::V6(Ipv6Addr::from(bytes)))
    };
    Some((
        SocketAddr::new(ip(0)?, port(body, 32)?),
        SocketAddr::new(ip(16)?, port(body, 34)?),
    ))
}

fn port(body: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(body.get(at..at + 2)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Allowed = Allowed {
        none: false,
        v1: true,
        v2: true,
    };

    #[test]
    fn reads_both_versions_and_refuses_the_rest() {
        let v2 = [
            &V2_SIGNATURE[..],
            &[0x21, 0x11, 0, 12, 1, 2, 3, 4, 5, 6, 7, 8, 0, 80, 1, 187],
            b"rest",
        ]
        .concat();
        let addresses = |a: &str, b: &str| Some((a.parse().unwrap(), b.parse().unwrap()));
        let found = |length, addresses| Ok(Header::Found { length, addresses });
        for (bytes, want, why) in [
            (
                &v2[..],
                found(28, addresses("1.2.3.4:80", "5.6.7.8:443")),
                "version 2",
            ),
            (&v2[..20], Ok(Header::Partial), "part of version 2"),
            (
                b"PROXY TCP4 1.1.1.1 2.2.2.2 10 20\r\nGET",
                found(34, addresses("1.1.1.1:10", "2.2.2.2:20")),
                "version 1",
            ),
            (b"PROXY UNKNOWN\r\n", found(15, None), "unknown"),
            (b"PROX", Ok(Header::Partial), "part of version 1"),
            (
                b"PROXY TCP4 ::1 ::1 1 2\r\n",
                Err("bad address"),
                "wrong family",
            ),
            (b"GET / HTTP/1.1\r\n", Err("no header"), "no header"),
        ] {
            assert_eq!(parse(bytes, ALL), want, "{why}");
        }
        let lenient = Allowed { none: true, ..ALL };
        assert_eq!(
            parse(b"GET", lenient),
            Ok(Header::Absent),
            "allowed without"
        );
    }
}
