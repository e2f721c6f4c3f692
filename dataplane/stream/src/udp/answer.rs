//! The way back: what an endpoint sends goes to the client of its session, from the address that
//! client has spoken to.
//!
//! One task per session, which ends with it. It takes what its socket has, puts it before the
//! socket of the listener and wakes that one's task, which sends for all sessions at once.

use std::io;
use std::rc::Rc;

use tokio::io::{Interest, Ready};
use tokio::net::UdpSocket;
use tokio::task::yield_now;

use dataplane_telemetry::metrics::DatagramDrop;
use dataplane_upstream::Outcome;

use super::{BATCHES_MAX, Port, nothing_there};
use crate::batch::{self, BATCH};
use crate::udp_session::{Flow, Id};

/// What wakes a session: an ICMP error comes without anything to read.
const WATCHED: Interest = Interest::READABLE.add(Interest::ERROR);

/// An endpoint cannot be reached.
struct Unreachable;

/// What is to be done behind a batch.
enum Next {
    /// There may be more.
    Again,
    /// Nothing is left.
    Wait,
}

impl Port {
    /// Carries answers until the endpoint cannot be reached any more.
    pub(super) async fn answer(self: Rc<Self>, id: Id, flow: Flow, upstream: Rc<UdpSocket>) {
        while let Ok(ready) = upstream.ready(WATCHED).await {
            match self.take_ready(id, flow, &upstream, ready) {
                Ok(Next::Wait) => {}
                // Others have their turn.
                Ok(Next::Again) => yield_now().await,
                Err(Unreachable) => break,
            }
        }
        self.end_unreachable(id);
    }

    /// Takes what is there, at most a few batches.
    fn take_ready(
        &self,
        id: Id,
        flow: Flow,
        upstream: &UdpSocket,
        ready: Ready,
    ) -> Result<Next, Unreachable> {
        for _ in 0..BATCHES_MAX {
            match self.take_answers(id, flow, upstream) {
                Ok(BATCH) => {}
                // The kernel keeps an error that it met behind a datagram for the next call.
                Ok(1..) if ready.is_error() => {}
                Ok(_) => {
                    // One by one: of several at once tokio forgets none.
                    drop(upstream.try_io(Interest::READABLE, nothing_there));
                    drop(upstream.try_io(Interest::ERROR, nothing_there));
                    return Ok(Next::Wait);
                }
                // A router has asked for shorter packets; the kernel cuts the next ones.
                Err(error) if batch::is_too_long(&error) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Err(Unreachable),
            }
        }
        Ok(Next::Again)
    }

    /// Takes one batch; says how many datagrams there were.
    fn take_answers(&self, id: Id, flow: Flow, upstream: &UdpSocket) -> io::Result<usize> {
        let mut moving = self.worker.moving();
        let moving = &mut *moving;
        let socket = batch::descriptor(upstream);
        let arrived = match moving.headers.receive(socket, &mut moving.buffers) {
            Ok(arrived) => arrived,
            Err(error) if batch::would_block(&error) => return Ok(0),
            Err(error) => return Err(error),
        };
        let mut replies = self.replies.borrow_mut();
        let (mut datagrams, mut bytes, mut dropped) = (0, 0, 0);
        for (at, one) in arrived.iter().enumerate() {
            let datagram = moving.buffers.datagram(at, one);
            match replies.push(flow.client, flow.local, datagram) {
                Ok(()) => {
                    datagrams += 1;
                    bytes += one.length as u64;
                }
                Err(_) => dropped += 1,
            }
        }
        drop(replies);
        let mut sessions = self.sessions.borrow_mut();
        let is_first = sessions.answered(id, self.limits.now());
        if let Some(session) = sessions.load(id) {
            session.answered(datagrams, bytes);
            for _ in 0..dropped {
                session.story.metrics.datagram_dropped(DatagramDrop::Queue);
            }
        }
        drop(sessions);
        if is_first {
            self.report(id, Outcome::Success);
        }
        self.wake();
        Ok(arrived.len())
    }
}
