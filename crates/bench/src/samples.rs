//! How often something happened and how long it took.
//!
//! Invariant: only what ended inside the measured window counts; warming up is outside it.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::process::{Process, own_cpu};

/// The times of one load.
pub(crate) struct Samples {
    from: Instant,
    until: Instant,
    nanos: Vec<u64>,
    server: Option<Process>,
    /// When the first time was recorded, and what the server and this program had used then.
    opened: Option<(Instant, Usage)>,
}

/// Processor time of both sides; the server's where it is known.
struct Usage {
    server: Option<Duration>,
    load: Duration,
}

impl Usage {
    fn now(server: Option<Process>) -> Self {
        Self { server: server.and_then(|server| server.cpu().ok()), load: own_cpu() }
    }
}

impl Samples {
    /// A window of `secs` that opens after `warm_up_secs`; `server` is watched meanwhile.
    pub(crate) fn new(warm_up_secs: f64, secs: f64, server: Option<Process>) -> Self {
        let from = Instant::now() + Duration::from_secs_f64(warm_up_secs);
        let until = from + Duration::from_secs_f64(secs);
        Self { from, until, nanos: Vec::new(), server, opened: None }
    }

    /// Something that began at `began` has ended.
    pub(crate) fn record(&mut self, began: Instant, now: Instant) {
        if now >= self.from && now < self.until {
            if self.opened.is_none() {
                self.opened = Some((now, Usage::now(self.server)));
            }
            self.nanos.push(nanos_of(now.duration_since(began)));
        }
    }

    pub(crate) fn is_over(&self, now: Instant) -> bool {
        now >= self.until
    }

    /// How long to wait for the end at most: something is wrong when it takes longer.
    pub(crate) fn limit(&self) -> Duration {
        self.until.saturating_duration_since(Instant::now()) + Duration::from_secs(30)
    }

    /// `{"count","per_sec","p50_ms","p99_ms","max_ms","server_cpu","load_cpu"}`, the last two as
    /// shares of a core.
    pub(crate) fn summary(mut self) -> Value {
        let secs = self.until.duration_since(self.from).as_secs_f64();
        let mut summary = latencies(&mut self.nanos);
        summary["per_sec"] = json!(self.nanos.len() as f64 / secs);
        let Some((since, before)) = self.opened else { return summary };
        let (now, secs) = (Usage::now(self.server), since.elapsed().as_secs_f64());
        let used = now.server.zip(before.server).map(|(now, before)| (now - before).as_secs_f64());
        summary["server_cpu"] = json!(used.map(|used| used / secs));
        summary["load_cpu"] = json!((now.load - before.load).as_secs_f64() / secs);
        summary
    }
}

/// Nanoseconds, of times far below five hundred years.
pub(crate) fn nanos_of(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// `{"count","p50_ms","p99_ms","max_ms"}`; null where there is nothing.
pub(crate) fn latencies(nanos: &mut [u64]) -> Value {
    nanos.sort_unstable();
    let ms = |index: usize| nanos.get(index).map(|nanos| *nanos as f64 / 1e6);
    json!({
        "count": nanos.len(),
        "p50_ms": ms(rank(nanos.len(), 50)),
        "p99_ms": ms(rank(nanos.len(), 99)),
        "max_ms": ms(nanos.len().wrapping_sub(1)),
    })
}

/// The place of a percentile among `count` sorted values: the smallest that this share does not
/// exceed.
fn rank(count: usize, percent: usize) -> usize {
    (count * percent).div_ceil(100).saturating_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_the_value_that_many_stay_within() {
        assert_eq!([rank(1, 50), rank(1, 99), rank(100, 50), rank(100, 99)], [0, 0, 49, 98]);
        assert_eq!([rank(3, 50), rank(1000, 99)], [1, 989]);
        let summary = latencies(&mut [4_000_000, 1_000_000, 2_000_000, 3_000_000]);
        let wanted = json!({"count": 4, "p50_ms": 2.0, "p99_ms": 4.0, "max_ms": 4.0});
        assert_eq!(summary, wanted);
        assert_eq!(latencies(&mut [])["p50_ms"], Value::Null);
    }

    #[test]
    fn only_what_ends_in_the_window_counts() {
        let mut samples = Samples::new(1.0, 2.0, None);
        let ms = Duration::from_millis(1);
        for end in [samples.from - ms, samples.from, samples.until - ms, samples.until] {
            samples.record(end - ms, end);
        }
        let summary = samples.summary();
        assert_eq!((&summary["count"], &summary["per_sec"]), (&json!(2), &json!(1.0)));
    }
}
