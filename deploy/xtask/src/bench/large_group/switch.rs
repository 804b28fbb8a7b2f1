//! Moves the threshold in etcd while the load runs, so that the group comes to lie on its other side.

use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use crate::servers::ask;

const KEY: &str = "/corelane/config/fanout_switch_members";
/// The threshold of a cluster that was told nothing else.
const USUAL: u32 = 500;

/// When the threshold was set to what, in seconds of the load.
type Done = anyhow::Result<Vec<(f64, u32)>>;

/// The changes of one run.
pub(super) struct Switches {
    port: u16,
    /// When, from the beginning of the load, and to what.
    planned: Vec<(Duration, u32)>,
    running: Option<(Sender<()>, JoinHandle<Done>)>,
}

impl Switches {
    /// Every so many seconds of the load, as far as there is as much time again behind the last one.
    pub(super) fn new(port: u16, members: u32, every: u64, seconds: u64) -> Self {
        Self { port, planned: planned(members, every, seconds), running: None }
    }

    /// The load begins now.
    pub(super) fn begin(&mut self) {
        let (port, planned) = (self.port, self.planned.clone());
        let (end, ended) = channel();
        let work = move || {
            let begun = Instant::now();
            let mut done = Vec::new();
            for (at, members) in planned {
                match ended.recv_timeout(at.saturating_sub(begun.elapsed())) {
                    Err(RecvTimeoutError::Timeout) => {}
                    Ok(()) | Err(RecvTimeoutError::Disconnected) => break,
                }
                put(port, &members.to_string())?;
                done.push((begun.elapsed().as_secs_f64(), members));
            }
            Ok(done)
        };
        self.running.get_or_insert_with(|| (end, thread::spawn(work)));
    }

    /// No further change; those that were made.
    ///
    /// # Errors
    /// When etcd refused one.
    pub(super) fn end(self) -> Done {
        let Some((end, thread)) = self.running else { return Ok(Vec::new()) };
        drop(end);
        thread.join().map_err(|_| anyhow::anyhow!("the thread that switches failed"))?
    }
}

/// The threshold by which the group is large.
pub(super) fn low(members: u32) -> u32 {
    USUAL.min(members)
}

/// By turns so high that the group is small, and as usual.
pub(super) fn planned(members: u32, every: u64, seconds: u64) -> Vec<(Duration, u32)> {
    // It is small below 80 %.
    let high = members.saturating_mul(2);
    let count = (seconds / every.max(1)).saturating_sub(1);
    let low = low(members);
    (1..=count)
        .map(|n| (Duration::from_secs(n * every), if n % 2 == 1 { high } else { low }))
        .collect()
}

/// Sets the key over etcd's JSON.
fn put(port: u16, value: &str) -> anyhow::Result<()> {
    let body =
        format!(r#"{{"key":"{}","value":"{}"}}"#, base64(KEY.as_bytes()), base64(value.as_bytes()));
    let request = format!(
        "POST /v3/kv/put HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let answer = ask(port, request.as_bytes()).context("etcd does not answer")?;
    if !answer.starts_with("HTTP/1.1 200") {
        bail!("etcd refused the threshold: {answer}");
    }
    Ok(())
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let bits = (0..3).fold(0_usize, |bits, n| {
            bits << 8 | usize::from(three.get(n).copied().unwrap_or_default())
        });
        for n in 0..4 {
            let digit = if n <= three.len() { DIGITS[bits >> (18 - 6 * n) & 63] } else { b'=' };
            text.push(char::from(digit));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_written_in_base64() {
        for (bytes, text) in [
            (&b""[..], ""),
            (b"f", "Zg=="),
            (b"fo", "Zm8="),
            (b"foo", "Zm9v"),
            (b"place", "cGxhY2U="),
            (b"\xff\xff\xfe", "///+"),
        ] {
            assert_eq!(base64(bytes), text);
        }
    }

    #[test]
    fn the_group_goes_to_and_fro_and_ends_with_some_time_left() {
        let seconds = |n| Duration::from_secs(n);
        let expected = [12, 24, 36, 48].map(seconds);
        let plan = planned(10_000, 12, 60);
        assert_eq!(plan.iter().map(|(at, _)| *at).collect::<Vec<_>>(), expected);
        assert_eq!(plan.iter().map(|(_, to)| *to).collect::<Vec<_>>(), [20_000, 500, 20_000, 500]);
        assert_eq!(planned(40, 2, 6), [(seconds(2), 80), (seconds(4), 40)]);
        assert!(planned(40, 10, 15).is_empty());
    }
}
