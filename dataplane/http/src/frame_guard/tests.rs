//! Frames by hand: what passes, what is too many, and when a head is owed.

use super::*;

const PING: u8 = 6;
const SETTINGS: u8 = 4;

fn guard() -> FrameGuard {
    let limits = FrameLimits {
        control_max: 5,
        priority_per_stream_max: 3,
        window_updates_per_data_max: 2,
        empty_in_row_max: 4,
        empty_data_max: 6,
    };
    let mut guard = FrameGuard::new(limits, Instant::now());
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    guard.receive(preface, Instant::now).unwrap();
    assert!(!guard.owes_head());
    guard
}

fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags, 0, 0, 0, 1];
    frame.extend_from_slice(payload);
    frame
}

/// How many of these frames are let through, fed in pieces of that size.
fn passes(guard: &mut FrameGuard, frame: &[u8], piece: usize) -> usize {
    let now = Instant::now();
    for count in 0..1000 {
        for piece in frame.chunks(piece) {
            if guard.receive(piece, || now).is_err() {
                return count;
            }
        }
    }
    1000
}

#[test]
fn each_kind_has_its_limit_however_its_bytes_are_cut() {
    for piece in [1, 4, 9, 10, 64] {
        for (name, bytes, expected) in [
            ("ping", frame(PING, 0, &[0; 8]), 5),
            ("answered ping", frame(PING, 1, &[0; 8]), 5),
            ("settings", frame(SETTINGS, 0, &[]), 5),
            ("reset", frame(3, 0, &[0; 4]), 5),
            ("unknown", frame(77, 0, &[0; 40]), 5),
            ("priority", frame(PRIORITY, 0, &[0; 5]), 3),
            ("window", frame(WINDOW_UPDATE, 0, &[0, 0, 0, 1]), 2),
            ("data", frame(DATA, 0, b"x"), 1000),
            ("empty data", frame(DATA, 0, b""), 4),
            ("padding", frame(DATA, PADDED, &[3, 0, 0, 0]), 4),
            ("no padding", frame(DATA, PADDED, &[0]), 4),
            ("padded data", frame(DATA, PADDED, &[3, 1, 0, 0, 0]), 1000),
            ("empty ends", frame(DATA, END_STREAM, b""), 1000),
            ("empty parts", frame(CONTINUATION, 0, b""), 4),
            ("headers", frame(HEADERS, END_HEADERS, b"x"), 1000),
        ] {
            assert_eq!(
                passes(&mut guard(), &bytes, piece),
                expected,
                "{name} by {piece}"
            );
        }
    }
}

#[test]
fn requests_and_answers_earn_what_belongs_to_them() {
    let mut guard = guard();
    let now = Instant::now();
    for _ in 0..1000 {
        guard
            .receive(&frame(HEADERS, END_HEADERS, b"x"), || now)
            .unwrap();
        guard.receive(&frame(3, 0, &[0; 4]), || now).unwrap();
        guard
            .receive(&frame(WINDOW_UPDATE, 0, &[0; 4]), || now)
            .unwrap();
        guard.send(&frame(DATA, 0, b"hello"));
        guard.receive(&frame(PING, 0, &[0; 8]), || now).unwrap();
        guard
            .receive(&frame(WINDOW_UPDATE, 0, &[0; 4]), || now)
            .unwrap();
        guard.receive(&frame(PRIORITY, 0, &[0; 5]), || now).unwrap();
    }
}

#[test]
fn control_frames_are_forgiven_after_a_while() {
    let mut guard = guard();
    let began = Instant::now();
    let ping = frame(PING, 0, &[0; 8]);
    for round in 0..10 {
        let now = began + CONTROL_WINDOW * (round + 1);
        for _ in 0..5 {
            guard.receive(&ping, || now).unwrap();
        }
    }
    let now = began + CONTROL_WINDOW * 10;
    assert_eq!(guard.receive(&ping, || now), Err(Http2Limit::Control));
}

#[test]
fn a_head_is_owed_until_its_block_ends() {
    let mut guard = guard();
    let mut feed = |bytes: &[u8]| {
        guard.receive(bytes, Instant::now).unwrap();
        guard.owes_head()
    };
    let headers = frame(HEADERS, 0, b"abc");
    assert!(feed(&headers[..4]), "a part of a frame's head");
    assert!(feed(&headers[4..10]), "a part of the block");
    assert!(feed(&headers[10..]), "a block without an end");
    assert!(feed(&frame(CONTINUATION, 0, b"abc")), "still none");
    let last = frame(CONTINUATION, END_HEADERS, b"abc");
    assert!(feed(&last[..11]), "a part of the last");
    assert!(!feed(&last[11..]), "all of it");
    assert!(!feed(&frame(DATA, 0, b"abc")[..10]), "a body may be slow");
}
