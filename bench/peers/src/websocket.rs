//! The least of WebSocket that an echo needs: the upgrade, and a frame turned into its answer where
//! it lies.

use std::ops::Range;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use sha1_smol::Sha1;

/// The answer to an upgrade request.
///
/// # Errors
/// When it is no such request.
pub fn upgrade(request: &[u8]) -> Result<String, &'static str> {
    let request = str::from_utf8(request).map_err(|_| "a request is not UTF-8")?;
    let mut fields = request.lines().filter_map(|line| line.split_once(':'));
    let key = fields.find(|(name, _)| name.eq_ignore_ascii_case("sec-websocket-key"));
    let (_, key) = key.ok_or("a request without Sec-WebSocket-Key")?;
    let mut hash = Sha1::from(key.trim());
    hash.update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    let accept = BASE64_STANDARD.encode(hash.digest().bytes());
    Ok(format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\n\r\n"
    ))
}

/// Turns the frame at the start of `bytes` into its answer, in place: unmasked, the header moved
/// up to the payload by the four bytes of the key, a ping made a pong. Where the answer lies, empty
/// for a pong; its end is the frame's. Nothing when the frame is not complete yet.
///
/// # Errors
/// When it is not masked, as a client's frame must be.
pub fn answer_frame(bytes: &mut [u8]) -> Result<Option<Range<usize>>, &'static str> {
    let &mut [first, second, ..] = bytes else { return Ok(None) };
    if second & 0x80 == 0 {
        return Err("a frame without a mask");
    }
    let (header, length) = match second & 0x7F {
        126 => (4, bytes.get(2..4).map(|field| field.iter().fold(0, big_endian))),
        127 => (10, bytes.get(2..10).map(|field| field.iter().fold(0, big_endian))),
        short => (2, Some(usize::from(short))),
    };
    let end = length.map_or(usize::MAX, |length| length.saturating_add(header + 4));
    if bytes.len() < end {
        return Ok(None);
    }
    let key = u32::from_ne_bytes([0, 1, 2, 3].map(|at| bytes[header + at]));
    unmask(&mut bytes[header + 4..end], key);
    bytes.copy_within(..header, 4);
    bytes[5] = second & 0x7F;
    match first & 0xF {
        9 => bytes[4] = first + 1,
        10 => return Ok(Some(end..end)),
        _ => {}
    }
    Ok(Some(4..end))
}

fn big_endian(sum: usize, byte: &u8) -> usize {
    sum << 8 | usize::from(*byte)
}

fn unmask(payload: &mut [u8], key: u32) {
    let wide = u64::from(key) << 32 | u64::from(key);
    let (words, last) = payload.as_chunks_mut::<8>();
    for word in words {
        *word = (u64::from_ne_bytes(*word) ^ wide).to_ne_bytes();
    }
    last.iter_mut().zip(wide.to_ne_bytes()).for_each(|(byte, key)| *byte ^= key);
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: [u8; 4] = [7, 77, 177, 27];

    fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![first];
        match payload.len() {
            short @ ..126 => frame.push(0x80 | short as u8),
            medium @ ..0x1_0000 => frame.extend([0xFE, (medium >> 8) as u8, medium as u8]),
            long => {
                frame.push(0xFF);
                frame.extend((long as u64).to_be_bytes());
            }
        }
        frame.extend(KEY);
        frame.extend(payload.iter().zip(KEY.iter().cycle()).map(|(byte, key)| byte ^ key));
        frame
    }

    #[test]
    fn a_frame_of_any_length_comes_back_unmasked() {
        for length in [0, 1, 7, 8, 9, 125, 126, 512, 0xFFFF, 0x1_0000, 100_003] {
            let payload: Vec<u8> = (0..length).map(|at| (at * 31 + 7) as u8).collect();
            let mut bytes = masked(0x82, &payload);
            let header = bytes.len() - length - 4;
            let mut expected = bytes[..header].to_vec();
            expected[1] &= 0x7F;
            expected.extend(&payload);
            bytes.extend(b"the next frame");
            let answer = answer_frame(&mut bytes).unwrap().unwrap();
            assert!(bytes[answer.clone()] == expected, "{length}");
            assert_eq!(&bytes[answer.end..], b"the next frame");
        }
    }

    #[test]
    fn a_frame_cut_anywhere_is_waited_for_untouched() {
        for payload in [&[1; 5][..], &[2; 200], &[3; 0x1_0001]] {
            let whole = masked(0x81, payload);
            for cut in (0..30).chain([whole.len() - 1]).filter(|cut| *cut < whole.len()) {
                let mut bytes = whole[..cut].to_vec();
                assert_eq!(answer_frame(&mut bytes), Ok(None));
                assert!(bytes == whole[..cut]);
            }
        }
        assert_eq!(
            answer_frame(&mut [0x82, 0xFF, 255, 255, 255, 255, 255, 255, 255, 255]),
            Ok(None)
        );
    }

    #[test]
    fn control_frames_get_their_answers() {
        let mut ping = masked(0x89, b"hi");
        let answer = answer_frame(&mut ping).unwrap().unwrap();
        assert_eq!(&ping[answer], b"\x8A\x02hi");
        let mut pong = masked(0x8A, b"hi");
        assert_eq!(answer_frame(&mut pong), Ok(Some(8..8)));
        assert!(answer_frame(&mut [0x82, 0]).is_err());
    }

    #[test]
    fn the_upgrade_of_the_rfc() {
        let request = b"GET / HTTP/1.1\r\nHost: a\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==";
        let answer = upgrade(request).unwrap();
        assert!(answer.contains("Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"));
        assert!(upgrade(b"GET / HTTP/1.1\r\nHost: a").is_err());
    }
}
