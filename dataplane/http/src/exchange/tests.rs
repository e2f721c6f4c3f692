//! What is held of a response on its way.

use futures_util::FutureExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};

use super::*;

#[tokio::test]
async fn while_a_body_pauses_no_buffer_is_held_for_it() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = TcpStream::connect(listener.local_addr().unwrap()).await;
    let (mut endpoint, (accepted, _)) = (endpoint.unwrap(), listener.accept().await.unwrap());
    let (io, settings) = (Duplex::new(Io::Plain(accepted)), Settings::default());
    let limits = &settings.response_head;
    let mut buf = BytesMut::with_capacity(64 * 1024);
    let mut receiver = Receiver::Http1 {
        io: &io,
        buf: &mut buf,
        decoder: BodyDecoder::new(BodyLength::Chunked, limits),
        method: Method::GET,
        limits,
        buffer_bytes: 64 * 1024,
        scan: 0,
        keep_alive: true,
    };
    for piece in ["one", "two"] {
        let chunk = format!("3\r\n{piece}\r\n");
        endpoint.write_all(chunk.as_bytes()).await.unwrap();
        let frame = receiver.frame().await;
        assert!(matches!(frame, Ok(Frame::Data(data)) if data == piece));
        assert!(receiver.frame().now_or_never().is_none());
        let Receiver::Http1 { buf, .. } = &receiver else {
            unreachable!("it is made above");
        };
        assert_eq!(buf.capacity(), 0);
    }
    endpoint.write_all(b"0\r\n\r\n").await.unwrap();
    assert!(matches!(receiver.frame().await, Ok(Frame::End)));
}
