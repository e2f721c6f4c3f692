//! What answers in the place of Pods: one HTTP/1.1 server at every address of 198.18.0.0/15.
//!
//! Each answer is 200 with the address that was asked in `x-pod`. A Pod of its own has one address and
//! can be struck dead: its connections end and new ones are refused.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

/// The server of all addresses.
pub(crate) struct Pods {
    /// Where it listens, at all addresses.
    pub(crate) port: u16,
}

#[derive(Default)]
struct Shared {
    requests: Mutex<HashMap<IpAddr, u64>>,
}

impl Shared {
    fn requests(&self, address: Ipv4Addr) -> u64 {
        let requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        let address = IpAddr::V4(address);
        requests.get(&address).copied().unwrap_or_default()
    }
}

/// Address of the Pod of that number.
pub(crate) fn address(number: usize) -> Ipv4Addr {
    let first = u32::from(Ipv4Addr::new(198, 18, 0, 1));
    Ipv4Addr::from(first + u32::try_from(number).unwrap_or_default() % 0x1_0000)
}

impl Pods {
    /// Starts it.
    pub(crate) async fn start() -> anyhow::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).await?;
        let port = listener.local_addr()?.port();
        let shared = Arc::new(Shared::default());
        tokio::spawn(accept(listener, shared));
        Ok(Self { port })
    }
}

/// A Pod of its own.
pub(crate) struct Pod {
    pub(crate) address: Ipv4Addr,
    pub(crate) port: u16,
    shared: Arc<Shared>,
    server: JoinHandle<()>,
}

impl Pod {
    /// Starts it at a port that the server of all addresses has not.
    pub(crate) async fn start(address: Ipv4Addr) -> anyhow::Result<Self> {
        let listener = TcpListener::bind((address, 0)).await?;
        let port = listener.local_addr()?.port();
        let shared = Arc::new(Shared::default());
        let server = tokio::spawn(accept(listener, Arc::clone(&shared)));
        Ok(Self {
            address,
            port,
            shared,
            server,
        })
    }

    /// How many requests came to it.
    pub(crate) fn requests(&self) -> u64 {
        self.shared.requests(self.address)
    }

    /// Ends it, and every connection with it.
    pub(crate) async fn strike(&mut self) {
        self.server.abort();
        // It is gone once this returns, in whatever way.
        let _ = (&mut self.server).await;
    }

    /// Starts it again where it was.
    pub(crate) async fn revive(&mut self) -> anyhow::Result<()> {
        let socket = TcpSocket::new_v4()?;
        socket.set_reuseaddr(true)?;
        socket.bind(SocketAddr::from((self.address, self.port)))?;
        let listener = socket.listen(1024)?;
        self.server = tokio::spawn(accept(listener, Arc::clone(&self.shared)));
        Ok(())
    }
}

/// Serves until it is dropped, and every connection with it.
async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        connections.spawn(serve(stream, Arc::clone(&shared)));
    }
}

async fn serve(mut stream: TcpStream, shared: Arc<Shared>) {
    let Ok(own) = stream.local_addr() else { return };
    let answer = format!(
        "HTTP/1.1 200 OK\r\nx-pod: {}\r\ncontent-length: 2\r\n\r\nok",
        own.ip()
    );
    let mut buffer = vec![0; 4096];
    let mut held = 0;
    loop {
        let Ok(length @ 1..) = stream.read(&mut buffer[held..]).await else {
            return;
        };
        held += length;
        if !buffer[..held].ends_with(b"\r\n\r\n") {
            if held == buffer.len() {
                return;
            }
            continue;
        }
        held = 0;
        {
            let mut requests = shared
                .requests
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            *requests.entry(own.ip()).or_default() += 1;
        }
        if stream.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}
