//! The chunked coding, received: strict sizes, strict line ends, bounded extensions and trailers.
use bytes::{Buf, Bytes, BytesMut};

use super::parse;
use crate::http::codec::{CodecError, Frame};

const MAX_SIZE_LINE: usize = 4096;
const MAX_TRAILERS: usize = 60 * 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decoder {
    Size,
    Data(u64),
    DataEnd,
    Trailers { scanned: usize },
    Done,
}

#[derive(Debug)]
pub enum Step {
    Frame(Frame),
    More,
    Done,
}

fn refused() -> CodecError {
    CodecError::bad_request("http1.codec_error")
}

impl Decoder {
    /// Takes what it can from `buf`.
    pub fn step(&mut self, buf: &mut BytesMut) -> Result<Step, CodecError> {
        loop {
            match *self {
                Decoder::Size => match size_line(buf)? {
                    None => return Ok(Step::More),
                    Some(0) => *self = Decoder::Trailers { scanned: 0 },
                    Some(size) => *self = Decoder::Data(size),
                },
                Decoder::Data(left) => {
                    if buf.is_empty() {
                        return Ok(Step::More);
                    }
                    let count = buf.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                    let left = left - count as u64;
                    *self = if left == 0 {
                        Decoder::DataEnd
                    } else {
                        Decoder::Data(left)
                    };
                    return Ok(Step::Frame(Frame::Data(buf.split_to(count).freeze())));
                }
                Decoder::DataEnd => {
                    if buf.len() < 2 {
                        if buf.first().is_some_and(|byte| *byte != b'\r') {
                            return Err(refused());
                        }
                        return Ok(Step::More);
                    }
                    if &buf[..2] != b"\r\n" {
                        return Err(refused());
                    }
                    buf.advance(2);
                    *self = Decoder::Size;
                }
                Decoder::Trailers { ref mut scanned } => {
                    if let Some(step) = trailers(buf, scanned)? {
                        if !matches!(step, Step::More) {
                            *self = Decoder::Done;
                        }
                        return Ok(step);
                    }
                }
                Decoder::Done => return Ok(Step::Done),
            }
        }
    }
}

/// `1*HEXDIG [ ext ] CRLF`; an extension is skipped, never interpreted.
fn size_line(buf: &mut BytesMut) -> Result<Option<u64>, CodecError> {
    let Some(newline) = memchr::memchr(b'\n', buf) else {
        return if buf.len() > MAX_SIZE_LINE {
            Err(refused())
        } else {
            Ok(None)
        };
    };
    if !(2..=MAX_SIZE_LINE).contains(&newline) || buf[newline - 1] != b'\r' {
        return Err(refused());
    }
    let line = &buf[..newline - 1];
    let digits = line
        .iter()
        .take_while(|byte| byte.is_ascii_hexdigit())
        .count();
    if digits == 0 || digits > 15 {
        return Err(refused());
    }
    let extension = &line[digits..];
    let bad_extension = !extension.is_empty()
        && (extension[0] != b';' || extension.iter().any(|byte| *byte < b' ' && *byte != b'\t'));
    if bad_extension {
        return Err(refused());
    }
    let size = line[..digits].iter().fold(0u64, |sum, digit| {
        let value = (*digit as char).to_digit(16).unwrap_or_default();
        sum * 16 + u64::from(value)
    });
    buf.advance(newline + 1);
    Ok(Some(size))
}

fn trailers(buf: &mut BytesMut, scanned: &mut usize) -> Result<Option<Step>, CodecError> {
    if buf.starts_with(b"\r\n") {
        buf.advance(2);
        return Ok(Some(Step::Done));
    }
    if buf.len() > MAX_TRAILERS {
        return Err(refused());
    }
    match parse::head_end(buf, scanned)? {
        None => Ok(Some(Step::More)),
        Some(end) => {
            let bytes: Bytes = buf.split_to(end).freeze();
            Ok(Some(Step::Frame(Frame::Trailers(parse::trailers(bytes)?))))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds byte by byte or at once: the result must not depend on it.
    fn decode(raw: &[u8], piece: usize) -> Result<(Vec<u8>, usize, bool), CodecError> {
        let (mut decoder, mut buf) = (Decoder::Size, BytesMut::new());
        let (mut body, mut trailers, mut done) = (Vec::new(), 0, false);
        for part in raw.chunks(piece) {
            buf.extend_from_slice(part);
            loop {
                match decoder.step(&mut buf)? {
                    Step::Frame(Frame::Data(bytes)) => body.extend_from_slice(&bytes),
                    Step::Frame(Frame::Trailers(lines)) => trailers = lines.len(),
                    Step::More => break,
                    Step::Done => {
                        done = true;
                        break;
                    }
                }
            }
        }
        Ok((body, trailers, done))
    }

    #[test]
    fn decodes_however_it_is_cut() {
        for (raw, body, trailers) in [
            (&b"0\r\n\r\n"[..], &b""[..], 0),
            (b"3\r\nabc\r\n0\r\n\r\n", b"abc", 0),
            (
                b"3;x=y\r\nabc\r\nA\r\n0123456789\r\n0\r\nx-t: 1\r\ny: 2\r\n\r\n",
                b"abc0123456789",
                2,
            ),
        ] {
            for piece in [1, 2, 3, 1000] {
                let got = decode(raw, piece).unwrap();
                assert_eq!(
                    (&got.0[..], got.1, got.2),
                    (body, trailers, true),
                    "{piece}"
                );
            }
        }
    }

    #[test]
    fn refuses_bad_chunks() {
        for (raw, why) in [
            (&b"g\r\n"[..], "not hex"),
            (b"\r\n", "no size"),
            (b"3\nabc", "bare LF"),
            (b" 3\r\nabc", "blank first"),
            (b"0x3\r\nabc", "prefix"),
            (b"3 \r\nabc", "blank after the size"),
            (b"3\r\nabcd\r\n", "longer than its size"),
            (b"3\r\nabc\n0\r\n", "bare LF after the chunk"),
            (b"-1\r\n", "sign"),
            (b"10000000000000000\r\n", "overflow"),
            (b"0\r\nx: 1\n\r\n", "bare LF in trailers"),
            (b"0\r\nx: 1\r\n y\r\n\r\n", "folded trailer"),
            (b"3;a\rb\r\nabc", "CR in an extension"),
        ] {
            assert!(decode(raw, 1000).is_err(), "{why}");
        }
    }
}
