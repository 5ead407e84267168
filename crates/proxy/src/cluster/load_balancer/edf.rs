//! Earliest deadline first: picks members in proportion to their weights, evenly spread.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

#[derive(Debug)]
pub struct Edf {
    queue: BinaryHeap<Entry>,
    weights: Vec<f64>,
    now: f64,
    order: u64,
}

#[derive(Debug, PartialEq)]
struct Entry {
    deadline: f64,
    order: u64,
    member: usize,
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Entry) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    /// The earliest deadline is the greatest; ties go to the one that was added first.
    fn cmp(&self, other: &Entry) -> Ordering {
        other
            .deadline
            .total_cmp(&self.deadline)
            .then(other.order.cmp(&self.order))
    }
}

impl Edf {
    /// Members without weight are never picked. `seed` decides where the sequence starts, so that
    /// workers do not move in step.
    pub fn new(weights: &[f64], seed: u64) -> Edf {
        let mut edf = Edf {
            queue: BinaryHeap::with_capacity(weights.len()),
            weights: weights.to_vec(),
            now: 0.0,
            order: 0,
        };
        for (member, weight) in weights.iter().enumerate() {
            edf.add(member, *weight);
        }
        for _ in 0..seed % (weights.len().max(1) as u64).min(1024) {
            edf.pick(|_, weight| weight);
        }
        edf
    }

    fn add(&mut self, member: usize, weight: f64) {
        if weight > 0.0 {
            self.order += 1;
            let deadline = self.now + 1.0 / weight;
            self.queue.push(Entry {
                deadline,
                order: self.order,
                member,
            });
        }
    }

    /// The next member; `current` gives the weight with which it comes back.
    pub fn pick(&mut self, current: impl Fn(usize, f64) -> f64) -> Option<usize> {
        let entry = self.queue.pop()?;
        self.now = entry.deadline;
        let weight = current(entry.member, self.weights[entry.member]);
        self.add(entry.member, weight.max(f64::MIN_POSITIVE));
        Some(entry.member)
    }
}
