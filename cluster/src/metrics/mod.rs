//! Prometheus text on an HTTP listener of its own.
//!
//! Knows: how metrics are shown.
//! Must not know: what is counted. Whoever counts uses the macros of the crate `metrics`; without
//! a listener they cost next to nothing.

use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};

use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder};

/// Bounds of everything that ends in `_seconds`: from a tenth of a millisecond to ten seconds.
const SECONDS: &[f64] = &[
    0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    5.0, 10.0,
];

/// Bounds of everything that ends in `_records`: how many things were done together.
const RECORDS: &[f64] =
    &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 4096.0];

/// Metrics cannot be shown.
#[derive(Debug, thiserror::Error)]
pub enum MetricsError {
    /// Nothing can listen there.
    #[error("metrics cannot be shown on {addr}: {why}")]
    Listen {
        /// The address that was asked for.
        addr: SocketAddr,
        /// What the system says.
        why: String,
    },
    /// This process shows its metrics already.
    #[error("the metrics of this process are shown already")]
    Twice,
    /// Something else.
    #[error("metrics: {0}")]
    Other(String),
}

/// Counts from now on, and shows the counts in Prometheus' text form to whoever asks `addr` by
/// HTTP, whatever the path. Once per process; the listener stays until the process ends, on a
/// thread of its own (or on the Tokio runtime that this is called on).
///
/// # Errors
/// The address is taken, or this process does it already.
pub fn serve(addr: SocketAddr) -> Result<(), MetricsError> {
    static SHOWN: Mutex<bool> = Mutex::new(false);
    let mut shown = SHOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if *shown {
        return Err(MetricsError::Twice);
    }
    let builder = PrometheusBuilder::new()
        .with_http_listener(addr)
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), SECONDS)
        .and_then(|builder| {
            builder.set_buckets_for_metric(Matcher::Suffix("_records".to_owned()), RECORDS)
        })
        .map_err(|error| MetricsError::Other(error.to_string()))?;
    builder.install().map_err(|error| match error {
        BuildError::FailedToCreateHTTPListener(why) => MetricsError::Listen { addr, why },
        BuildError::FailedToSetGlobalRecorder(_) => MetricsError::Twice,
        other => MetricsError::Other(other.to_string()),
    })?;
    *shown = true;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::{TcpListener, TcpStream};
    use std::time::Duration;

    use super::*;

    fn scrape(addr: SocketAddr) -> String {
        let mut socket = TcpStream::connect(addr).expect("it listens");
        socket.set_read_timeout(Some(Duration::from_secs(30))).expect("a good timeout");
        socket
            .write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            .expect("it reads");
        let mut text = String::new();
        socket.read_to_string(&mut text).expect("it answers and closes");
        text
    }

    #[test]
    fn what_is_counted_is_shown_and_a_taken_address_is_told() {
        let taken = TcpListener::bind("127.0.0.1:0").expect("loopback has ports");
        let addr = taken.local_addr().expect("it is bound");
        let error = serve(addr).expect_err("somebody else listens there");
        assert!(matches!(error, MetricsError::Listen { .. }), "{error}");
        drop(taken);

        serve(addr).expect("now it is free");
        ::metrics::counter!("test_things_total", "kind" => "good").increment(3);
        ::metrics::histogram!("test_wait_seconds").record(0.003);
        let text = scrape(addr);
        assert!(text.starts_with("HTTP/1.1 200"), "{text}");
        assert!(text.contains("test_things_total{kind=\"good\"} 3"), "{text}");
        assert!(text.contains("test_wait_seconds_bucket{le=\"0.005\"} 1"), "{text}");
        assert!(text.contains("test_wait_seconds_bucket{le=\"0.0025\"} 0"), "{text}");

        let error = serve(addr).expect_err("once per process");
        assert!(matches!(error, MetricsError::Twice), "{error}");
    }
}
