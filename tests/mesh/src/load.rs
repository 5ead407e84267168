//! A steady load on one address, and the count of everything that went wrong meanwhile.

use crate::web::Client;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

/// Failures are kept word by word up to this many.
const KEPT: usize = 20;

#[derive(Debug, Default)]
pub struct Report {
    pub requests: u64,
    pub failed: u64,
    pub examples: Vec<String>,
}

pub struct Load {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    threads: Vec<JoinHandle<Report>>,
}

impl Load {
    /// `clients` connections, each with one request after the other.
    pub fn start(address: SocketAddr, path: &str, clients: usize) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let sent = Arc::new(AtomicU64::new(0));
        let threads = (0..clients)
            .map(|_| {
                let (stop, sent, path) = (stop.clone(), sent.clone(), path.to_owned());
                std::thread::spawn(move || {
                    let mut report = Report::default();
                    let mut client = Client::new(address);
                    while !stop.load(Ordering::Relaxed) {
                        let answer = client.get(&path, &[]);
                        report.requests += 1;
                        sent.fetch_add(1, Ordering::Relaxed);
                        if !answer.is_good() {
                            report.failed += 1;
                            if report.examples.len() < KEPT {
                                report.examples.push(format!(
                                    "{} {:?} {}",
                                    answer.status, answer.failure, answer.body
                                ));
                            }
                        }
                    }
                    report
                })
            })
            .collect();
        Load {
            stop,
            sent,
            threads,
        }
    }

    /// Requests answered so far.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    pub fn finish(mut self) -> Report {
        self.stop.store(true, Ordering::Relaxed);
        let mut whole = Report::default();
        for thread in self.threads.drain(..) {
            let part = thread.join().unwrap_or_default();
            whole.requests += part.requests;
            whole.failed += part.failed;
            whole.examples.extend(part.examples);
        }
        whole.examples.truncate(KEPT);
        whole
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}
