//! The frame kinds.

use crate::role::Role;

/// Who may send a kind of frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// Client to server.
    FromClient,
    /// Server to client.
    FromServer,
    /// Either way.
    Both,
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $variant:ident = $byte:literal, $name:literal, $direction:ident;)*) => {
        /// What a frame is. The numbers are the low six bits of its first byte.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Kind { $($(#[$doc])* $variant = $byte,)* }

        impl Kind {
            /// Every kind, in the order of their numbers.
            pub const ALL: &'static [Kind] = &[$(Kind::$variant,)*];

            /// The kind with this number.
            #[must_use]
            pub const fn from_bits(bits: u8) -> Option<Self> {
                match bits { $($byte => Some(Self::$variant),)* _ => None }
            }

            /// The name in `PROTOCOL.md`.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// Who may send it.
            #[must_use]
            pub const fn direction(self) -> Direction {
                match self { $(Self::$variant => Direction::$direction,)* }
            }
        }
    };
}

kinds! {
    /// One byte without length or body.
    Heartbeat = 0x00, "HEARTBEAT", Both;
    /// Logs in; the first frame of a connection.
    Hello = 0x01, "HELLO", FromClient;
    /// Answers HELLO.
    Welcome = 0x02, "WELCOME", FromServer;
    /// One message into a conversation.
    Send = 0x03, "SEND", FromClient;
    /// Answers SEND: the message is stored.
    Ack = 0x04, "ACK", FromServer;
    /// One message of a conversation.
    Push = 0x05, "PUSH", FromServer;
    /// Asks for messages.
    Pull = 0x06, "PULL", FromClient;
    /// Answers PULL.
    Page = 0x07, "PAGE", FromServer;
    /// Asks for conversations.
    Sync = 0x08, "SYNC", FromClient;
    /// Answers SYNC.
    Conversations = 0x09, "CONVERSATIONS", FromServer;
    /// A request failed.
    Error = 0x0A, "ERROR", FromServer;
    /// Makes a conversation.
    CreateConversation = 0x0B, "CREATE_CONVERSATION", FromClient;
    /// Joins a group.
    Join = 0x0C, "JOIN", FromClient;
    /// Leaves a group.
    Leave = 0x0D, "LEAVE", FromClient;
    /// Answers CREATE_CONVERSATION, JOIN and LEAVE.
    Conversation = 0x0E, "CONVERSATION", FromServer;
    /// Asks for members.
    ListMembers = 0x0F, "LIST_MEMBERS", FromClient;
    /// Answers LIST_MEMBERS.
    Members = 0x10, "MEMBERS", FromServer;
    /// Something other than a message changed in a conversation.
    Event = 0x11, "EVENT", FromServer;
    /// Moves the user's read position.
    Read = 0x12, "READ", FromClient;
    /// Answers READ.
    ReadReply = 0x13, "READ_REPLY", FromServer;
    /// Pushes were left out; pull them.
    Lagged = 0x14, "LAGGED", FromServer;
    /// The server is about to close.
    Goaway = 0x15, "GOAWAY", FromServer;
    /// What happened in a conversation while the client was away.
    Resumed = 0x16, "RESUMED", FromServer;
    /// Asks which users are there.
    PresenceQuery = 0x17, "PRESENCE_QUERY", FromClient;
    /// Answers PRESENCE_QUERY.
    Presence = 0x18, "PRESENCE", FromServer;
    /// A user came or went.
    PresenceChange = 0x19, "PRESENCE_CHANGE", FromServer;
}

impl Kind {
    /// Most bytes of a body of this kind, whatever the caller's own limit: 8 KiB for HELLO (it comes
    /// before authentication), 64 KiB for the other kinds a client sends, 16 MiB for the server's.
    #[must_use]
    pub const fn max_body_bytes(self) -> usize {
        match (self, self.direction()) {
            (Self::Heartbeat, _) => 0,
            (Self::Hello, _) => 8 * 1024,
            (_, Direction::FromClient) => 64 * 1024,
            _ => 16 * 1024 * 1024,
        }
    }

    /// Whether a peer may send it to us in this role.
    #[must_use]
    pub const fn may_come_to(self, role: Role) -> bool {
        match self.direction() {
            Direction::Both => true,
            Direction::FromClient => matches!(role, Role::Server),
            Direction::FromServer => matches!(role, Role::Client),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_dense_and_read_back() {
        for (i, kind) in Kind::ALL.iter().enumerate() {
            assert_eq!(*kind as usize, i);
            assert_eq!(Kind::from_bits(i as u8), Some(*kind));
        }
        assert_eq!(Kind::from_bits(Kind::ALL.len() as u8), None);
    }
}
