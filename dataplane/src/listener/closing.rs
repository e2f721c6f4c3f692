//! The end of a listening socket: whoever the kernel let in is still taken, nobody else is let in.
//!
//! Closing such a socket resets every connection that waits in it, also one that came after the last
//! look. So the kernel is first told, with a packet filter, to pass over whoever asks to connect; what
//! is under way meanwhile ends in a connection, and only then there is nothing to lose. A client that
//! was passed over asks again after a second (RFC 6298, 2.1) and is refused then, or is let in by
//! whoever listens there. Called by `accept`.

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::time::Duration;

use socket2::{SockFilter, SockRef};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep, timeout_at};
use tracing::debug;

/// How long clients that were answered by the kernel have to complete their connection.
const UNDER_WAY: Duration = Duration::from_millis(100);
/// How soon it is tried again to take one when that failed.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// Drops what asks for a new connection: SYN without ACK, in the 14th octet of the TCP header
/// (RFC 9293, 3.1). Everything else passes whole. The codes are those of `linux/filter.h`.
const NO_NEWCOMERS: [SockFilter; 5] = [
    SockFilter::new(LOAD_OCTET, 0, 0, 13),
    SockFilter::new(AND, 0, 0, SYN | ACK),
    SockFilter::new(IF_EQUAL, 0, 1, SYN),
    SockFilter::new(RETURN, 0, 0, 0),
    SockFilter::new(RETURN, 0, 0, u32::MAX),
];
const LOAD_OCTET: u16 = 0x30;
const AND: u16 = 0x54;
const IF_EQUAL: u16 = 0x15;
const RETURN: u16 = 0x06;
const SYN: u32 = 0x02;
const ACK: u32 = 0x10;

/// Hands over every connection there is, and closes the socket once there are no more.
pub(super) async fn close(listener: TcpListener, mut admit: impl FnMut(TcpStream, SocketAddr)) {
    match SockRef::from(&listener).attach_filter(&NO_NEWCOMERS) {
        Ok(()) => {
            let end = Instant::now() + UNDER_WAY;
            while let Ok(accepted) = timeout_at(end, listener.accept()).await {
                match accepted {
                    Ok((tcp, client)) => admit(tcp, client),
                    Err(error) if is_of_one_connection(&error) => {}
                    // Descriptors are missing, and some may become free in time.
                    Err(_) => sleep(LOOK_AGAIN).await,
                }
            }
        }
        // What comes between the last look and the end is lost then; there is no other way to know.
        Err(error) => debug!(%error, "the kernel takes no packet filter"),
    }
    // The kernel is asked itself, because the runtime would say what it knew at its last look.
    let Ok(listener) = listener.into_std() else {
        return;
    };
    while let Ok((tcp, client)) = accept_now(&listener) {
        admit(tcp, client);
    }
}

/// A connection that waits already; an error when there is none.
fn accept_now(listener: &StdListener) -> io::Result<(TcpStream, SocketAddr)> {
    loop {
        match listener.accept() {
            Ok((tcp, client)) => {
                tcp.set_nonblocking(true)?;
                return Ok((TcpStream::from_std(tcp)?, client));
            }
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => return Err(error),
        }
    }
}

/// Errors that `accept` reports for a connection that is gone again (accept(2)).
pub(super) fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;

    use super::*;

    #[tokio::test]
    async fn who_was_let_in_is_taken_and_nobody_else_is() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let waits = TcpStream::connect(address).await.unwrap();
        let mut taken = Vec::new();
        // The filter stands before the late one asks: closing is looked at first.
        let ((), late) = tokio::join!(
            biased;
            close(listener, |tcp, client| taken.push((tcp, client))),
            TcpStream::connect(address),
        );
        let clients: Vec<_> = taken.iter().map(|(_, client)| *client).collect();
        assert_eq!(clients, [waits.local_addr().unwrap()]);
        assert_eq!(late.unwrap_err().kind(), ErrorKind::ConnectionRefused);
    }
}
