/// What a frame is (RFC 6455 section 5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Opcode {
    /// A further frame of a fragmented message.
    Continuation = 0x0,
    /// A text message, or its first frame.
    Text = 0x1,
    /// A binary message, or its first frame.
    Binary = 0x2,
    /// The closing handshake.
    Close = 0x8,
    /// Asks for a pong with the same payload.
    Ping = 0x9,
    /// Answers a ping, or stands alone.
    Pong = 0xA,
}

impl Opcode {
    /// The opcode of four bits; `None` where they are reserved.
    #[must_use]
    pub const fn from_bits(bits: u8) -> Option<Self> {
        Some(match bits {
            0x0 => Self::Continuation,
            0x1 => Self::Text,
            0x2 => Self::Binary,
            0x8 => Self::Close,
            0x9 => Self::Ping,
            0xA => Self::Pong,
            _ => return None,
        })
    }

    /// Close, ping or pong: never fragmented, at most 125 bytes, allowed between fragments.
    #[must_use]
    pub const fn is_control(self) -> bool {
        self as u8 & 0x8 != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_read_back_and_the_rest_is_reserved() {
        for bits in 0..=0xFF_u8 {
            match Opcode::from_bits(bits) {
                Some(opcode) => assert_eq!(opcode as u8, bits),
                None => assert!(matches!(bits, 0x3..=0x7 | 0xB..), "{bits}"),
            }
        }
        assert!(
            Opcode::Ping.is_control() && Opcode::Close.is_control() && Opcode::Pong.is_control()
        );
        assert!(!Opcode::Text.is_control() && !Opcode::Continuation.is_control());
    }
}
