//! Just enough HTTP/1.1 for both ends of a test: heads as they came, bodies, trailers.

use anyhow::{Result, bail};
use bytes::{Buf, BytesMut};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt};

const MAX: usize = 64 << 20;

/// A start line and headers in the order and case in which they came.
#[derive(Debug)]
pub struct Head {
    pub first: String,
    pub headers: Vec<(String, String)>,
}

impl Head {
    pub fn get(&self, name: &str) -> Option<&str> {
        let mut found = self
            .headers
            .iter()
            .filter(|(n, _)| n.eq_ignore_ascii_case(name));
        found.next().map(|(_, value)| value.as_str())
    }

    pub fn length(&self, without: Length) -> Length {
        let encoding = self.get("transfer-encoding").unwrap_or_default();
        if encoding.to_ascii_lowercase().contains("chunked") {
            return Length::Chunked;
        }
        let fixed = self
            .get("content-length")
            .and_then(|text| text.parse().ok());
        fixed.map_or(without, Length::Fixed)
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Length {
    None,
    Fixed(usize),
    Chunked,
    UntilClose,
}

#[derive(Debug, Default)]
pub struct Body {
    pub bytes: Vec<u8>,
    pub trailers: Vec<(String, String)>,
    /// False when the connection ended first.
    pub complete: bool,
}

/// None at a clean end before the first byte.
pub async fn read_head(
    wire: &mut (impl AsyncRead + Unpin),
    buffer: &mut BytesMut,
) -> Result<Option<Head>> {
    loop {
        if let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = buffer.split_to(end + 4);
            return Ok(Some(parse_head(&head[..end])));
        }
        if buffer.len() > MAX {
            bail!("a head over {MAX} bytes");
        }
        if wire.read_buf(buffer).await? == 0 {
            if buffer.is_empty() {
                return Ok(None);
            }
            bail!(
                "the connection ended inside a head: {:?}",
                String::from_utf8_lossy(buffer)
            );
        }
    }
}

fn parse_head(bytes: &[u8]) -> Head {
    let text = latin1(bytes);
    let mut lines = text.split("\r\n");
    let first = lines.next().unwrap_or_default().to_owned();
    let headers = lines.map(|line| {
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        (name.to_owned(), value.trim_matches([' ', '\t']).to_owned())
    });
    Head {
        first,
        headers: headers.collect(),
    }
}

/// Every byte is one character: nothing is lost or judged.
pub fn latin1(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| char::from(*byte)).collect()
}

/// The body; an early end or reset leaves `complete` false and keeps what came.
pub async fn read_body(
    wire: &mut (impl AsyncRead + Unpin),
    buffer: &mut BytesMut,
    length: Length,
) -> Body {
    let mut body = Body::default();
    let result = match length {
        Length::None => Ok(true),
        Length::Fixed(count) => read_fixed(wire, buffer, count, &mut body).await,
        Length::Chunked => read_chunks(wire, buffer, &mut body).await,
        Length::UntilClose => loop {
            body.bytes.extend_from_slice(buffer);
            buffer.clear();
            match wire.read_buf(buffer).await {
                Ok(0) => break Ok(true),
                Ok(_) => {}
                Err(error) => break Err(error.into()),
            }
        },
    };
    body.complete = result.unwrap_or(false);
    body
}

async fn read_fixed(
    wire: &mut (impl AsyncRead + Unpin),
    buffer: &mut BytesMut,
    count: usize,
    body: &mut Body,
) -> Result<bool> {
    let mut missing = count;
    loop {
        let take = missing.min(buffer.len());
        body.bytes.extend_from_slice(&buffer[..take]);
        buffer.advance(take);
        missing -= take;
        if missing == 0 {
            return Ok(true);
        }
        if wire.read_buf(buffer).await? == 0 {
            return Ok(false);
        }
    }
}

async fn read_chunks(
    wire: &mut (impl AsyncRead + Unpin),
    buffer: &mut BytesMut,
    body: &mut Body,
) -> Result<bool> {
    loop {
        let Some(line) = read_line(wire, buffer).await? else {
            return Ok(false);
        };
        let size = line.split(';').next().unwrap_or_default().trim();
        let size = usize::from_str_radix(size, 16)?;
        if size == 0 {
            break;
        }
        if size > MAX || !read_fixed(wire, buffer, size, body).await? {
            return Ok(false);
        }
        if read_line(wire, buffer).await?.is_none() {
            return Ok(false);
        }
    }
    loop {
        match read_line(wire, buffer).await? {
            None => return Ok(false),
            Some(line) if line.is_empty() => return Ok(true),
            Some(line) => {
                let (name, value) = line.split_once(':').unwrap_or((&line, ""));
                body.trailers
                    .push((name.to_owned(), value.trim().to_owned()));
            }
        }
    }
}

async fn read_line(
    wire: &mut (impl AsyncRead + Unpin),
    buffer: &mut BytesMut,
) -> Result<Option<String>> {
    loop {
        if let Some(end) = buffer.windows(2).position(|window| window == b"\r\n") {
            let line = buffer.split_to(end + 2);
            return Ok(Some(latin1(&line[..end])));
        }
        if wire.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    }
}

/// Bytes for a result: short text as it is, the rest by length and hash.
pub fn shown(bytes: &[u8]) -> Value {
    match std::str::from_utf8(bytes) {
        Ok(text) if text.len() <= 2000 => Value::String(text.to_owned()),
        _ => {
            let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
                (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
            });
            Value::String(format!("{} bytes, fnv {hash:016x}", bytes.len()))
        }
    }
}

/// `count` bytes that do not repeat within a block.
pub fn filler(count: usize) -> Vec<u8> {
    (0..count)
        .map(|i| b'a' + u8::try_from((i + i / 26) % 26).unwrap_or(0))
        .collect()
}

/// A message with gRPC's five-byte prefix.
pub fn grpc_frame(message: &str) -> Vec<u8> {
    let length = u32::try_from(message.len()).unwrap_or(0);
    [&[0_u8][..], &length.to_be_bytes(), message.as_bytes()].concat()
}
