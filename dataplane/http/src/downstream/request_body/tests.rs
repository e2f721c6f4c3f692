//! Bodies kept for another attempt or read ahead, over a pair of streams.

use futures_util::FutureExt as _;
use proptest::prelude::*;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::io::Io;

/// What is read from a body: all data in one piece, and the number of trailers.
#[derive(Debug, Default, PartialEq, Eq)]
struct Read {
    data: Vec<u8>,
    trailers: usize,
}

async fn pair() -> (TcpStream, Duplex) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).await;
    let (server, _) = listener.accept().await.unwrap();
    (client.unwrap(), Duplex::new(Io::Plain(server)))
}

/// A body whose bytes are all there, read over a real socket.
fn with_body(wire: &[u8], length: BodyLength, test: impl AsyncFnOnce(&mut RequestBody<'_>)) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let (mut client, io) = pair().await;
        let mut buf = BytesMut::from(wire);
        let mut body = RequestBody::http1(&io, &mut buf, length, &Settings::default());
        test(&mut body).await;
        client.shutdown().await.unwrap();
    });
}

/// Reads `bytes` bytes or more, or all.
async fn read(body: &mut RequestBody<'_>, bytes: usize) -> Read {
    let mut read = Read::default();
    while read.data.len() < bytes {
        match body.frame().await.unwrap() {
            Frame::Data(data) => read.data.extend_from_slice(&data),
            Frame::Trailers(_) => read.trailers += 1,
            Frame::End => break,
        }
    }
    read
}

fn chunked(pieces: &[Vec<u8>]) -> Vec<u8> {
    let mut wire = Vec::new();
    for piece in pieces.iter().filter(|piece| !piece.is_empty()) {
        wire.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
        wire.extend_from_slice(piece);
        wire.extend_from_slice(b"\r\n");
    }
    wire.extend_from_slice(b"0\r\nx-trailer: yes\r\n\r\n");
    wire
}

#[test]
fn a_body_that_nobody_keeps_is_started_by_its_first_frame() {
    with_body(b"hello", BodyLength::Length(5), async |body| {
        assert!(!body.is_started());
        assert_eq!(read(body, 1).await.data, b"hello");
        assert!(body.is_started() && body.memory.is_none());
    });
}

#[test]
fn a_body_without_bytes_costs_no_memory() {
    with_body(b"", BodyLength::None, async |body| {
        body.keep(1000);
        assert!(body.memory.is_none());
        assert_eq!(body.frame().await.unwrap(), Frame::End);
        assert!(!body.is_started());
    });
}

#[test]
fn what_was_read_ahead_is_handed_out_later() {
    // bytes asked for -> prefix, whole
    for (max, prefix, is_whole) in [
        (0, &b""[..], false),
        (3, b"hel", false),
        (5, b"hello", true),
        (9, b"hello", true),
    ] {
        with_body(b"hello", BodyLength::Length(5), async |body| {
            let read_ahead = body.read_ahead(max, || ()).await.unwrap();
            assert_eq!(
                (&read_ahead.bytes[..], read_ahead.is_whole),
                (prefix, is_whole)
            );
            assert!(!body.is_started());
            let again = body.read_ahead(max, || ()).await.unwrap();
            assert_eq!(again, read_ahead);
            body.keep(100);
            for _ in 0..2 {
                assert_eq!(read(body, usize::MAX).await.data, b"hello");
                assert_eq!(body.frame().await.unwrap(), Frame::End);
                assert!(!body.is_started());
                body.rewind();
            }
        });
    }
}

#[test]
fn the_limit_of_a_body_holds_for_what_is_read_ahead() {
    with_body(b"hello", BodyLength::Length(5), async |body| {
        body.limit(Some(4));
        assert!(matches!(
            body.read_ahead(3, || ()).await,
            Err(ClientError::TooLarge)
        ));
    });
}

#[test]
fn reading_ahead_waits_for_the_client_and_can_be_given_up() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let (mut client, io) = pair().await;
        let mut buf = BytesMut::from(&b"he"[..]);
        let length = BodyLength::Length(5);
        let mut body = RequestBody::http1(&io, &mut buf, length, &Settings::default());
        assert!(body.read_ahead(5, || ()).now_or_never().is_none());
        client.write_all(b"llo").await.unwrap();
        let prefix = body.read_ahead(5, || ()).await.unwrap();
        assert_eq!((&prefix.bytes[..], prefix.is_whole), (&b"hello"[..], true));
    });
}

#[test]
fn nothing_is_kept_once_it_is_forgotten() {
    with_body(b"hello", BodyLength::Length(5), async |body| {
        body.keep(100);
        let _ = body.read_ahead(2, || ()).await.unwrap();
        body.forget();
        assert!(!body.is_started(), "nothing was handed out");
        assert_eq!(read(body, usize::MAX).await.data, b"hello");
        assert!(body.is_started());
        body.forget();
        assert!(body.memory.is_none());
    });
}

proptest! {
    /// Whatever the pieces, the limit and the points at which attempts fail: every attempt sees the
    /// same bytes and the same trailers, or the body says that it cannot be sent again.
    #[test]
    fn every_attempt_sees_the_same_body(
        pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..20),
        keep_max in 1_usize..600,
        ahead in prop::option::of(0_usize..300),
        stops in prop::collection::vec(0_usize..900, 0..5),
    ) {
        let whole = pieces.concat();
        with_body(&chunked(&pieces), BodyLength::Chunked, async |body| {
            body.keep(keep_max);
            if let Some(bytes) = ahead {
                let prefix = body.read_ahead(bytes, || ()).await.unwrap();
                assert_eq!(prefix.bytes, whole[..bytes.min(whole.len())]);
                assert!(!prefix.is_whole || prefix.bytes == whole);
            }
            for stop in stops {
                let seen = read(body, stop).await.data;
                assert_eq!(seen, whole[..seen.len()]);
                assert_eq!(body.is_started(), seen.len() > keep_max, "{} of {keep_max}", seen.len());
                if body.is_started() {
                    let rest = read(body, usize::MAX).await;
                    assert_eq!(rest.data, whole[seen.len()..]);
                    return;
                }
                body.rewind();
            }
            let last = read(body, usize::MAX).await;
            assert_eq!((last.data, last.trailers), (whole, 1));
            assert!(body.is_done());
        });
    }
}

#[tokio::test]
async fn behind_a_body_only_what_follows_it_is_held() {
    for (wire, follows) in [(&b"body"[..], &b""[..]), (b"bodyGET", b"GET")] {
        let (_client, io) = pair().await;
        let mut buf = BytesMut::with_capacity(64 * 1024);
        buf.extend_from_slice(wire);
        let length = BodyLength::Length(4);
        let mut body = RequestBody::http1(&io, &mut buf, length, &Settings::default());
        let whole = read(&mut body, usize::MAX).await;
        assert_eq!(whole.data, b"body");
        assert_eq!(buf, follows);
        assert_eq!(buf.capacity() == 0, follows.is_empty());
    }
}
