//! The way back: what an endpoint sends goes to the client of its session, from the address that
//! client has spoken to.
//!
//! One task per session, which ends with it. It takes what its socket has, puts it before the
//! socket of the listener and wakes that one's task, which sends for all sessions at once.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::io::Interest;
use tokio::net::UdpSocket;

use dataplane_telemetry::metrics::DatagramDrop;
use dataplane_upstream::Outcome;

use super::{BATCHES_MAX, Port, nothing_there};
use crate::batch::{self, BATCH};
use crate::udp_session::{Flow, Id};

/// An endpoint cannot be reached.
struct Unreachable;

impl Port {
    /// Carries answers until the endpoint cannot be reached any more.
    pub(super) async fn answer(self: Rc<Self>, id: Id, flow: Flow, upstream: Rc<UdpSocket>) {
        let Unreachable = poll_fn(|cx| self.poll_answers(cx, id, flow, &upstream)).await;
        self.end_unreachable(id);
    }

    fn poll_answers(
        &self,
        cx: &mut Context<'_>,
        id: Id,
        flow: Flow,
        upstream: &UdpSocket,
    ) -> Poll<Unreachable> {
        for _ in 0..BATCHES_MAX {
            if ready!(upstream.poll_recv_ready(cx)).is_err() {
                return Poll::Ready(Unreachable);
            }
            match self.take_answers(id, flow, upstream) {
                Ok(BATCH) => {}
                Ok(_) => drop(upstream.try_io(Interest::READABLE, nothing_there)),
                Err(Unreachable) => return Poll::Ready(Unreachable),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Takes one batch; says how many datagrams there were.
    fn take_answers(&self, id: Id, flow: Flow, upstream: &UdpSocket) -> Result<usize, Unreachable> {
        let mut moving = self.worker.moving();
        let moving = &mut *moving;
        let socket = batch::descriptor(upstream);
        let arrived = match moving.headers.receive(socket, &mut moving.buffers) {
            Ok(arrived) => arrived,
            Err(error) if batch::would_block(&error) => return Ok(0),
            Err(_) => return Err(Unreachable),
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
