//! Cases as bytes: a few leading bytes that steer, then the bytes under test as they are. So a
//! mutation of the input is mostly a mutation of what is under test.

use codec::Role;

/// Takes what steers a case off the front of an input. Missing bytes are zero.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'d>(&'d [u8]);

impl<'d> Reader<'d> {
    /// At the front of `data`.
    #[must_use]
    pub fn new(data: &'d [u8]) -> Self {
        Self(data)
    }

    /// Nothing is left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// One byte.
    pub fn byte(&mut self) -> u8 {
        let Some((&first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        first
    }

    /// Two bytes, the low one first.
    pub fn short(&mut self) -> u16 {
        u16::from_le_bytes([self.byte(), self.byte()])
    }

    /// Four bytes, the low ones first.
    pub fn long(&mut self) -> u32 {
        u32::from(self.short()) | u32::from(self.short()) << 16
    }

    /// At most `len` bytes.
    pub fn take(&mut self, len: usize) -> &'d [u8] {
        let (front, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        front
    }

    /// All that is left.
    pub fn rest(&mut self) -> &'d [u8] {
        std::mem::take(&mut self.0)
    }

    /// One of a table.
    pub fn pick<'t, T>(&mut self, table: &'t [T]) -> &'t T {
        &table[usize::from(self.byte()) % table.len()]
    }
}

/// Places at which a stream is cut; at most [`Cuts::MAX`] of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cuts(pub Vec<u16>);

impl Cuts {
    /// Most places read from an input.
    pub const MAX: usize = 8;

    /// Reads a number of places, then the places.
    pub fn read(reader: &mut Reader<'_>) -> Self {
        let count = usize::from(reader.byte()) % (Self::MAX + 1);
        Self((0..count).map(|_| reader.short()).collect())
    }

    /// Writes what [`Cuts::read`] reads.
    pub fn write(&self, out: &mut Vec<u8>) {
        let places = &self.0[..self.0.len().min(Self::MAX)];
        out.push(places.len() as u8);
        out.extend(places.iter().flat_map(|place| place.to_le_bytes()));
    }

    /// `bytes` cut at these places, taken modulo the length, in any order.
    #[must_use]
    pub fn pieces<'b>(&self, bytes: &'b [u8]) -> Vec<&'b [u8]> {
        let mut places: Vec<usize> =
            self.0.iter().map(|place| usize::from(*place) % (bytes.len() + 1)).collect();
        places.extend([0, bytes.len()]);
        places.sort_unstable();
        places.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect()
    }
}

/// One stream of bytes for a decoder, with one of `LIMITS` sets of limits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stream<const LIMITS: usize> {
    /// Our side.
    pub role: Role,
    /// Which of the sets, from 0.
    pub limits: usize,
    /// Where the stream is cut.
    pub cuts: Cuts,
    /// The stream.
    pub bytes: Vec<u8>,
}

impl<const LIMITS: usize> Stream<LIMITS> {
    /// Reads a case from any bytes.
    #[must_use]
    pub fn read(data: &[u8]) -> Self {
        let mut reader = Reader::new(data);
        let first = usize::from(reader.byte());
        let role = if first & 1 == 0 { Role::Server } else { Role::Client };
        let cuts = Cuts::read(&mut reader);
        Self { role, limits: (first >> 1) % LIMITS, cuts, bytes: reader.rest().to_vec() }
    }

    /// Writes what [`Stream::read`] reads.
    #[must_use]
    pub fn write(&self) -> Vec<u8> {
        let mut out = vec![(self.limits << 1) as u8 | u8::from(self.role == Role::Client)];
        self.cuts.write(&mut out);
        out.extend_from_slice(&self.bytes);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cuts_read_back_and_pieces_are_the_whole() {
        let cuts = Cuts(vec![7, 3, 500]);
        let mut bytes = Vec::new();
        cuts.write(&mut bytes);
        assert_eq!(Cuts::read(&mut Reader::new(&bytes)), cuts);
        let whole: Vec<u8> = (0..10).collect();
        let pieces = cuts.pieces(&whole);
        assert_eq!(pieces.len(), 4);
        assert_eq!(pieces.concat(), whole);
        assert_eq!(Cuts(vec![9]).pieces(&[]), [b"", b""]);
    }

    #[test]
    fn an_input_that_is_too_short_reads_as_zeros() {
        let mut reader = Reader::new(&[1, 2]);
        assert_eq!((reader.long(), reader.byte(), reader.take(5).len()), (0x0201, 0, 0));
        assert!(reader.is_empty());
    }
}
