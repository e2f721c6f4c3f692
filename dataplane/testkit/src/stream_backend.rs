//! Backends below HTTP: a TCP server that says its name and echoes, and the same over UDP.
//!
//! A TCP connection is greeted with the backend's name and a line feed, gets back every byte it
//! sends, and once it has ended its direction gets `bye` before the other one ends too. A datagram
//! is answered with the name, a colon and what it held.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::{AbortHandle, JoinSet};

/// A TCP or UDP server of one test; ends when it is dropped.
#[derive(Debug)]
pub struct StreamBackend {
    address: SocketAddr,
    task: AbortHandle,
    connections: Arc<AtomicUsize>,
    open: Arc<AtomicUsize>,
}

impl StreamBackend {
    /// Starts a TCP server.
    pub async fn tcp(name: &str) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .expect("loopback has a free port");
        let address = listener
            .local_addr()
            .expect("a bound socket has an address");
        let (connections, open) = <(Arc<AtomicUsize>, Arc<AtomicUsize>)>::default();
        let greeting: Arc<str> = format!("{name}\n").into();
        let counts = (connections.clone(), open.clone());
        let task = tokio::spawn(async move {
            let mut running = JoinSet::new();
            while let Ok((tcp, _)) = listener.accept().await {
                counts.0.fetch_add(1, Ordering::Relaxed);
                counts.1.fetch_add(1, Ordering::Relaxed);
                let (open, greeting) = (counts.1.clone(), greeting.clone());
                running.spawn(async move {
                    // A client that goes away is no fault of ours.
                    let _ = echo(tcp, &greeting).await;
                    open.fetch_sub(1, Ordering::Relaxed);
                });
                while running.try_join_next().is_some() {}
            }
        });
        Self {
            address,
            task: task.abort_handle(),
            connections,
            open,
        }
    }

    /// Starts a UDP server; it counts datagrams as connections.
    pub async fn udp(name: &str) -> Self {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .expect("loopback has a free port");
        let address = socket.local_addr().expect("a bound socket has an address");
        let connections = Arc::new(AtomicUsize::new(0));
        let (count, name) = (connections.clone(), format!("{name}:"));
        let task = tokio::spawn(async move {
            let mut buf = vec![0; 65_536];
            loop {
                let Ok((length, client)) = socket.recv_from(&mut buf).await else {
                    continue;
                };
                count.fetch_add(1, Ordering::Relaxed);
                // The longest datagram leaves no room for a name.
                let mut answer = name.clone().into_bytes();
                answer.extend_from_slice(&buf[..length]);
                answer.truncate(65_507);
                let _ = socket.send_to(&answer, client).await;
            }
        });
        Self {
            address,
            task: task.abort_handle(),
            connections,
            open: Arc::default(),
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Connections, or datagrams, taken so far.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// Connections that are open.
    pub fn open_connections(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }
}

impl Drop for StreamBackend {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn echo(mut tcp: TcpStream, greeting: &str) -> std::io::Result<()> {
    tcp.write_all(greeting.as_bytes()).await?;
    let mut buf = vec![0; 64 * 1024];
    loop {
        match tcp.read(&mut buf).await? {
            0 => break,
            read => tcp.write_all(&buf[..read]).await?,
        }
    }
    tcp.write_all(b"bye").await?;
    tcp.shutdown().await
}
