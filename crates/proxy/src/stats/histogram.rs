//! Log-linear histograms of whole numbers: two significant digits, as in Envoy's circllhist.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// 0, 1..=9, then 90 bins for each power of ten.
const BINS: usize = 10 + 90 * DECADES;
const DECADES: usize = 18;

#[derive(Debug)]
pub struct Histogram {
    rows: Box<[OnceLock<Box<Row>>]>,
}

#[derive(Debug)]
struct Row {
    bins: Box<[AtomicU64]>,
    sum: AtomicU64,
}

/// What was recorded, summed over workers.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Recorded {
    /// Lower bound of the bin, its width, and its count; only bins with counts.
    bins: Vec<(u64, u64, u64)>,
    pub count: u64,
    pub sum: u64,
}

impl Histogram {
    pub fn new(workers: usize) -> Histogram {
        Histogram {
            rows: (0..workers.max(1)).map(|_| OnceLock::new()).collect(),
        }
    }

    pub fn record(&self, worker: usize, value: u64) {
        let row = self.rows[worker % self.rows.len()].get_or_init(|| {
            let bins = (0..BINS).map(|_| AtomicU64::new(0)).collect();
            Box::new(Row {
                bins,
                sum: AtomicU64::new(0),
            })
        });
        row.bins[bin(value)].fetch_add(1, Ordering::Relaxed);
        row.sum.fetch_add(value, Ordering::Relaxed);
    }

    pub fn read(&self) -> Recorded {
        let mut recorded = Recorded::default();
        let rows: Vec<&Row> = self
            .rows
            .iter()
            .filter_map(OnceLock::get)
            .map(|row| &**row)
            .collect();
        for index in 0..BINS {
            let count: u64 = rows
                .iter()
                .map(|row| row.bins[index].load(Ordering::Relaxed))
                .sum();
            if count > 0 {
                let (low, width) = bounds(index);
                recorded.bins.push((low, width, count));
                recorded.count += count;
            }
        }
        recorded.sum = rows.iter().map(|row| row.sum.load(Ordering::Relaxed)).sum();
        recorded
    }
}

fn bin(value: u64) -> usize {
    if value < 10 {
        return value as usize;
    }
    let decade = value.ilog10() as usize;
    let leading = value / 10u64.pow(decade as u32 - 1);
    (10 + (decade - 1) * 90 + (leading as usize - 10)).min(BINS - 1)
}

fn bounds(index: usize) -> (u64, u64) {
    if index < 10 {
        return (index as u64, 1);
    }
    let decade = (index - 10) / 90;
    let leading = ((index - 10) % 90 + 10) as u64;
    let width = 10u64.saturating_pow(decade as u32);
    (leading.saturating_mul(width), width)
}

impl Recorded {
    pub fn merge(&mut self, other: &Recorded) {
        self.bins.extend(&other.bins);
        self.bins.sort_unstable();
        self.bins.dedup_by(|next, kept| {
            let same = next.0 == kept.0;
            if same {
                kept.2 += next.2;
            }
            same
        });
        self.count += other.count;
        self.sum += other.sum;
    }

    /// How many values are at most `bound`, bin by bin.
    pub fn at_most(&self, bound: f64) -> u64 {
        let below = self
            .bins
            .iter()
            .take_while(|(low, _, _)| (*low as f64) <= bound);
        below.map(|(_, _, count)| count).sum()
    }

    /// The value at a quantile, interpolated inside its bin; `None` when nothing was recorded.
    pub fn quantile(&self, quantile: f64) -> Option<f64> {
        if self.count == 0 {
            return None;
        }
        let wanted = quantile.clamp(0.0, 1.0) * self.count as f64;
        let mut seen = 0.0;
        for (low, width, count) in &self.bins {
            let next = seen + *count as f64;
            if next >= wanted {
                let share = if *low == 0 {
                    0.0
                } else {
                    (wanted - seen) / *count as f64
                };
                return Some(*low as f64 + share * *width as f64);
            }
            seen = next;
        }
        self.bins.last().map(|(low, width, _)| (low + width) as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bins_keep_two_digits() {
        for (value, low, width) in [
            (0, 0, 1),
            (9, 9, 1),
            (10, 10, 1),
            (99, 99, 1),
            (100, 100, 10),
            (1234, 1200, 100),
            (u64::MAX, 9_900_000_000_000_000_000, 0),
        ] {
            let (got, got_width) = bounds(bin(value));
            if width > 0 {
                assert_eq!((got, got_width), (low, width), "{value}");
            }
        }
    }

    #[test]
    fn sums_over_workers() {
        let histogram = Histogram::new(2);
        for (worker, value) in [(0, 1), (1, 1), (1, 30), (7, 500)] {
            histogram.record(worker, value);
        }
        let read = histogram.read();
        assert_eq!((read.count, read.sum), (4, 532));
        assert_eq!(
            [0.5, 1.0, 25.0, 500.0].map(|bound| read.at_most(bound)),
            [0, 2, 2, 4]
        );
    }
}
