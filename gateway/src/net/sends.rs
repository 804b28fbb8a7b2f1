//! All sends of a turn, handed over together.
//!
//! Sending is three quarters of the work of a message, nearly all of it TCP. What one submit for many sends saves is the
//! rest: the system calls. Where io_uring is denied the same calls go out one by one.

use std::io;

use super::send_ring::SendRing;
use super::sockets::Send;

/// How the sends of this shard reach the kernel.
pub enum Sends {
    /// One io_uring submit for many.
    Ring(Box<SendRing>),
    /// One `send(2)` each.
    SystemCalls,
}

impl Sends {
    /// A send ring, or an error that says why there is none (io_uring denied or too old).
    /// Call it on the thread that will flush: the ring belongs to one thread.
    ///
    /// # Errors
    /// What `io_uring_setup(2)` answered.
    pub fn ring() -> io::Result<Self> {
        Ok(Self::Ring(Box::new(SendRing::new()?)))
    }

    /// Sends all of `batch`. `short(index, outcome)` is called for each one that was not sent whole,
    /// with the bytes that were, or the error that broke the connection. When this returns no byte of
    /// the batch is referred to any more.
    pub fn flush(&mut self, batch: &[Send<'_>], mut short: impl FnMut(usize, io::Result<usize>)) {
        // A submit of one gains nothing over the plain call.
        if let (Self::Ring(ring), [_, _, ..]) = (&mut *self, batch) {
            let sent = ring.flush(batch, &mut short);
            if sent == batch.len() {
                return;
            }
            tracing::warn!("the send ring failed; going on with one system call a send");
            *self = Self::SystemCalls;
            return send_each(sent, &batch[sent..], &mut short);
        }
        send_each(0, batch, &mut short);
    }
}

fn send_each(offset: usize, batch: &[Send<'_>], short: &mut impl FnMut(usize, io::Result<usize>)) {
    for (index, send) in batch.iter().enumerate() {
        match send.bytes.send_to(send.fd) {
            Ok(count) if count == send.bytes.len() => {}
            outcome => short(offset + index, outcome),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::sockets::Bytes::{Parts, Whole};
    use super::*;
    use std::io::{IoSlice, Read};
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    fn both() -> Vec<Sends> {
        let mut all = vec![Sends::SystemCalls];
        match Sends::ring() {
            Ok(ring) => all.push(ring),
            Err(error) => eprintln!("io_uring is denied here ({error}): only send(2) is tested"),
        }
        all
    }

    #[test]
    fn every_socket_gets_its_bytes() {
        for mut sends in both() {
            let pairs: Vec<_> = (0..2500).map(|_| UnixStream::pair().unwrap()).collect();
            let texts: Vec<_> = (0..pairs.len()).map(|i| format!("message {i}")).collect();
            let batch: Vec<_> = pairs
                .iter()
                .zip(&texts)
                .map(|((a, _), text)| Send { fd: a.as_fd(), bytes: Whole(text.as_bytes()) })
                .collect();
            sends.flush(&batch, |index, outcome| panic!("{index}: {outcome:?}"));
            for ((_, b), text) in pairs.iter().zip(&texts) {
                let mut got = vec![0; text.len()];
                (&*b).read_exact(&mut got).unwrap();
                assert_eq!(got, text.as_bytes());
            }
        }
    }

    /// More than the ring holds goes out in several submits, and nothing of it is left behind.
    #[test]
    fn a_batch_larger_than_the_ring_goes_out_whole() {
        for mut sends in both() {
            let pairs: Vec<_> = (0..50).map(|_| UnixStream::pair().unwrap()).collect();
            let bytes = b"0123456789";
            let batch: Vec<_> = (0..10_000)
                .map(|n| Send {
                    fd: pairs[n % 50].0.as_fd(),
                    bytes: Whole(&bytes[n / 50 % 10..][..1]),
                })
                .collect();
            sends.flush(&batch, |index, outcome| panic!("{index}: {outcome:?}"));
            for (_, b) in &pairs {
                let mut got = [0; 200];
                (&*b).read_exact(&mut got).unwrap();
                assert_eq!(got[..], bytes.repeat(20));
            }
        }
    }

    /// A short send must be told with its exact count, or bytes are lost without a word.
    #[test]
    fn a_short_send_and_a_full_socket_are_told() {
        for mut sends in both() {
            let (a, mut b) = UnixStream::pair().unwrap();
            let (c, mut d) = UnixStream::pair().unwrap();
            let large = vec![7_u8; 4 << 20];
            let mut told = Vec::new();
            let batch = [
                Send { fd: a.as_fd(), bytes: Whole(&large) },
                Send { fd: c.as_fd(), bytes: Whole(b"small") },
            ];
            sends.flush(&batch, |index, outcome| told.push((index, outcome.unwrap())));
            assert_eq!(told.len(), 1);
            let (index, sent) = told[0];
            assert_eq!(index, 0);
            assert!(sent > 0 && sent < large.len());
            let mut small = [0; 5];
            d.read_exact(&mut small).unwrap();

            told.clear();
            let batch = [
                Send { fd: a.as_fd(), bytes: Whole(b"more") },
                Send { fd: c.as_fd(), bytes: Whole(b"small") },
            ];
            sends.flush(&batch, |index, outcome| told.push((index, outcome.unwrap())));
            assert_eq!(told, [(0, 0)], "a full socket takes nothing and says so");

            let mut got = vec![0; sent];
            b.read_exact(&mut got).unwrap();
            assert!(got.iter().all(|&byte| byte == 7));
        }
    }

    /// Bytes in parts arrive in order, in a submit of several among which others have them in one piece.
    #[test]
    fn parts_arrive_one_behind_the_other() {
        for mut sends in both() {
            let pairs: Vec<_> = (0..300).map(|_| UnixStream::pair().unwrap()).collect();
            let texts: Vec<_> = (0..pairs.len()).map(|i| format!("message {i}")).collect();
            let parts: Vec<_> = texts
                .iter()
                .map(|text| [b"<", text.as_bytes(), b"", b">"].map(IoSlice::new))
                .collect();
            let batch: Vec<_> = (0..pairs.len())
                .map(|n| {
                    let bytes =
                        if n % 3 == 0 { Whole(texts[n].as_bytes()) } else { Parts(&parts[n]) };
                    Send { fd: pairs[n].0.as_fd(), bytes }
                })
                .collect();
            sends.flush(&batch, |index, outcome| panic!("{index}: {outcome:?}"));
            drop(batch);
            for (n, ((a, mut b), text)) in pairs.into_iter().zip(&texts).enumerate() {
                drop(a);
                let mut got = String::new();
                b.read_to_string(&mut got).unwrap();
                assert_eq!(got, if n % 3 == 0 { text.clone() } else { format!("<{text}>") });
            }
        }
    }

    /// As with one piece: a send of parts that falls short is told with its exact count.
    #[test]
    fn a_short_send_of_parts_and_a_full_socket_are_told() {
        for mut sends in both() {
            let (a, mut b) = UnixStream::pair().unwrap();
            let (c, mut d) = UnixStream::pair().unwrap();
            let large: Vec<_> = (0..4_u32 << 20).map(|n| n.to_be_bytes()[3]).collect();
            let parts: Vec<_> = large.chunks(5_000).map(IoSlice::new).collect();
            let mut told = Vec::new();
            for _ in 0..2 {
                let batch = [
                    Send { fd: a.as_fd(), bytes: Parts(&parts) },
                    Send { fd: c.as_fd(), bytes: Whole(b"small") },
                ];
                sends.flush(&batch, |index, outcome| told.push((index, outcome.unwrap())));
            }
            let [(0, sent), (0, 0)] = told[..] else { panic!("{told:?}") };
            assert!(sent > 0 && sent < large.len());
            let (mut got, mut small) = (vec![0; sent], [0; 10]);
            b.read_exact(&mut got).unwrap();
            d.read_exact(&mut small).unwrap();
            assert_eq!((&got[..], &small), (&large[..sent], b"smallsmall"));
        }
    }

    #[test]
    fn a_broken_connection_is_an_error() {
        for mut sends in both() {
            let (a, b) = UnixStream::pair().unwrap();
            let (c, _d) = UnixStream::pair().unwrap();
            drop(b);
            let mut told = Vec::new();
            let parts = [IoSlice::new(b"in"), IoSlice::new(b"parts")];
            for bytes in [Whole(b"x"), Parts(&parts)] {
                let batch = [Send { fd: a.as_fd(), bytes }, Send { fd: c.as_fd(), bytes }];
                sends.flush(&batch, |index, outcome| told.push((index, outcome.is_err())));
            }
            assert_eq!(told, [(0, true), (0, true)]);
        }
    }
}
