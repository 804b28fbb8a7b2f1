//! Headers of a record: the W3C trace context.

use std::fmt;
use std::str::FromStr;

/// Name of the header that carries the trace context (W3C Trace Context, section 3.2).
pub(crate) const TRACEPARENT: &str = "traceparent";

/// What a record carries besides key and payload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Headers {
    /// The trace that this record belongs to.
    pub traceparent: Option<TraceContext>,
}

/// Where a piece of work belongs: which trace, below which span.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TraceContext {
    /// Names the whole trace; never all zero.
    pub trace_id: [u8; 16],
    /// Names the span that caused the work; never all zero.
    pub span_id: [u8; 8],
    /// Whether the caller records this trace.
    pub sampled: bool,
}

/// The text is no `traceparent` of version 00 or of a later version that reads like it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a traceparent header")]
pub struct BadTraceparent;

impl TraceContext {
    /// The beginning of a trace.
    #[must_use]
    pub fn new_random(sampled: bool) -> TraceContext {
        let mut bytes = [0; 24];
        if getrandom::fill(&mut bytes).is_err() {
            // Without entropy traces may be confused with each other, nothing else.
            bytes[..8].copy_from_slice(&clock_ns().to_be_bytes());
        }
        // All zero means "no trace": one bit keeps it valid.
        bytes[15] |= 1;
        bytes[23] |= 1;
        let (trace_id, span_id) = (part(&bytes[..16]), part(&bytes[16..]));
        TraceContext { trace_id, span_id, sampled }
    }

    /// The same trace, below a span of its own.
    #[must_use]
    pub fn child(&self) -> TraceContext {
        TraceContext { span_id: TraceContext::new_random(self.sampled).span_id, ..*self }
    }

    /// Reads a `traceparent` header.
    ///
    /// # Errors
    /// Another form than the one of section 3.2, or an id of nothing but zeros.
    pub fn parse(text: &str) -> Result<TraceContext, BadTraceparent> {
        let mut fields = text.split('-');
        let version = hex::<1>(fields.next())?[0];
        let trace_id = hex::<16>(fields.next())?;
        let span_id = hex::<8>(fields.next())?;
        let flags = hex::<1>(fields.next())?[0];
        // Version 00 ends here; later versions may add fields (section 4.3).
        let ends = fields.next().is_none();
        if version == 0xff || (version == 0 && !ends) || is_zero(&trace_id) || is_zero(&span_id) {
            return Err(BadTraceparent);
        }
        Ok(TraceContext { trace_id, span_id, sampled: flags & 1 == 1 })
    }
}

impl FromStr for TraceContext {
    type Err = BadTraceparent;

    fn from_str(text: &str) -> Result<TraceContext, BadTraceparent> {
        TraceContext::parse(text)
    }
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("00-")?;
        for byte in self.trace_id {
            write!(f, "{byte:02x}")?;
        }
        f.write_str("-")?;
        for byte in self.span_id {
            write!(f, "{byte:02x}")?;
        }
        write!(f, "-{:02x}", u8::from(self.sampled))
    }
}

fn clock_ns() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(1, |since| since.as_nanos() as u64)
}

fn part<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(bytes);
    out
}

fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}

/// Exactly `N` bytes in lower-case hexadecimal.
fn hex<const N: usize>(field: Option<&str>) -> Result<[u8; N], BadTraceparent> {
    let digits = field.ok_or(BadTraceparent)?.as_bytes();
    if digits.len() != 2 * N {
        return Err(BadTraceparent);
    }
    let mut out = [0; N];
    for (byte, pair) in out.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Ok(out)
}

fn digit(character: u8) -> Result<u8, BadTraceparent> {
    match character {
        b'0'..=b'9' => Ok(character - b'0'),
        b'a'..=b'f' => Ok(character - b'a' + 10),
        _ => Err(BadTraceparent),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SAMPLE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn the_sample_of_the_standard_is_read_and_written() {
        let context = TraceContext::parse(SAMPLE).expect("the standard's own sample");
        assert!(context.sampled);
        assert_eq!(context.trace_id[0], 0x4b);
        assert_eq!(context.span_id[7], 0xb7);
        assert_eq!(context.to_string(), SAMPLE);
    }

    #[test]
    fn what_the_standard_forbids_is_refused() {
        let bad = [
            "",
            "00",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01",
        ];
        for text in bad {
            assert_eq!(TraceContext::parse(text), Err(BadTraceparent), "{text}");
        }
        let later = "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more";
        assert!(TraceContext::parse(later).is_ok(), "later versions may add fields");
    }

    #[test]
    fn a_child_stays_in_its_trace() {
        let parent = TraceContext::new_random(true);
        let child = parent.child();
        assert_eq!(child.trace_id, parent.trace_id);
        assert_ne!(child.span_id, parent.span_id);
        assert!(child.sampled);
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "\\PC*") {
            let _ = TraceContext::parse(&text);
        }

        #[test]
        fn what_is_written_is_read_again(sampled: bool) {
            let context = TraceContext::new_random(sampled);
            prop_assert_eq!(TraceContext::parse(&context.to_string()), Ok(context));
        }
    }
}
