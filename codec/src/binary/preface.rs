//! The preface of a raw TCP connection.

use super::Error;

/// What a client sends first on raw TCP: magic and version.
pub const PREFACE: [u8; Preface::LEN] = [b'C', b'R', b'L', b'N', Preface::VERSION];

/// The parts of the preface.
#[derive(Clone, Copy, Debug)]
pub struct Preface;

impl Preface {
    /// The magic bytes.
    pub const MAGIC: [u8; 4] = *b"CRLN";
    /// The version of the framing spoken here. Features within it are negotiated by mask in HELLO.
    pub const VERSION: u8 = 1;
    /// Bytes of the whole preface.
    pub const LEN: usize = 5;
}

/// Checks the preface at the front of `bytes`: `true` when it is complete ([`Preface::LEN`] bytes to
/// skip), `false` while it is a part of one.
///
/// # Errors
/// [`Error::BadMagic`] or [`Error::BadVersion`], on the first byte that differs.
pub fn read_preface(bytes: &[u8]) -> Result<bool, Error> {
    let n = bytes.len().min(Preface::MAGIC.len());
    if bytes[..n] != Preface::MAGIC[..n] {
        return Err(Error::BadMagic);
    }
    match bytes.get(Preface::MAGIC.len()) {
        None => Ok(false),
        Some(&Preface::VERSION) => Ok(true),
        Some(&version) => Err(Error::BadVersion(version)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_prefix_and_every_wrong_byte() {
        for n in 0..Preface::LEN {
            assert_eq!(read_preface(&PREFACE[..n]), Ok(false), "{n}");
            let mut wrong = PREFACE;
            wrong[n] ^= 0x20;
            let expected = if n < 4 { Error::BadMagic } else { Error::BadVersion(0x21) };
            assert_eq!(read_preface(&wrong[..=n]), Err(expected), "{n}");
        }
        assert_eq!(read_preface(b"CRLN\x01more"), Ok(true));
        assert_eq!(read_preface(b"CRLN\x02"), Err(Error::BadVersion(2)));
    }
}
