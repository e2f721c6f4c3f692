//! Datagrams on their way to clients: one queue for each socket, sent many at a time.
//!
//! Sessions put in what their endpoints have sent; the task of the socket sends all of it when it
//! has its turn next. What does not fit, because the kernel takes nothing for a while, is dropped
//! by whoever brings it.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;

use nix::sys::socket::SockaddrStorage;
use tokio::net::UdpSocket;

use crate::batch::{self, BATCH, Outgoing, Wildcard};
use crate::udp_session::Full;

/// Memory that is kept when nothing waits.
const BYTES_KEPT: usize = 64 * 1024;

/// What waits to be sent from one socket.
#[derive(Debug)]
pub(crate) struct Replies {
    outgoing: Outgoing,
    /// How many datagrams and bytes may wait.
    datagrams_max: usize,
    bytes_max: usize,
    bytes: Vec<u8>,
    waiting: VecDeque<Reply>,
    /// Of each one in `waiting`, in the form in which the kernel reads it.
    to: VecDeque<Option<SockaddrStorage>>,
}

#[derive(Debug)]
struct Reply {
    range: Range<usize>,
    local: Option<IpAddr>,
}

/// What sending has come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Flushed {
    /// Datagrams the kernel did not want for what they are.
    pub(crate) refused: u64,
    /// Something still waits, until the socket takes it.
    pub(crate) is_blocked: bool,
}

impl Replies {
    pub(crate) fn new(wildcard: Wildcard, datagrams_max: usize, bytes_max: usize) -> Self {
        Self {
            outgoing: Outgoing::new(wildcard),
            datagrams_max,
            bytes_max,
            bytes: Vec::new(),
            waiting: VecDeque::new(),
            to: VecDeque::new(),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Puts a datagram behind the others.
    pub(crate) fn push(
        &mut self,
        client: SocketAddr,
        local: Option<IpAddr>,
        datagram: &[u8],
    ) -> Result<(), Full> {
        let end = self.bytes.len() + datagram.len();
        // A datagram alone always has room.
        let is_full = self.waiting.len() >= self.datagrams_max;
        if is_full || (end > self.bytes_max && !self.is_empty()) {
            return Err(Full);
        }
        let range = self.bytes.len()..end;
        self.bytes.extend_from_slice(datagram);
        self.waiting.push_back(Reply { range, local });
        self.to.push_back(Some(client.into()));
        Ok(())
    }

    /// Sends what can be sent now.
    pub(crate) fn flush(&mut self, socket: &UdpSocket) -> Flushed {
        let mut flushed = Flushed::default();
        while let Some(first) = self.waiting.front() {
            match self.send(socket, first.local) {
                Ok(sent) => self.drop_first(sent.max(1)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if batch::would_block(&error) => {
                    flushed.is_blocked = true;
                    return flushed;
                }
                // Of the first one: the others are asked about in the next round.
                Err(_) => {
                    flushed.refused += 1;
                    self.drop_first(1);
                }
            }
        }
        self.bytes.clear();
        self.bytes.shrink_to(BYTES_KEPT);
        flushed
    }

    fn drop_first(&mut self, count: usize) {
        let count = count.min(self.waiting.len());
        self.waiting.drain(..count);
        self.to.drain(..count);
    }

    /// Sends those in front that come from the same address of ours.
    fn send(&mut self, socket: &UdpSocket, local: Option<IpAddr>) -> io::Result<usize> {
        let bytes = &self.bytes;
        let datagrams = self.waiting.iter().take(BATCH);
        let datagrams = datagrams.take_while(|reply| reply.local == local);
        let datagrams = datagrams.map(|reply| &bytes[reply.range.clone()]);
        let to = self.to.make_contiguous();
        let socket = batch::descriptor(socket);
        self.outgoing.send_to(socket, datagrams, to, local)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_datagrams_and_bytes_wait_as_the_limits_say() {
        let client = SocketAddr::from(([192, 0, 2, 1], 53));
        for (datagrams, bytes, taken) in [(3, 1000, 3), (10, 25, 2), (10, 1, 1)] {
            let wildcard = Wildcard::of(SocketAddr::from(([127, 0, 0, 1], 0)));
            let mut replies = Replies::new(wildcard, datagrams, bytes);
            let pushed = (0..5).filter(|_| replies.push(client, None, &[0; 10]).is_ok());
            assert_eq!(pushed.count(), taken, "{datagrams} {bytes}");
        }
    }
}
