//! gRPC's length-prefixed messages: cutting them out of a body, and writing them as chunks.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::Status;

/// The largest message either side takes. A first delta response for 10,000 services is 50 MB.
pub const MAX_MESSAGE: usize = 256 << 20;

const HEADER: usize = 5;

/// A message as a list of shared chunks, one HTTP/2 write without joining them.
#[derive(Debug, Default)]
pub struct Chunks {
    chunks: VecDeque<Bytes>,
    remaining: usize,
}

impl Chunks {
    /// The gRPC frame of one message.
    pub(crate) fn frame(message: Vec<Bytes>) -> Result<Chunks, Status> {
        let len: usize = message.iter().map(Bytes::len).sum();
        if len > MAX_MESSAGE {
            return Err(Status::internal(format!(
                "a message of {len} bytes is too large"
            )));
        }
        let mut header = BytesMut::with_capacity(HEADER);
        header.put_u8(0);
        header.put_u32(len as u32);
        let mut chunks = VecDeque::with_capacity(message.len() + 1);
        chunks.push_back(header.freeze());
        chunks.extend(message.into_iter().filter(|chunk| !chunk.is_empty()));
        Ok(Chunks {
            chunks,
            remaining: len + HEADER,
        })
    }
}

impl Buf for Chunks {
    fn remaining(&self) -> usize {
        self.remaining
    }

    fn chunk(&self) -> &[u8] {
        self.chunks.front().map_or(&[], |chunk| chunk)
    }

    fn chunks_vectored<'a>(&'a self, out: &mut [IoSlice<'a>]) -> usize {
        let count = out.len().min(self.chunks.len());
        for (slot, chunk) in out.iter_mut().zip(&self.chunks) {
            *slot = IoSlice::new(chunk);
        }
        count
    }

    fn advance(&mut self, mut count: usize) {
        assert!(count <= self.remaining, "BUG: advanced beyond the end");
        self.remaining -= count;
        while let Some(front) = self.chunks.front_mut() {
            if count < front.len() {
                front.advance(count);
                return;
            }
            count -= front.len();
            self.chunks.pop_front();
        }
    }
}

/// Cuts messages out of the bytes of a body.
#[derive(Debug, Default)]
pub(crate) struct Deframer {
    buffer: BytesMut,
}

impl Deframer {
    pub(crate) fn push(&mut self, bytes: Bytes) {
        if self.buffer.is_empty() {
            // Usually the sole owner of the received bytes: no copy.
            self.buffer = BytesMut::from(bytes);
        } else {
            self.buffer.extend_from_slice(&bytes);
        }
    }

    /// The next whole message, or `None` until more bytes are pushed.
    pub(crate) fn next(&mut self) -> Result<Option<Bytes>, Status> {
        let Some(header) = self.buffer.get(..HEADER) else {
            return Ok(None);
        };
        if header[0] != 0 {
            return Err(Status::internal(
                "a compressed message, which was not offered",
            ));
        }
        let len = u32::from_be_bytes([header[1], header[2], header[3], header[4]]) as usize;
        if len > MAX_MESSAGE {
            return Err(Status::new(
                super::Code::ResourceExhausted,
                format!("a message of {len} bytes is larger than {MAX_MESSAGE}"),
            ));
        }
        if self.buffer.len() < HEADER + len {
            // Grown with what arrives, not with what the peer says: the length is only a claim.
            return Ok(None);
        }
        self.buffer.advance(HEADER);
        Ok(Some(self.buffer.split_to(len).freeze()))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_come_out_as_the_messages_that_went_in() {
        let messages: [&[&'static str]; 3] = [&["hello ", "", "world"], &[], &["x"]];
        let mut wire = Vec::new();
        for message in messages {
            let chunks = message
                .iter()
                .map(|text| Bytes::from_static(text.as_bytes()))
                .collect();
            let mut frame = Chunks::frame(chunks).expect("small");
            let mut slices = [IoSlice::new(&[]); 8];
            assert_eq!(
                frame.chunks_vectored(&mut slices),
                frame.chunks.len(),
                "all chunks"
            );
            wire.extend_from_slice(&frame.copy_to_bytes(frame.remaining()));
        }
        for step in [1, 2, 7, wire.len()] {
            let mut deframer = Deframer::default();
            let mut out = Vec::new();
            for part in wire.chunks(step) {
                deframer.push(Bytes::copy_from_slice(part));
                while let Some(message) = deframer.next().expect("well formed") {
                    out.push(String::from_utf8(message.to_vec()).expect("text"));
                }
            }
            let want: Vec<String> = messages.iter().map(|message| message.concat()).collect();
            assert_eq!(out, want, "cut every {step} bytes");
            assert!(deframer.is_empty(), "nothing is left");
        }
    }

    #[test]
    fn refuses_what_it_does_not_take() {
        for (bytes, why) in [
            ([1, 0, 0, 0, 0], "compressed"),
            ([0, 255, 0, 0, 0], "too large"),
        ] {
            let mut deframer = Deframer::default();
            deframer.push(Bytes::copy_from_slice(&bytes));
            assert!(deframer.next().is_err(), "{why}");
        }
    }
}
