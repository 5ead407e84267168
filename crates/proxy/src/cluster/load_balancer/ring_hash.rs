//! Ketama's ring: each host at many points, a hash goes to the next point.

use std::sync::Arc;

use xxhash_rust::xxh64::xxh64;

use crate::cluster::shared::Host;
use crate::parse::cluster::HashFunction;

#[derive(Debug)]
pub struct RingHash {
    hosts: Vec<Arc<Host>>,
    /// Sorted by point.
    ring: Vec<(u64, u32)>,
}

/// What a host is hashed by.
pub fn key(host: &Host, use_hostname: bool) -> String {
    if use_hostname && !host.hostname.is_empty() {
        host.hostname.to_string()
    } else {
        host.address.to_string()
    }
}

impl RingHash {
    pub fn new(
        hosts: &[(Arc<Host>, f64)],
        (minimum, maximum): (u64, u64),
        (function, use_hostname): (HashFunction, bool),
    ) -> RingHash {
        let sum: f64 = hosts.iter().map(|(_, weight)| weight).sum();
        let smallest = hosts
            .iter()
            .map(|(_, weight)| weight / sum)
            .fold(f64::INFINITY, f64::min);
        // The smallest host gets a whole number of points, and the ring at least `minimum`.
        let scale = ((smallest * minimum as f64).ceil() / smallest).min(maximum as f64);
        let mut ring = Vec::with_capacity(scale.ceil() as usize);
        let (mut current, mut target) = (0.0, 0.0);
        for (at, (host, weight)) in hosts.iter().enumerate() {
            let key = key(host, use_hostname);
            target += scale * weight / sum;
            let mut index = 0u64;
            while current < target {
                let text = format!("{key}_{index}");
                let point = match function {
                    HashFunction::XxHash => xxh64(text.as_bytes(), 0),
                    HashFunction::Murmur2 => murmur2(text.as_bytes(), MURMUR_SEED),
                };
                ring.push((point, at as u32));
                index += 1;
                current += 1.0;
            }
        }
        ring.sort_unstable_by_key(|(point, _)| *point);
        RingHash {
            hosts: hosts.iter().map(|(host, _)| host.clone()).collect(),
            ring,
        }
    }

    pub fn choose(&self, hash: u64) -> Arc<Host> {
        let at = self.ring.partition_point(|(point, _)| *point < hash) % self.ring.len();
        self.hosts[self.ring[at].1 as usize].clone()
    }
}

/// The seed of libstdc++'s `std::hash`, which Envoy keeps.
const MURMUR_SEED: u64 = 0xc70f_6907;

/// MurmurHash64A, little endian.
fn murmur2(data: &[u8], seed: u64) -> u64 {
    const MUL: u64 = 0xc6a4_a793_5bd1_e995;
    let shift = |value: u64| value ^ (value >> 47);
    let mut hash = seed ^ (data.len() as u64).wrapping_mul(MUL);
    let mut chunks = data.chunks_exact(8);
    for chunk in &mut chunks {
        let word = chunk
            .iter()
            .rev()
            .fold(0u64, |word, byte| (word << 8) | u64::from(*byte));
        let mixed = shift(word.wrapping_mul(MUL)).wrapping_mul(MUL);
        hash = (hash ^ mixed).wrapping_mul(MUL);
    }
    let rest = chunks.remainder();
    if !rest.is_empty() {
        let word = rest
            .iter()
            .rev()
            .fold(0u64, |word, byte| (word << 8) | u64::from(*byte));
        hash = (hash ^ word).wrapping_mul(MUL);
    }
    shift(shift(hash).wrapping_mul(MUL))
}
