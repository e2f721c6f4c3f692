//! One request on its way through one plugin: its hooks, and what their answers mean.
//!
//! Request and response may be under way at once, so both share the stream. A hook hands the message to the
//! instance, calls the guest, waits while the guest holds the message back, and takes it back. What becomes
//! of a request whose plugin fails is decided here, by the plugin's failure policy.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tokio::time::timeout;

use dataplane_telemetry::metrics::PluginFailure;

use crate::facts::Facts;
use crate::head::Head;
use crate::host::{Body, LocalResponse, StreamContext};
use crate::instance::{Broken, Instances, Slot, Vm};
use crate::plugin::Plugin;
use crate::settings::OnFailure;

/// Which message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// The client's.
    Request,
    /// The backend's.
    Response,
}

/// What a plugin says of a head.
#[derive(Debug)]
pub enum Verdict {
    /// On it goes, maybe changed.
    Continue,
    /// The client gets this instead.
    Respond(LocalResponse),
}

/// What a plugin says of a part of a body.
#[derive(Debug)]
pub enum Piece {
    /// This goes on; it may be empty.
    Pass(Bytes),
    /// The plugin wants to see more first.
    Held,
    /// The client gets this instead.
    Respond(LocalResponse),
}

/// A request that a plugin whose policy is to close could not serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failed {
    /// Its instance broke.
    Trapped,
    /// There is no instance, and none may be made at this moment.
    Unavailable,
    /// It holds more of a body back than may be held.
    TooLarge,
}

/// One request in one plugin.
pub struct Stream {
    slot: Rc<Slot>,
    facts: Rc<dyn Facts>,
    opened: RefCell<Option<(Rc<Vm>, u32)>>,
    /// The plugin failed and the request goes on without it.
    is_over: Cell<bool>,
}

impl std::fmt::Debug for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stream")
            .field("plugin", &self.slot.plugin.name())
            .finish_non_exhaustive()
    }
}

type Opened = (Rc<Vm>, u32);

impl Stream {
    /// A request that has not met the plugin yet.
    pub fn new(instances: &Instances, plugin: &Arc<Plugin>, facts: Rc<dyn Facts>) -> Self {
        Self {
            slot: instances.slot(plugin),
            facts,
            opened: RefCell::default(),
            is_over: Cell::new(false),
        }
    }

    /// The plugin.
    pub fn plugin(&self) -> &Arc<Plugin> {
        &self.slot.plugin
    }

    /// The head of a message; `ends` says that nothing follows it.
    pub async fn head(
        &self,
        direction: Direction,
        head: &mut Head,
        ends: bool,
    ) -> Result<Verdict, Failed> {
        let Some((vm, id)) = self.open()? else {
            return Ok(Verdict::Continue);
        };
        let at = direction as usize;
        if !vm.has[at].head {
            return Ok(Verdict::Continue);
        }
        let fields = u32::try_from(head.len()).unwrap_or(u32::MAX);
        vm.stream(id, |stream| {
            *stream.head(direction) = Some(std::mem::take(head));
            *stream.resumed(direction) = false;
        });
        let said = vm.on_head(id, at, fields, ends);
        // 2 is to go on and end the stream at once, which nobody does to a head alone.
        let said = said.map(|action| !matches!(action, 0 | 2));
        let settled = self.settled(&vm, id, direction, said).await;
        if let Some(held) = vm
            .stream(id, |stream| stream.head(direction).take())
            .flatten()
        {
            if self.rereads(direction) {
                vm.passed(id, at, &held);
            }
            *head = held;
        }
        self.verdict(settled)
    }

    /// A part of a body; `ends` says that it is the last, and nothing follows.
    pub async fn body(
        &self,
        direction: Direction,
        piece: Bytes,
        ends: bool,
    ) -> Result<Piece, Failed> {
        let Some((vm, id)) = self.open()? else {
            return Ok(Piece::Pass(joined(self.rest(direction), piece)));
        };
        let at = direction as usize;
        if !vm.has[at].body {
            return Ok(Piece::Pass(piece));
        }
        let bytes_max = self.slot.plugin.settings.limits.body_bytes;
        let added = vm.stream(id, |stream| {
            // What was held back and let go meanwhile is not shown again.
            let is_resumed = std::mem::take(stream.resumed(direction));
            let body = stream.body(direction);
            let free = match is_resumed {
                true => std::mem::take(&mut body.bytes),
                false => Bytes::new(),
            };
            body.append(piece, bytes_max)?;
            body.is_open = true;
            Ok((free, u32::try_from(body.bytes.len()).unwrap_or(u32::MAX)))
        });
        let (free, bytes) = match added {
            Some(Ok(added)) => added,
            Some(Err(piece)) => return self.too_large(direction, piece),
            None => return self.failed(Failed::Trapped).map(|()| Piece::Held),
        };
        let said = vm.on_body(id, at, bytes, ends);
        vm.stream(id, |stream| stream.body(direction).is_open = false);
        let is_local = vm.stream(id, |stream| stream.local.is_some()) == Some(true);
        if let Ok(action @ 1..) = said
            && !ends
            && !is_local
        {
            let held = vm.stream(id, |stream| {
                let body = stream.body(direction);
                if action == 3 {
                    body.bytes = Bytes::new();
                }
                body.bytes.len()
            });
            if held.unwrap_or(0) > bytes_max {
                return self.too_large(direction, Bytes::new());
            }
            return Ok(match free.is_empty() {
                true => Piece::Held,
                false => Piece::Pass(free),
            });
        }
        let settled = self
            .settled(&vm, id, direction, said.map(|action| action != 0))
            .await;
        let rest = take_body(&vm, id, direction);
        Ok(match self.verdict(settled)? {
            Verdict::Continue => Piece::Pass(joined(free, rest)),
            Verdict::Respond(local) => Piece::Respond(local),
        })
    }

    /// The trailers behind a body. What passes is the rest of the body, which goes before them.
    pub async fn trailers(
        &self,
        direction: Direction,
        trailers: &mut Head,
    ) -> Result<Piece, Failed> {
        let Some((vm, id)) = self.open()? else {
            return Ok(Piece::Pass(self.rest(direction)));
        };
        let at = direction as usize;
        let said = match vm.has[at].trailers {
            true => {
                let fields = u32::try_from(trailers.len()).unwrap_or(u32::MAX);
                vm.stream(id, |stream| {
                    *stream.trailers(direction) = Some(std::mem::take(trailers));
                    *stream.resumed(direction) = false;
                    stream.body(direction).is_open = true;
                });
                let said = vm.on_trailers(id, at, fields);
                vm.stream(id, |stream| stream.body(direction).is_open = false);
                said.map(|action| action != 0)
            }
            false => Ok(false),
        };
        let settled = self.settled(&vm, id, direction, said).await;
        let held = vm.stream(id, |stream| {
            let held = stream.trailers(direction).take();
            if vm.has_end {
                let kept = held.clone().map(Head::unshared);
                stream.sent_trailers[at] = kept.map(Rc::new);
            }
            held
        });
        if let Some(held) = held.flatten() {
            *trailers = held;
        }
        let rest = take_body(&vm, id, direction);
        Ok(match self.verdict(settled)? {
            Verdict::Continue => Piece::Pass(rest),
            Verdict::Respond(local) => Piece::Respond(local),
        })
    }

    /// True while the plugin holds a part of a body back.
    pub fn holds(&self, direction: Direction) -> bool {
        let opened = self.opened.borrow();
        let is_held = |stream: &mut StreamContext| !stream.body(direction).bytes.is_empty();
        let holds = |(vm, id): &Opened| vm.stream(*id, is_held) == Some(true);
        !self.is_over.get() && opened.as_ref().is_some_and(holds)
    }

    /// Waits until the plugin lets go of what it [`holds`](Self::holds), without being shown more of the
    /// body. May be dropped at any time.
    pub async fn let_go(&self, direction: Direction) -> Result<Piece, Failed> {
        let Some((vm, id)) = self.open()? else {
            return Ok(Piece::Pass(self.rest(direction)));
        };
        let settled = self.let_through(&vm, id, direction, true).await;
        let rest = take_body(&vm, id, direction);
        Ok(match self.verdict(settled)? {
            Verdict::Continue => Piece::Pass(rest),
            Verdict::Respond(local) => Piece::Respond(local),
        })
    }

    /// True when some callback wants bodies of that direction; known once the stream was opened.
    pub fn wants_body(&self, direction: Direction) -> bool {
        let opened = self.opened.borrow();
        let at = direction as usize;
        let wants = |(vm, _): &Opened| vm.has[at].body || vm.has[at].trailers;
        !self.is_over.get() && opened.as_ref().is_some_and(wants)
    }

    /// True when the plugin has callbacks for responses; known once the stream was opened.
    pub fn wants_response(&self) -> bool {
        let opened = self.opened.borrow();
        let at = Direction::Response as usize;
        let wants = |(vm, _): &Opened| vm.has[at].head || vm.has[at].body || vm.has[at].trailers;
        !self.is_over.get() && opened.as_ref().is_some_and(wants)
    }

    /// True when the plugin has callbacks behind that head, in which it may ask for it; known once the
    /// stream was opened.
    pub fn rereads(&self, direction: Direction) -> bool {
        let opened = self.opened.borrow();
        let rereads = |(vm, _): &Opened| {
            let own = vm.has[direction as usize];
            let is_answered = direction == Direction::Request && self.wants_response();
            vm.has_end || own.body || own.trailers || is_answered
        };
        !self.is_over.get() && opened.as_ref().is_some_and(rereads)
    }

    /// Shows the plugin a head as it was sent on, to be read from now on.
    pub fn sent(&self, direction: Direction, head: &Rc<Head>) {
        if let Some((vm, id)) = &*self.opened.borrow() {
            let at = direction as usize;
            vm.stream(*id, |stream| stream.sent[at] = Some(head.clone()));
        }
    }

    /// True when the plugin is called at the end of the request; known once the stream was opened.
    pub fn sees_end(&self) -> bool {
        let opened = self.opened.borrow();
        !self.is_over.get() && opened.as_ref().is_some_and(|(vm, _)| vm.has_end)
    }

    /// Shows the plugin the trailers of the response as they were sent on, to be read from now on.
    pub fn sent_trailers(&self, trailers: &Rc<Head>) {
        if let Some((vm, id)) = &*self.opened.borrow() {
            let at = Direction::Response as usize;
            vm.stream(*id, |stream| {
                stream.sent_trailers[at] = Some(trailers.clone());
            });
        }
    }

    /// The stream's place in an instance; nothing when the request goes on without the plugin.
    fn open(&self) -> Result<Option<Opened>, Failed> {
        if self.is_over.get() {
            return Ok(None);
        }
        if let Some((vm, id)) = &*self.opened.borrow() {
            if vm.is_broken() {
                return self.failed(Failed::Trapped).map(|()| None);
            }
            return Ok(Some((vm.clone(), *id)));
        }
        let metrics = &self.slot.plugin.shared.metrics;
        metrics.requests.increment();
        let Some(vm) = self.slot.instance() else {
            metrics.failed(PluginFailure::Unavailable);
            return self.failed(Failed::Unavailable).map(|()| None);
        };
        match vm.open(self.facts.clone()) {
            Ok(Some(id)) => {
                *self.opened.borrow_mut() = Some((vm.clone(), id));
                Ok(Some((vm, id)))
            }
            Ok(None) => {
                metrics.failed(PluginFailure::Unavailable);
                self.failed(Failed::Unavailable).map(|()| None)
            }
            Err(Broken) => self.failed(Failed::Trapped).map(|()| None),
        }
    }

    /// What the plugin held back before it failed.
    fn rest(&self, direction: Direction) -> Bytes {
        let opened = self.opened.borrow();
        let held = opened
            .as_ref()
            .map(|(vm, id)| take_body(vm, *id, direction));
        held.unwrap_or_default()
    }

    /// Whether the request goes on all the same.
    fn failed(&self, failed: Failed) -> Result<(), Failed> {
        self.is_over.set(true);
        match self.slot.plugin.settings.on_failure {
            OnFailure::Open => Ok(()),
            OnFailure::Closed => Err(failed),
        }
    }

    /// What is held, and the piece that is too much, pass by a plugin whose policy is to be open.
    fn too_large(&self, direction: Direction, piece: Bytes) -> Result<Piece, Failed> {
        self.slot.plugin.shared.metrics.failed(PluginFailure::Hold);
        self.failed(Failed::TooLarge)?;
        Ok(Piece::Pass(joined(self.rest(direction), piece)))
    }

    fn verdict(&self, settled: Result<Option<LocalResponse>, Failed>) -> Result<Verdict, Failed> {
        match settled {
            Ok(None) => Ok(Verdict::Continue),
            Ok(Some(local)) => {
                self.slot.plugin.shared.metrics.replies.increment();
                Ok(Verdict::Respond(local))
            }
            Err(failed) => self.failed(failed).map(|()| Verdict::Continue),
        }
    }

    /// Waits while the guest holds the message back, which it may for some time.
    async fn settled(
        &self,
        vm: &Rc<Vm>,
        id: u32,
        direction: Direction,
        is_held: Result<bool, Broken>,
    ) -> Result<Option<LocalResponse>, Failed> {
        let is_held = is_held.map_err(|Broken| Failed::Trapped)?;
        let waiting = self.let_through(vm, id, direction, is_held);
        if !is_held {
            return waiting.await;
        }
        let limit = self.slot.plugin.settings.limits.pause;
        timeout(limit, waiting).await.unwrap_or_else(|_| {
            self.slot.plugin.shared.metrics.failed(PluginFailure::Hold);
            Err(Failed::Trapped)
        })
    }

    /// Waits until the guest answers, or, where it holds the message back, lets it go.
    async fn let_through(
        &self,
        vm: &Rc<Vm>,
        id: u32,
        direction: Direction,
        is_held: bool,
    ) -> Result<Option<LocalResponse>, Failed> {
        loop {
            let state = vm.stream(id, |stream| {
                let is_free = !is_held || std::mem::take(stream.resumed(direction));
                let wake = stream.wake[direction as usize].clone();
                (stream.local.take(), is_free, wake)
            });
            match state {
                None => return Err(Failed::Trapped),
                Some((Some(local), ..)) => return Ok(Some(local)),
                Some((None, true, _)) => return Ok(None),
                Some((None, false, _)) if vm.is_broken() => return Err(Failed::Trapped),
                Some((None, false, wake)) => wake.notified().await,
            }
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if let Some((vm, id)) = self.opened.take() {
            vm.close(id);
        }
    }
}

impl StreamContext {
    fn head(&mut self, direction: Direction) -> &mut Option<Head> {
        match direction {
            Direction::Request => &mut self.request,
            Direction::Response => &mut self.response,
        }
    }

    fn trailers(&mut self, direction: Direction) -> &mut Option<Head> {
        match direction {
            Direction::Request => &mut self.request_trailers,
            Direction::Response => &mut self.response_trailers,
        }
    }

    fn body(&mut self, direction: Direction) -> &mut Body {
        match direction {
            Direction::Request => &mut self.request_body,
            Direction::Response => &mut self.response_body,
        }
    }

    fn resumed(&mut self, direction: Direction) -> &mut bool {
        match direction {
            Direction::Request => &mut self.resumed_request,
            Direction::Response => &mut self.resumed_response,
        }
    }
}

fn take_body(vm: &Rc<Vm>, id: u32, direction: Direction) -> Bytes {
    let taken = vm.stream(id, |stream| {
        std::mem::take(&mut stream.body(direction).bytes)
    });
    taken.unwrap_or_default()
}

fn joined(first: Bytes, second: Bytes) -> Bytes {
    if first.is_empty() {
        return second;
    }
    let mut all = BytesMut::from(first);
    all.extend_from_slice(&second);
    all.freeze()
}
