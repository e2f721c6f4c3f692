//! Looks at the ClientHello of a connection and leaves it where it is.
//!
//! Called by the accept loop for sockets where one listener passes TLS through: the server name
//! says which listener takes the connection. The bytes are peeked (`MSG_PEEK`), so a handshake or a
//! backend reads them afterwards as if nobody had. A connection whose ClientHello cannot be read gets an alert.

use std::io;
use std::os::fd::AsRawFd as _;

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, Interest};
use tokio::net::TcpStream;
use tokio::time::timeout;

use dataplane_telemetry::reason::Reason;
use dataplane_tls::{Alert, ClientHello, HelloError, HelloReader};

use crate::worker::Worker;

/// Why there is no ClientHello, and what the client is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoHello {
    /// How the connection ends.
    pub reason: Reason,
    /// What is sent first.
    pub alert: Option<Alert>,
}

impl NoHello {
    fn gone() -> Self {
        Self {
            reason: Reason::ClientAborted,
            alert: None,
        }
    }
}

impl From<HelloError> for NoHello {
    fn from(error: HelloError) -> Self {
        Self {
            reason: Reason::BadClientHello,
            alert: error.alert(),
        }
    }
}

/// Waits for a whole ClientHello, within the deadline of the settings.
pub async fn peek(worker: &Worker, tcp: &TcpStream) -> Result<ClientHello, NoHello> {
    let wait = timeout(worker.settings.hello_timeout, look(worker, tcp));
    wait.await.unwrap_or(Err(NoHello {
        reason: Reason::HeadTimeout,
        alert: None,
    }))
}

async fn look(worker: &Worker, tcp: &TcpStream) -> Result<ClientHello, NoHello> {
    let mut reader = HelloReader::new(worker.settings.hello_bytes_max);
    let mut seen = 0;
    loop {
        let ready = tcp.ready(Interest::READABLE).await;
        let ready = ready.map_err(|_| NoHello::gone())?;
        let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
        {
            let mut scratch = worker.scratch();
            let window = scratch.len().min(worker.settings.hello_bytes_max);
            match recv(tcp.as_raw_fd(), &mut scratch[..window], flags) {
                Ok(0) => return Err(NoHello::gone()),
                Ok(here) if here > seen => {
                    seen = here;
                    if let Some(hello) = reader.read(&scratch[..here])? {
                        return Ok(hello);
                    }
                }
                Ok(_) | Err(Errno::EAGAIN | Errno::EINTR) => {}
                Err(_) => return Err(NoHello::gone()),
            }
        }
        if ready.is_read_closed() {
            return Err(NoHello::gone());
        }
        // What is there was seen; only what comes next shall wake us.
        let _ = tcp.try_io(Interest::READABLE, || {
            Err::<(), _>(io::ErrorKind::WouldBlock.into())
        });
    }
}

/// Sends an alert and closes, so that the client has a chance to read it: closing on bytes that
/// nobody read would reset the connection, and the alert with it.
pub async fn refuse(worker: &Worker, mut tcp: TcpStream, alert: Alert) {
    let settings = &worker.settings;
    let farewell = async {
        tcp.write_all(&alert.record()).await?;
        tcp.shutdown().await?;
        let mut dropped = [0; 1024];
        let mut bytes = 0;
        while bytes < settings.linger_bytes_max {
            match tcp.read(&mut dropped).await? {
                0 => break,
                read => bytes += read,
            }
        }
        io::Result::Ok(())
    };
    // A client that does not listen misses nothing.
    let _ = timeout(settings.linger_time, farewell).await;
}
