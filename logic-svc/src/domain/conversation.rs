//! Kinds, roles, and what a request to create a conversation must look like.

use proto::error::ErrorCode;
use proto::ids::check_conversation_id;
use proto::limits::CREATE_MEMBERS_MAX;
use proto::v1::CreateConversation;

use super::reject::Reject;

/// Longest name of a group in bytes.
pub const NAME_MAX_BYTES: usize = 256;

/// What kind of conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Two users (or one with oneself); members never change.
    Direct,
    /// Any number of users, joined by its id.
    Group,
}

impl Kind {
    /// The name that travels as `type`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Group => "group",
        }
    }

    /// The number it is stored under.
    #[must_use]
    pub const fn number(self) -> i64 {
        match self {
            Self::Direct => 1,
            Self::Group => 2,
        }
    }

    /// The kind stored under `number`.
    #[must_use]
    pub const fn from_number(number: i64) -> Option<Self> {
        match number {
            1 => Some(Self::Direct),
            2 => Some(Self::Group),
            _ => None,
        }
    }
}

/// What a member may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// One per group, as long as anybody is in it.
    Owner,
    /// Appointed by the owner.
    Admin,
    /// Everybody else, and both sides of a direct conversation.
    Member,
}

impl Role {
    /// The name that travels as `role`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Owner => "owner",
            Self::Admin => "admin",
            Self::Member => "member",
        }
    }

    /// The number it is stored under.
    #[must_use]
    pub const fn number(self) -> i64 {
        match self {
            Self::Owner => 1,
            Self::Admin => 2,
            Self::Member => 3,
        }
    }

    /// The role stored under `number`; an unknown one has the least rights.
    #[must_use]
    pub const fn from_number(number: i64) -> Self {
        match number {
            1 => Self::Owner,
            2 => Self::Admin,
            _ => Self::Member,
        }
    }
}

/// Whether the id belongs to the space of direct conversations, which nobody may name freely.
#[must_use]
pub fn is_direct_space(id: &str) -> bool {
    id.starts_with("dm_")
}

/// What a create request asks for, checked as far as that goes without a database.
#[derive(Debug, PartialEq, Eq)]
pub enum Plan<'a> {
    /// A conversation with one other user (or with oneself), by name.
    Direct {
        /// The other's user name.
        with: &'a str,
        /// The id the client expects, if it gave one.
        expected_id: Option<&'a str>,
    },
    /// A group.
    Group {
        /// The id asked for; `None`: the service chooses.
        id: Option<&'a str>,
        /// Display name; may be empty.
        name: &'a str,
        /// User names besides the creator's.
        members: &'a [String],
    },
}

/// Reads a create request of the user named `caller`, who may or may not be among the members it names.
pub fn plan<'a>(request: &'a CreateConversation, caller: &str) -> Result<Plan<'a>, Reject> {
    const BAD: fn(&'static str) -> Reject = |detail| Reject::new(ErrorCode::BadRequest, detail);
    if request.members.len() > CREATE_MEMBERS_MAX {
        return Err(Reject::new(
            ErrorCode::TooLarge,
            "a create request names at most 1000 members",
        ));
    }
    if request.name.len() > NAME_MAX_BYTES {
        return Err(Reject::new(ErrorCode::TooLarge, "name is longer than 256 bytes"));
    }
    if request.name.chars().any(char::is_control) {
        return Err(BAD("name must not hold control characters"));
    }
    let id = (!request.conversation_id.is_empty()).then_some(request.conversation_id.as_str());
    match (request.r#type.as_str(), request.members.as_slice()) {
        ("direct", [with]) => Ok(Plan::Direct { with, expected_id: id }),
        ("direct", [a, b]) if a == caller => Ok(Plan::Direct { with: b, expected_id: id }),
        ("direct", [a, b]) if b == caller => Ok(Plan::Direct { with: a, expected_id: id }),
        ("direct", _) => Err(BAD("a direct conversation names exactly one other user in members")),
        ("group", members) => {
            if let Some(id) = id {
                check_conversation_id(id).map_err(BAD)?;
                if is_direct_space(id) {
                    return Err(BAD("ids that begin with dm_ belong to direct conversations"));
                }
            }
            Ok(Plan::Group { id, name: &request.name, members })
        }
        _ => Err(BAD("type must be \"direct\" or \"group\"")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(kind: &str, id: &str, members: &[&str]) -> CreateConversation {
        CreateConversation {
            r#type: kind.into(),
            conversation_id: id.into(),
            members: members.iter().map(|&m| m.to_owned()).collect(),
            ..Default::default()
        }
    }

    #[test]
    fn numbers_read_back() {
        for kind in [Kind::Direct, Kind::Group] {
            assert_eq!(Kind::from_number(kind.number()), Some(kind));
        }
        for role in [Role::Owner, Role::Admin, Role::Member] {
            assert_eq!(Role::from_number(role.number()), role);
        }
        assert_eq!(Kind::from_number(7), None);
    }

    #[test]
    fn good_requests_make_plans() {
        assert_eq!(
            plan(&request("direct", "", &["bob"]), "me"),
            Ok(Plan::Direct { with: "bob", expected_id: None })
        );
        for both in [["bob", "me"], ["me", "bob"]] {
            assert_eq!(
                plan(&request("direct", "", &both), "me"),
                Ok(Plan::Direct { with: "bob", expected_id: None })
            );
        }
        let group = request("group", "group_101", &["bob", "eve"]);
        assert!(
            matches!(plan(&group, "me"), Ok(Plan::Group { id: Some("group_101"), name: "", members }) if members.len() == 2)
        );
        assert!(matches!(plan(&request("group", "", &[]), "me"), Ok(Plan::Group { id: None, .. })));
    }

    #[test]
    fn bad_requests_are_named() {
        let cases = [
            (request("", "", &[]), ErrorCode::BadRequest),
            (request("channel", "", &[]), ErrorCode::BadRequest),
            (request("direct", "", &[]), ErrorCode::BadRequest),
            (request("direct", "", &["a", "b"]), ErrorCode::BadRequest),
            (request("group", "dm_1_2", &[]), ErrorCode::BadRequest),
            (request("group", &"x".repeat(65), &[]), ErrorCode::BadRequest),
            (request("group", "a\u{7}", &[]), ErrorCode::BadRequest),
            (
                CreateConversation { name: "n".repeat(257), ..request("group", "", &[]) },
                ErrorCode::TooLarge,
            ),
            (
                CreateConversation { name: "a\nb".into(), ..request("group", "", &[]) },
                ErrorCode::BadRequest,
            ),
            (
                CreateConversation { members: vec!["m".into(); 1001], ..request("group", "", &[]) },
                ErrorCode::TooLarge,
            ),
        ];
        for (request, code) in cases {
            assert_eq!(plan(&request, "me").map_err(|r| r.code), Err(code), "{request:?}");
        }
    }
}
