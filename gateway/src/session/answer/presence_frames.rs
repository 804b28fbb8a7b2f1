//! The JSON frames of presence.

use proto::v1;
use serde::Serialize;

use super::PRESENCE_CHANGE;
use super::json_writer::{as_text, write};

#[derive(Serialize)]
struct Device<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    device_id: &'a str,
    device_class: &'a str,
}

impl<'a> Device<'a> {
    fn of(device: &'a v1::Device) -> Self {
        Self { device_id: &device.device_id, device_class: &device.device_class }
    }
}

/// A user in an answer.
#[derive(Serialize)]
pub(super) struct Item<'a> {
    #[serde(serialize_with = "as_text")]
    user_id: u64,
    username: &'a str,
    online: bool,
    devices: Vec<Device<'a>>,
    last_seen_ms: u64,
}

/// The users of an answer.
pub(super) fn items(presence: &v1::Presence) -> Vec<Item<'_>> {
    presence.items.iter().map(item).collect()
}

fn item(user: &v1::UserPresence) -> Item<'_> {
    let v1::UserPresence { user_id, username, online, devices, last_seen_ms } = user;
    Item {
        user_id: *user_id,
        username,
        online: *online,
        devices: devices.iter().map(Device::of).collect(),
        last_seen_ms: *last_seen_ms,
    }
}

#[derive(Serialize)]
struct ChangeFrame<'a> {
    cmd: u32,
    payload: Change<'a>,
}

#[derive(Serialize)]
struct Change<'a> {
    #[serde(serialize_with = "as_text")]
    user_id: u64,
    username: &'a str,
    online: bool,
    last_seen_ms: u64,
}

/// Somebody came or went.
pub(super) fn change(out: &mut Vec<u8>, change: &v1::PresenceChange) {
    let v1::PresenceChange { user_id, username, online, last_seen_ms } = change;
    let payload =
        Change { user_id: *user_id, username, online: *online, last_seen_ms: *last_seen_ms };
    write(out, &ChangeFrame { cmd: PRESENCE_CHANGE, payload });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_those_of_the_contract() {
        let mut out = Vec::new();
        let body = v1::PresenceChange {
            user_id: u64::MAX,
            username: "bob".into(),
            online: false,
            last_seen_ms: 5,
        };
        change(&mut out, &body);
        let frame = r#"{"cmd":16,"payload":{"user_id":"18446744073709551615","username":"bob","online":false,"last_seen_ms":5}}"#;
        assert_eq!(std::str::from_utf8(&out[2..]), Ok(frame));
    }

    #[test]
    fn a_device_without_a_name_has_none() {
        let device = |id: &str| v1::Device { device_id: id.into(), device_class: "web".into() };
        let presence = v1::Presence {
            request_id: 1,
            items: vec![v1::UserPresence {
                user_id: 2,
                username: "bob".into(),
                online: true,
                devices: vec![device("phone"), device("")],
                last_seen_ms: 0,
            }],
        };
        let text = serde_json::to_string(&items(&presence)).unwrap();
        assert_eq!(
            text,
            r#"[{"user_id":"2","username":"bob","online":true,"devices":[{"device_id":"phone","device_class":"web"},{"device_class":"web"}],"last_seen_ms":0}]"#
        );
    }
}
