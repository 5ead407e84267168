//! Maglev: a table in which every host has its share; a hash is a place in it.

use std::sync::Arc;

use xxhash_rust::xxh64::xxh64;

use super::ring_hash::key;
use crate::cluster::shared::Host;

#[derive(Debug)]
pub struct Maglev {
    hosts: Vec<Arc<Host>>,
    table: Vec<u32>,
}

struct Entry {
    offset: u64,
    skip: u64,
    weight: f64,
    target: f64,
    next: u64,
}

const FREE: u32 = u32::MAX;

impl Maglev {
    pub fn new(hosts: &[(Arc<Host>, f64)], size: u64, use_hostname: bool) -> Maglev {
        let heaviest = hosts.iter().map(|(_, weight)| *weight).fold(0.0, f64::max);
        let mut entries: Vec<Entry> = hosts
            .iter()
            .map(|(host, weight)| {
                let key = key(host, use_hostname);
                Entry {
                    offset: xxh64(key.as_bytes(), 0) % size,
                    skip: xxh64(key.as_bytes(), 1) % (size - 1) + 1,
                    weight: *weight,
                    target: 0.0,
                    next: 0,
                }
            })
            .collect();
        let mut table = vec![FREE; size as usize];
        let mut filled = 0;
        let mut iteration = 0.0;
        while filled < size {
            iteration += 1.0;
            for (at, entry) in entries.iter_mut().enumerate() {
                // Lighter hosts sit out turns.
                if iteration * entry.weight < entry.target {
                    continue;
                }
                entry.target += heaviest;
                let mut place = (entry.offset + entry.skip * entry.next) % size;
                while table[place as usize] != FREE {
                    entry.next += 1;
                    place = (entry.offset + entry.skip * entry.next) % size;
                }
                table[place as usize] = at as u32;
                entry.next += 1;
                filled += 1;
                if filled == size {
                    break;
                }
            }
        }
        Maglev {
            hosts: hosts.iter().map(|(host, _)| host.clone()).collect(),
            table,
        }
    }

    pub fn choose(&self, hash: u64) -> Arc<Host> {
        let at = self.table[(hash % self.table.len() as u64) as usize];
        self.hosts[at as usize].clone()
    }
}
