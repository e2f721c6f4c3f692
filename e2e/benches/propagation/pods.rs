//! What answers in the place of Pods: one HTTP/1.1 server at every address of 198.18.0.0/15.
//!
//! Each answer is 200 with the address that was asked in `x-pod`. An address can be struck dead: its
//! connections are closed and new ones with them.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// The server.
pub(crate) struct Pods {
    shared: Arc<Shared>,
    /// Where it listens, at all addresses.
    pub(crate) port: u16,
}

struct Shared {
    requests: Mutex<HashMap<IpAddr, u64>>,
    dead: watch::Sender<HashSet<IpAddr>>,
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
        let shared = Arc::new(Shared {
            requests: Mutex::default(),
            dead: watch::Sender::default(),
        });
        let server = Arc::clone(&shared);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&server)));
            }
        });
        Ok(Self { shared, port })
    }

    /// How many requests came to an address.
    pub(crate) fn requests(&self, address: Ipv4Addr) -> u64 {
        let requests = self.shared.requests.lock();
        let requests = requests.unwrap_or_else(PoisonError::into_inner);
        requests
            .get(&IpAddr::V4(address))
            .copied()
            .unwrap_or_default()
    }

    /// From now on an address answers nothing, or again.
    pub(crate) fn strike(&self, address: Ipv4Addr, is_dead: bool) {
        self.shared.dead.send_modify(|dead| {
            if is_dead {
                dead.insert(IpAddr::V4(address));
            } else {
                dead.remove(&IpAddr::V4(address));
            }
        });
    }
}

async fn serve(mut stream: TcpStream, shared: Arc<Shared>) {
    let Ok(own) = stream.local_addr() else { return };
    let mut dead = shared.dead.subscribe();
    let answer = format!(
        "HTTP/1.1 200 OK\r\nx-pod: {}\r\ncontent-length: 2\r\n\r\nok",
        own.ip()
    );
    let mut buffer = vec![0; 4096];
    let mut held = 0;
    loop {
        let read = tokio::select! {
            read = stream.read(&mut buffer[held..]) => read,
            struck = dead.wait_for(|dead| dead.contains(&own.ip())) => {
                drop(struck);
                return;
            }
        };
        let Ok(length @ 1..) = read else { return };
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
