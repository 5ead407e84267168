//! PING frames on a connection that should be found dead in time, as Envoy's
//! `connection_keepalive` has them.
use std::time::Duration;

use h2::{Ping, PingPong};

use crate::cluster::load_balancer::mix;
use crate::parse::http_options::Http2Keepalive;

/// Ends when the other side no longer answers; never where nothing was asked for.
pub async fn keepalive(ping: Option<PingPong>, settings: Option<&Http2Keepalive>, mut seed: u64) {
    let wanted = settings.and_then(|all| Some((all, all.interval?)));
    let (Some(mut ping), Some((settings, interval))) = (ping, wanted) else {
        return std::future::pending().await;
    };
    loop {
        seed = mix(seed);
        tokio::time::sleep(interval + jitter(settings, interval, seed)).await;
        let answer = tokio::time::timeout(settings.timeout, ping.ping(Ping::opaque()));
        if !matches!(answer.await, Ok(Ok(_))) {
            return;
        }
    }
}

/// Up to so many percent of the interval.
fn jitter(settings: &Http2Keepalive, interval: Duration, random: u64) -> Duration {
    let share = (random >> 11) as f64 / (1_u64 << 53) as f64;
    let percent = settings.jitter_percent.clamp(0.0, 100.0);
    interval.mul_f64(share * percent / 100.0)
}
