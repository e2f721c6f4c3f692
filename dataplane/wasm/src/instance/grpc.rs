//! gRPC calls of an instance while they run: parts that come in are told to the guest one by one.
//!
//! A unary call is told of its message or of its failure, as SDKs expect; a stream of its head, each
//! message, its trailers and its end. What the guest lets go of ends at once.

use std::rc::Rc;

use tokio::sync::mpsc;
use tokio::task::spawn_local;

use crate::callout::{GrpcEnd, GrpcPart};
use crate::exports::{Exports, Fn3};
use crate::host::GrpcBegin;

use super::Vm;

/// Picks the callback for a part.
type Choose = fn(&Exports) -> Option<Fn3<()>>;

/// Parts of a call that wait for the guest.
const PARTS_MAX: usize = 4;
/// The status of a call that went wrong on this side.
const INTERNAL: u32 = 13;

impl Vm {
    /// Has a gRPC call carried out, and tells the guest what it brings.
    pub(super) fn begin_grpc(self: &Rc<Self>, begin: GrpcBegin) {
        let Some(callout) = &self.callout else {
            return;
        };
        let (sender, mut parts) = mpsc::channel(PARTS_MAX);
        let mut running = callout.grpc(begin.call, begin.messages, sender);
        let (number, mut gone) = (begin.number, begin.gone);
        let vm = Rc::downgrade(self);
        spawn_local(async move {
            let end = loop {
                tokio::select! {
                    biased;
                    _ = &mut gone => return,
                    Some(part) = parts.recv() => {
                        let Some(vm) = vm.upgrade() else { return };
                        vm.grpc_came(number, part);
                    }
                    end = &mut running => break end,
                }
            };
            while let (Ok(part), Some(vm)) = (parts.try_recv(), vm.upgrade()) {
                vm.grpc_came(number, part);
            }
            if let Some(vm) = vm.upgrade() {
                vm.grpc_ended(number, end);
            }
        });
    }

    /// Tells the guest of a part of a gRPC call; of a unary one it waits for the end.
    fn grpc_came(self: &Rc<Self>, number: u32, part: GrpcPart) {
        let context = {
            let mut inner = self.inner.borrow_mut();
            let host = inner.store.data_mut();
            let Some(side) = host.grpc.get_mut(&number) else {
                return;
            };
            if !side.is_stream {
                if let GrpcPart::Message(_) = part {
                    side.answer.get_or_insert(part);
                }
                return;
            }
            side.context
        };
        self.tell_grpc(context, number, part);
    }

    fn tell_grpc(self: &Rc<Self>, context: u32, number: u32, part: GrpcPart) {
        let size = |length: usize| u32::try_from(length).unwrap_or(u32::MAX);
        let (choose, length): (Choose, _) = match &part {
            GrpcPart::Head(fields) => (|it| it.grpc_head.clone(), size(fields.len())),
            GrpcPart::Message(bytes) => (|it| it.grpc_message.clone(), size(bytes.len())),
            GrpcPart::Trailers(fields) => (|it| it.grpc_trailers.clone(), size(fields.len())),
        };
        self.inner.borrow_mut().store.data_mut().grpc_part = Some(part);
        let _ = self.call(context, choose, (context, number, length));
        self.inner.borrow_mut().store.data_mut().grpc_part = None;
    }

    /// Tells the guest how a gRPC call ended; a unary one that went well has brought its message.
    fn grpc_ended(self: &Rc<Self>, number: u32, mut end: GrpcEnd) {
        let side = {
            let mut inner = self.inner.borrow_mut();
            let host = inner.store.data_mut();
            let Some(mut side) = host.grpc.remove(&number) else {
                return;
            };
            let answer = side.answer.take();
            if !side.is_stream && end.status == 0 && answer.is_none() {
                end.status = INTERNAL;
                "there was no message".clone_into(&mut end.message);
            }
            host.grpc_end = end.clone();
            (side.context, answer.filter(|_| end.status == 0))
        };
        match side {
            (context, Some(answer)) => self.tell_grpc(context, number, answer),
            (context, None) => {
                let params = (context, number, end.status);
                let _ = self.call(context, |it| it.grpc_close.clone(), params);
            }
        }
    }
}
