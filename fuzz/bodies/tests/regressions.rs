//! Inputs that once showed a fault, by name.

use fuzz_bodies::json;

/// The answer to a string where an object was expected held the whole string, escaped twice: 64 KiB
/// were answered with 448 KiB.
#[test]
fn a_long_string_instead_of_an_object_is_not_repeated() {
    json::check(&format!("\"{}\"", "\u{7f}".repeat(9000)));
}

/// The same where a key is not one of ours, or a value has the wrong type.
#[test]
fn long_keys_and_values_are_not_repeated() {
    let long = "\u{7f}".repeat(9000);
    json::check(&format!("{{\"{long}\":1,\"cmd\":77}}"));
    json::check(&format!("{{\"cmd\":\"{long}\"}}"));
    json::check(&format!("{{\"cmd\":2,\"msg_id\":\"m\",\"payload\":\"{long}\"}}"));
    json::check(&format!("{{\"cmd\":3,\"conversation_id\":\"c\",\"direction\":\"{long}\"}}"));
    json::check(&format!("{{\"cmd\":1,\"cmd\":2,\"id\":\"{long}\"}}"));
}

/// `[5]` was taken for `{"cmd":5}`.
#[test]
fn an_array_is_no_object() {
    json::check("[5]");
    json::check("{\"cmd\":1,\"payload\":[null,null,\"token\"]}");
}
