//! What is allocated, counted: nothing for whole frames, and for incomplete ones never more than a small
//! multiple of the bytes that came.
//!
//! The counting allocator is this crate's one place with `unsafe`.

#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::hint::black_box;

use codec::binary;
use codec::ws::deflate::{Config, Deflater, Inflater, WindowBits};
use codec::ws::handshake::{self, Request, read_request};
use codec::ws::{
    self, Decoder, Event, Limits, Opcode, Role, encode_fragment, encode_frame_around,
    encode_frame_masked,
};

thread_local! {
    /// Allocations of this thread, and the bytes they asked for.
    static COUNT: Cell<(usize, usize)> = const { Cell::new((0, 0)) };
}

/// Counts for the thread that asks, so tests may run side by side.
struct Counting;

fn count(bytes: usize) {
    // The thread may be ending; its allocations are nobody's then.
    let _ = COUNT.try_with(|c| c.set((c.get().0 + 1, c.get().1 + bytes)));
}

// SAFETY: every call is passed on unchanged to the system's allocator, which keeps the contract;
// counting touches a thread-local without a destructor and allocates nothing itself.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: `pointer` came from `System` with this layout, as the caller promises.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        count(new_size);
        // SAFETY: `pointer` came from `System` with this layout, as the caller promises.
        unsafe { System.realloc(pointer, layout, new_size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Allocations and allocated bytes of one call.
fn allocated<T>(run: impl FnOnce() -> T) -> (usize, usize, T) {
    let (calls, bytes) = COUNT.get();
    let result = run();
    let (calls_after, bytes_after) = COUNT.get();
    (calls_after - calls, bytes_after - bytes, result)
}

const KEY: [u8; 4] = [7, 1, 200, 3];

#[test]
fn the_counter_counts() {
    let (calls, bytes, vec) = allocated(|| black_box(vec![0_u8; 1000]));
    assert_eq!((calls, bytes, vec.len()), (1, 1000, 1000));
}

#[test]
fn whole_websocket_frames_allocate_nothing() {
    let mut bytes = Vec::new();
    for len in [0, 1, 5, 125, 126, 4096, 65535, 65536] {
        encode_frame_masked(&mut bytes, Opcode::Text, "é".repeat(len / 2).as_bytes(), KEY);
        encode_frame_masked(&mut bytes, Opcode::Binary, &vec![1; len], KEY);
        encode_frame_masked(&mut bytes, Opcode::Ping, &vec![9; len.min(125)], KEY);
    }
    let (calls, _, events) = allocated(|| {
        let mut decoder = Decoder::new();
        let mut input = &mut bytes[..];
        let mut events = 0;
        while let Some(event) = decoder.next(&mut input, Role::Server, &Limits::DEFAULT).unwrap() {
            black_box(event);
            events += 1;
        }
        assert!(decoder.is_idle());
        events
    });
    assert_eq!((calls, events), (0, 24));
}

#[test]
fn a_frame_around_its_payload_allocates_nothing_where_there_is_room() {
    let mut out = Vec::with_capacity(1 << 18);
    for (len, expected_len) in [(20, 20), (5000, 300), (20, 300), (65_536, 65_536), (65_536, 300)] {
        let write = |out: &mut Vec<u8>| out.resize(out.len() + len, 7);
        let (calls, _, ()) =
            allocated(|| encode_frame_around(&mut out, Opcode::Binary, expected_len, write));
        assert_eq!(calls, 0, "{len} {expected_len}");
    }
}

#[test]
fn frames_behind_a_cut_header_allocate_for_the_header_only() {
    let mut bytes = Vec::new();
    encode_frame_masked(&mut bytes, Opcode::Binary, &[1; 5000], KEY);
    let (head, rest) = bytes.split_at_mut(6);
    let (calls, allocated, decoder) = allocated(|| {
        let mut decoder = Decoder::new();
        let mut input = head;
        assert_eq!(decoder.next(&mut input, Role::Server, &Limits::DEFAULT), Ok(None));
        let mut input = rest;
        let event = decoder.next(&mut input, Role::Server, &Limits::DEFAULT).unwrap();
        assert_eq!(event, Some(Event::Binary(&[1; 5000])));
        decoder
    });
    assert_eq!(calls, 1);
    // And what was allocated is gone as soon as the header is whole.
    assert_eq!(format!("{decoder:?}"), format!("{:?}", Decoder::new()));
    assert!(allocated < 256, "{allocated}");
}

#[test]
fn a_declared_length_allocates_nothing_of_it() {
    let limits = Limits { max_message_bytes: usize::MAX, ..Limits::DEFAULT };
    for opcode in [0x81, 0x82, 0x01, 0x02] {
        let mut bytes = *b"\x82\xff\x3f\xff\xff\xff\xff\xff\xff\xff\x00\x00\x00\x00abc";
        bytes[0] = opcode;
        let (calls, allocated, decoder) = allocated(|| {
            let mut decoder = Decoder::new();
            assert_eq!(decoder.next(&mut &mut bytes[..], Role::Server, &limits), Ok(None));
            decoder
        });
        assert!(calls <= 2 && allocated < 512, "{calls} {allocated}");
        assert!(!decoder.is_idle());
    }
    // Over the limit: refused on the header; what is kept is the mark that this is the end.
    let mut bytes = *b"\x82\xff\x40\0\0\0\0\0\0\0";
    let (calls, allocated, error) = allocated(|| {
        let mut decoder = Decoder::new();
        decoder.next(&mut &mut bytes[..], Role::Server, &Limits::DEFAULT).unwrap_err()
    });
    assert_eq!(error, ws::Error::MessageTooLong { limit: 65536 });
    assert!(calls <= 1 && allocated < 256, "{calls} {allocated}");
}

#[test]
fn single_bytes_cost_linear_memory() {
    for (opcode, fragment_len) in
        [(Opcode::Text, 60_000), (Opcode::Binary, 60_000), (Opcode::Text, 60)]
    {
        let mut bytes = Vec::new();
        let fragments = 60_000 / fragment_len;
        for i in 0..fragments {
            let opcode = if i == 0 { opcode } else { Opcode::Continuation };
            let payload = "é".repeat(fragment_len / 2);
            encode_fragment(&mut bytes, opcode, i + 1 == fragments, payload.as_bytes(), Some(KEY));
        }
        let (calls, allocated, events) = allocated(|| {
            let mut decoder = Decoder::new();
            let mut events = 0;
            for byte in bytes.chunks_mut(1) {
                let mut input = byte;
                let event = decoder.next(&mut input, Role::Server, &Limits::DEFAULT).unwrap();
                events += usize::from(event.is_some());
            }
            events
        });
        assert_eq!(events, 1);
        // Doubling: the sum of all capacities is below four times the message.
        assert!(calls < 16 && allocated < 4 * 60_000, "{opcode:?} {calls} {allocated}");
    }
}

#[test]
fn the_memory_of_a_message_is_freed_by_the_next_call() {
    let mut bytes = Vec::new();
    encode_frame_masked(&mut bytes, Opcode::Binary, &[1; 5000], KEY);
    let (first, second) = bytes.split_at_mut(100);
    let mut decoder = Decoder::new();
    let mut input = first;
    assert_eq!(decoder.next(&mut input, Role::Server, &Limits::DEFAULT), Ok(None));
    let mut input = second;
    assert!(decoder.next(&mut input, Role::Server, &Limits::DEFAULT).unwrap().is_some());
    assert_eq!(decoder.next(&mut input, Role::Server, &Limits::DEFAULT), Ok(None));
    assert_eq!(format!("{decoder:?}"), format!("{:?}", Decoder::new()));
}

/// Messages in compressed frames, from a server.
fn compressed(payloads: &[Vec<u8>]) -> Vec<u8> {
    let mut deflater = Deflater::new(&Config::DEFAULT);
    let mut bytes = Vec::new();
    for payload in payloads {
        deflater.encode(&mut bytes, Opcode::Binary, payload, WindowBits::Fifteen, None, None);
    }
    bytes
}

#[test]
fn whole_compressed_frames_allocate_nothing_once_there_is_a_buffer() {
    let payloads = vec![b"abcdefgh".repeat(1000); 20];
    let mut bytes = compressed(&payloads);
    let mut inflater = Inflater::new();
    let mut decoder = Decoder::new();
    let mut input = &mut bytes[..];
    let mut events = 0;
    for expected_calls in [None, Some(0)] {
        let (calls, _, ()) = allocated(|| {
            for _ in 0..10 {
                let event = decoder
                    .next_inflating(&mut input, Role::Client, &Limits::DEFAULT, &mut inflater, None)
                    .unwrap();
                assert_eq!(event, Some(Event::Binary(&payloads[0])));
                events += 1;
            }
        });
        assert!(expected_calls.is_none_or(|expected| expected == calls), "{calls}");
        // The connection itself holds nothing.
        assert_eq!(format!("{decoder:?}"), format!("{:?}", Decoder::new()));
    }
    assert_eq!(events, 20);
}

#[test]
fn a_bomb_allocates_no_more_than_the_limit() {
    let mut bytes = compressed(&[vec![0; 20_000_000]]);
    let limits = Limits { max_message_bytes: 50_000, ..Limits::DEFAULT };
    let mut inflater = Inflater::new();
    let (calls, allocated, error) = allocated(|| {
        let mut decoder = Decoder::new();
        let input = &mut &mut bytes[..];
        decoder.next_inflating(input, Role::Client, &limits, &mut inflater, None).unwrap_err()
    });
    assert_eq!(error, ws::Error::MessageTooLong { limit: 50_000 });
    // Doubling up to the limit, and the mark that this is the end.
    assert!(calls < 10 && allocated < 2 * 50_000 + 512, "{calls} {allocated}");
}

#[test]
fn whole_binary_frames_allocate_nothing() {
    let mut bytes = vec![0];
    for len in [1, 127, 128, 4096, 65536] {
        binary::encode(&mut bytes, binary::Kind::Send, &vec![1; len]);
    }
    let limits = binary::Limits::new(Role::Server);
    let (calls, _, frames) = allocated(|| {
        let mut decoder = binary::Decoder::new();
        let mut input = &bytes[..];
        let mut frames = 0;
        while let Some(frame) = decoder.next(&mut input, &limits).unwrap() {
            black_box(frame);
            frames += 1;
        }
        input = &bytes[..];
        while let Some(frame) = binary::next_in_message(&mut input, &limits).unwrap() {
            black_box(frame);
            frames += 1;
        }
        frames
    });
    assert_eq!((calls, frames), (0, 12));
}

#[test]
fn a_declared_body_allocates_nothing_of_it() {
    let limits = binary::Limits::new(Role::Client);
    let (calls, allocated, decoder) = allocated(|| {
        let mut decoder = binary::Decoder::new();
        let mut input = &b"\x07\x80\x80\x80\x08abc"[..];
        assert_eq!(decoder.next(&mut input, &limits), Ok(None));
        decoder
    });
    assert!(calls <= 2 && allocated < 512, "{calls} {allocated}");
    assert!(!decoder.is_idle());
}

#[test]
fn a_handshake_allocates_nothing() {
    let head = "GET /ws HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
        Sec-WebSocket-Protocol: a, b\r\n\r\n";
    let mut out = Vec::with_capacity(512);
    let (calls, _, ()) = allocated(|| {
        let limits = handshake::Limits::DEFAULT;
        let Ok(Request::Upgrade(upgrade)) = read_request(head.as_bytes(), &limits) else {
            panic!("refused");
        };
        upgrade.accept(upgrade.protocols().next(), &mut out);
    });
    assert_eq!(calls, 0);
    assert!(out.starts_with(b"HTTP/1.1 101 "));
}
