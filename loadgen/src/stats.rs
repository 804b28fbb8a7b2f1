//! Counters and latency histograms of a worker, and how those of several workers become one.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Deserializer, Serializer, V2Serializer};
use serde::{Deserialize, Serialize};

/// Latencies in microseconds with three significant digits. Between processes it travels in the
/// histogram's own V2 form.
#[derive(Clone, Debug)]
pub struct Latency(Histogram<u64>);

impl Default for Latency {
    fn default() -> Self {
        // Three digits are within the allowed range of 0 to 5; the range grows by itself.
        let histogram = Histogram::new(3).or_else(|_| Histogram::new(1));
        Self(histogram.unwrap_or_else(|_| unreachable!("a precision of 1 is allowed")))
    }
}

impl Latency {
    /// Adds one latency.
    pub fn record_ns(&mut self, ns: u64) {
        // Cannot fail: the range grows by itself, and an hour is where latencies stop mattering.
        let _ = self.0.record(ns.div_ceil(1000).min(3_600_000_000));
    }

    /// Adds everything of another histogram.
    pub fn merge(&mut self, other: &Self) {
        // Cannot fail: the range grows by itself.
        let _ = self.0.add(&other.0);
    }

    /// Quantiles of everything recorded.
    #[must_use]
    pub fn percentiles(&self) -> Percentiles {
        let at = |quantile| self.0.value_at_quantile(quantile);
        Percentiles {
            count: self.0.len(),
            mean_us: self.0.mean().round() as u64,
            p50_us: at(0.5),
            p90_us: at(0.9),
            p99_us: at(0.99),
            p999_us: at(0.999),
            max_us: self.0.max(),
        }
    }
}

impl Serialize for Latency {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut bytes = Vec::new();
        V2Serializer::new().serialize(&self.0, &mut bytes).map_err(serde::ser::Error::custom)?;
        serializer.serialize_str(&STANDARD.encode(bytes))
    }
}

impl<'de> Deserialize<'de> for Latency {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde::de::Error;
        let bytes =
            STANDARD.decode(String::deserialize(deserializer)?).map_err(D::Error::custom)?;
        let histogram = Deserializer::new().deserialize(&mut bytes.as_slice());
        let mut histogram: Histogram<u64> =
            histogram.map_err(|error| D::Error::custom(format!("{error:?}")))?;
        histogram.auto(true);
        Ok(Self(histogram))
    }
}

/// A latency distribution in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Percentiles {
    /// Values recorded.
    pub count: u64,
    /// Mean.
    pub mean_us: u64,
    /// Median.
    pub p50_us: u64,
    /// 90 % are at most this.
    pub p90_us: u64,
    /// 99 %.
    pub p99_us: u64,
    /// 99.9 %.
    pub p999_us: u64,
    /// The largest.
    pub max_us: u64,
}

macro_rules! sums {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
        pub struct $name { $($(#[$field_doc])* pub $field: u64,)* }

        impl $name {
            /// Adds the counts of another worker.
            pub fn merge(&mut self, other: &Self) { $(self.$field += other.$field;)* }
        }
    };
}

sums! {
    /// What a worker counts while it runs.
    Counters {
        /// Connections that are logged in at this moment.
        connected,
        /// Connections that reached login for the first time.
        established,
        /// Connections, first and later ones, on which permessage-deflate was agreed.
        deflating,
        /// Connections that could not be established.
        connect_failures,
        /// Conversations that could not be made.
        setup_failures,
        /// Established connections that broke.
        disconnects,
        /// Connections logged in again.
        reconnects,
        /// Heartbeats sent.
        heartbeats,
        /// Heartbeats answered.
        heartbeats_answered,
        /// Heartbeats without an answer when the next one was due.
        heartbeats_missed,
        /// Messages whose due time came.
        due,
        /// Messages sent for the first time.
        sent,
        /// Messages acknowledged, or (echo) come back.
        acked,
        /// First deliveries to other members.
        delivered,
        /// Messages sent again.
        retries,
        /// Answers that said to slow down.
        rate_limited,
        /// Messages refused for good.
        refused,
        /// Messages that were due and never sent.
        unsent,
        /// Echo: messages that did not come back.
        echo_lost,
        /// Echo: messages that came back twice or out of order.
        echo_disordered,
        /// Echo: messages that came back changed.
        echo_corrupt,
        /// Notices that pushes were left out.
        lagged,
        /// Notices that the server is about to close.
        goaways,
        /// Pulls, those of the audit included.
        pulls,
        /// Bytes received.
        received_bytes,
        /// Bytes sent.
        sent_bytes,
    }
}

/// All distributions of a run.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Latencies {
    /// From the start of connecting to being logged in.
    pub connect: Latency,
    /// From due to acknowledged (echo: back again).
    pub ack: Latency,
    /// From due to arrived at another member by push.
    pub delivery: Latency,
    /// From due to handed to the kernel for the first time: the generator's own lateness.
    pub send_lag: Latency,
    /// From heartbeat to answer.
    pub heartbeat: Latency,
    /// How long holes were open that a pull closed.
    pub gap_fill: Latency,
}

impl Latencies {
    /// Adds those of another worker.
    pub fn merge(&mut self, other: &Self) {
        self.connect.merge(&other.connect);
        self.ack.merge(&other.ack);
        self.delivery.merge(&other.delivery);
        self.send_lag.merge(&other.send_lag);
        self.heartbeat.merge(&other.heartbeat);
        self.gap_fill.merge(&other.gap_fill);
    }
}

const NAMES_MAX: usize = 100;

/// Everything a worker measures.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Stats {
    /// Counts.
    pub counters: Counters,
    /// Distributions.
    pub latencies: Latencies,
    /// How often each error was seen, by name.
    pub errors: BTreeMap<String, u64>,
}

impl Stats {
    /// Counts an error. Names beyond a bound are counted together.
    pub fn error(&mut self, name: &str) {
        if let Some(count) = self.errors.get_mut(name) {
            *count += 1;
        } else if self.errors.len() < NAMES_MAX {
            self.errors.insert(name.to_owned(), 1);
        } else {
            *self.errors.entry("OTHER".to_owned()).or_default() += 1;
        }
    }

    /// Adds those of another worker.
    pub fn merge(&mut self, other: &Self) {
        self.counters.merge(&other.counters);
        self.latencies.merge(&other.latencies);
        for (name, count) in &other.errors {
            *self.errors.entry(name.clone()).or_default() += count;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_right_to_three_digits() {
        let mut latency = Latency::default();
        for ms in 1..=1000 {
            latency.record_ns(ms * 1_000_000);
        }
        let p = latency.percentiles();
        let near = |value: u64, us: u64| value.abs_diff(us) * 1000 <= us * 2;
        assert_eq!(p.count, 1000);
        assert!(
            near(p.p50_us, 500_000) && near(p.p99_us, 990_000) && near(p.max_us, 1_000_000),
            "{p:?}"
        );
    }

    #[test]
    fn histograms_survive_the_way_between_processes_and_merge() {
        let mut a = Stats::default();
        a.latencies.ack.record_ns(5_000_000);
        a.counters.sent = 3;
        a.error("BUSY");
        let text = serde_json::to_string(&a).expect("writes");
        let mut b: Stats = serde_json::from_str(&text).expect("reads");
        b.latencies.ack.record_ns(3_600_000_000_000);
        b.merge(&a);
        assert_eq!((b.counters.sent, b.errors["BUSY"]), (6, 2));
        let p = b.latencies.ack.percentiles();
        assert_eq!(p.count, 3);
        assert!(p.p50_us.abs_diff(5000) < 10 && p.max_us >= 3_590_000_000, "{p:?}");
    }

    #[test]
    fn error_names_are_bounded() {
        let mut stats = Stats::default();
        for i in 0..1000 {
            stats.error(&format!("E{i}"));
        }
        assert_eq!(stats.errors.values().sum::<u64>(), 1000);
        assert!(stats.errors.len() <= NAMES_MAX + 1);
    }
}
