//! Answers of Redis, read leniently: what is not of the kind asked for is empty.

use redis::Value;

/// The bytes of a string.
pub(super) fn bytes(value: &Value) -> &[u8] {
    match value {
        Value::BulkString(bytes) => bytes,
        Value::SimpleString(text) => text.as_bytes(),
        _ => b"",
    }
}

/// The items of a list.
pub(super) fn list(value: &Value) -> &[Value] {
    match value {
        Value::Array(items) => items,
        _ => &[],
    }
}

/// A number, also one that came as text.
pub(super) fn int(value: &Value) -> i64 {
    match value {
        Value::Int(number) => *number,
        other => {
            std::str::from_utf8(bytes(other)).ok().and_then(|text| text.parse().ok()).unwrap_or(0)
        }
    }
}

/// A number that is not negative.
pub(super) fn unsigned(value: &Value) -> u64 {
    u64::try_from(int(value)).unwrap_or(0)
}

/// The answer to `TIME`, in milliseconds since 1970; 0 if it is none.
pub(super) fn time_ms(value: &Value) -> u64 {
    let [seconds, micros] = list(value) else { return 0 };
    unsigned(seconds).saturating_mul(1000).saturating_add(unsigned(micros) / 1000)
}

/// Fields and values of a hash.
pub(super) fn pairs(value: &Value) -> impl Iterator<Item = (&[u8], &[u8])> {
    list(value).chunks_exact(2).map(|pair| (bytes(&pair[0]), bytes(&pair[1])))
}
