//! Instances: one of each plugin on each worker, how they start, are called, and end.
//!
//! [`Instances`] is a worker's share. An instance is made when it is first needed, serves all requests of
//! its worker, and is thrown away at the first trap. Calls are synchronous; what a guest asked for during a
//! call (requests, timers, queues, going on) is done behind it, by tasks of the same thread that end with
//! the instance.

mod grpc;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::task::spawn_local;
use wasmtime::{Store, Trap, TypedFunc, WasmParams, WasmResults};

use dataplane_telemetry::metrics::PluginFailure;

use crate::abi::earlier;
use crate::callout::{Callout, HttpAnswer, HttpCall};
use crate::engine::ticks;
use crate::exports::{Callbacks, Exports, OnHead, export};
use crate::facts::Facts;
use crate::head::Head;
use crate::host::{Host, ROOT, StreamContext};
use crate::module::Module;
use crate::plugin::Plugin;
use crate::settings::Limits;
use crate::shared::Queue;

/// How much longer than a call an instance may take to come up, from its making to its configuration.
const START_FACTOR: u32 = 5;
/// Streams that one instance serves at once.
const STREAMS_MAX: usize = 10_000;

/// One worker's instances.
#[derive(Default)]
pub struct Instances {
    slots: RefCell<HashMap<u64, Rc<Slot>>>,
    callout: Option<Rc<dyn Callout>>,
}

impl std::fmt::Debug for Instances {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Instances")
            .field("slots", &self.slots.borrow().len())
            .finish_non_exhaustive()
    }
}

impl Instances {
    /// None yet; calls of plugins are carried by `callout`.
    pub fn new(callout: Rc<dyn Callout>) -> Self {
        Self {
            slots: RefCell::default(),
            callout: Some(callout),
        }
    }

    /// Starts instances of these plugins where there are none, and ends those of all others; to be called
    /// about every second. Streams that are under way keep theirs.
    pub fn tend<'a>(&self, plugins: impl Iterator<Item = &'a Arc<Plugin>>) {
        let mut slots = self.slots.borrow_mut();
        if slots.is_empty() && plugins.size_hint().1 == Some(0) {
            return;
        }
        let mut held = HashMap::new();
        for plugin in plugins {
            let slot = slots.remove(&plugin.id);
            let slot = slot.unwrap_or_else(|| Rc::new(Slot::new(plugin, self.callout.clone())));
            held.insert(plugin.id, slot);
        }
        *slots = held;
        let slots: Vec<_> = slots.values().cloned().collect();
        for slot in slots {
            slot.renew();
            slot.instance();
        }
    }

    /// The place of the plugin's instance.
    pub(crate) fn slot(&self, plugin: &Arc<Plugin>) -> Rc<Slot> {
        if let Some(slot) = self.slots.borrow().get(&plugin.id) {
            return Rc::clone(slot);
        }
        let slot = Rc::new(Slot::new(plugin, self.callout.clone()));
        self.slots.borrow_mut().insert(plugin.id, slot.clone());
        slot
    }
}

/// Where a worker keeps its instance of a plugin.
pub(crate) struct Slot {
    pub(crate) plugin: Arc<Plugin>,
    instance: RefCell<Option<Rc<Vm>>>,
    callout: Option<Rc<dyn Callout>>,
}

impl Slot {
    fn new(plugin: &Arc<Plugin>, callout: Option<Rc<dyn Callout>>) -> Self {
        Self {
            plugin: plugin.clone(),
            instance: RefCell::default(),
            callout,
        }
    }

    /// Lets go of an instance of another module than the plugin has by now.
    fn renew(&self) {
        let held = self.instance.borrow().clone();
        let (Some(vm), Some(module)) = (held, self.plugin.module()) else {
            return;
        };
        if !Arc::ptr_eq(&vm.module, &module) {
            self.instance.borrow_mut().take();
        }
    }

    /// The instance, made anew when there is none; nothing while the plugin is left alone.
    pub(crate) fn instance(&self) -> Option<Rc<Vm>> {
        if let Some(vm) = &*self.instance.borrow()
            && !vm.is_broken()
        {
            return Some(vm.clone());
        }
        let shared = &self.plugin.shared;
        // Before another one comes up: the former's memory goes first.
        self.instance.borrow_mut().take();
        let module = self.plugin.module()?;
        if !shared.may_start(Instant::now()) {
            return None;
        }
        match Vm::start(&self.plugin, module, self.callout.clone()) {
            Ok(vm) => {
                *self.instance.borrow_mut() = Some(vm.clone());
                Some(vm)
            }
            Err(error) => {
                failed(&self.plugin, PluginFailure::Start, &error);
                None
            }
        }
    }
}

/// Counts a failure and tells the operator.
fn failed(plugin: &Plugin, kind: PluginFailure, error: &str) {
    let (pause, is_disabled) = plugin.shared.failed(Instant::now(), kind, error.to_owned());
    let plugin = plugin.name();
    match is_disabled {
        true => tracing::error!(
            plugin,
            error,
            pause_ms = pause.as_millis(),
            "a plugin failed too often in a row and is left alone for a while; look at what it logs"
        ),
        false => tracing::warn!(plugin, error, "a plugin failed, its instance is made anew"),
    }
}

/// The instance is of no use any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Broken;

/// One instance.
pub(crate) struct Vm {
    plugin: Arc<Plugin>,
    module: Arc<Module>,
    inner: RefCell<Inner>,
    callout: Option<Rc<dyn Callout>>,
    is_broken: Cell<bool>,
    is_starting: Cell<bool>,
    next_context: Cell<u32>,
    /// Which timer counts; those before it end.
    timer: Cell<u32>,
    /// Told when the instance ends.
    gone: Rc<Notify>,
    /// Which callbacks for streams there are.
    pub(crate) has: Callbacks,
    /// It is called when a stream is over.
    pub(crate) has_end: bool,
    start_error: RefCell<String>,
}

struct Inner {
    store: Store<Host>,
    exports: Exports,
}

impl Vm {
    fn start(
        plugin: &Arc<Plugin>,
        module: Arc<Module>,
        callout: Option<Rc<dyn Callout>>,
    ) -> Result<Rc<Self>, String> {
        let host = Host::new(
            plugin.settings.clone(),
            plugin.shared.clone(),
            callout.clone(),
        );
        let inner = instantiate(&module, host).map_err(|error| told(&error))?;
        let vm = Rc::new(Self {
            plugin: plugin.clone(),
            module,
            has: inner.exports.callbacks(plugin.settings.hooks),
            has_end: inner.exports.has_end(),
            inner: RefCell::new(inner),
            callout,
            is_broken: Cell::new(false),
            is_starting: Cell::new(true),
            next_context: Cell::new(ROOT + 1),
            timer: Cell::new(0),
            gone: Rc::default(),
            start_error: RefCell::default(),
        });
        plugin.shared.metrics.instances.add(1);
        let config = u32::try_from(plugin.settings.config.len()).unwrap_or(u32::MAX);
        let trapped = |_| vm.start_error.take();
        vm.call(ROOT, |it| it.context_create.clone(), (ROOT, 0))
            .map_err(trapped)?;
        let is_up = vm
            .call(ROOT, |it| it.vm_start.clone(), (ROOT, 0))
            .map_err(trapped)?;
        if is_up == Some(0) {
            return Err("the plugin did not start (proxy_on_vm_start said no)".to_owned());
        }
        let is_up = vm
            .call(ROOT, |it| it.configure.clone(), (ROOT, config))
            .map_err(trapped)?;
        if is_up == Some(0) {
            return Err(
                "the plugin refused its configuration (proxy_on_configure said no); look at what it logs"
                    .to_owned(),
            );
        }
        vm.is_starting.set(false);
        Ok(vm)
    }

    pub(crate) fn is_broken(&self) -> bool {
        self.is_broken.get()
    }

    /// Calls the guest for a context; nothing when it has no such callback.
    fn call<P: WasmParams, R: WasmResults>(
        self: &Rc<Self>,
        context: u32,
        choose: impl Fn(&Exports) -> Option<TypedFunc<P, R>>,
        params: P,
    ) -> Result<Option<R>, Broken> {
        if self.is_broken.get() {
            return Err(Broken);
        }
        let result = {
            // A guest is never called while it is called: host calls do not come here.
            let mut inner = self.inner.try_borrow_mut().map_err(|_| Broken)?;
            let Some(mut function) = choose(&inner.exports) else {
                return Ok(None);
            };
            if inner.exports.is_earlier {
                self.renew(&mut inner)?;
                function = choose(&inner.exports).ok_or(Broken)?;
            }
            let store = &mut inner.store;
            let host = store.data_mut();
            (host.effective, host.called) = (context, context);
            // All calls of a start share what was given to it when it was made.
            if !self.is_starting.get() {
                allot(store, &self.plugin.settings.limits, 1);
            }
            let began = Instant::now();
            let result = function.call(store, params);
            self.plugin.shared.metrics.took(began.elapsed());
            result
        };
        match result {
            Ok(result) => {
                self.after();
                Ok(Some(result))
            }
            Err(error) => {
                self.broke(&error);
                Err(Broken)
            }
        }
    }

    /// The same module with its memory as it was written, and all that the host keeps for it.
    fn renew(&self, inner: &mut Inner) -> Result<(), Broken> {
        let (settings, shared) = (&self.plugin.settings, &self.plugin.shared);
        let none = Host::new(settings.clone(), shared.clone(), None);
        let mut host = std::mem::replace(inner.store.data_mut(), none);
        (host.memory, host.allocate) = (None, None);
        match instantiate(&self.module, host) {
            Ok(made) => {
                *inner = made;
                Ok(())
            }
            Err(error) => {
                self.is_broken.set(true);
                failed(&self.plugin, PluginFailure::Start, &told(&error));
                Err(Broken)
            }
        }
    }

    fn broke(&self, error: &wasmtime::Error) {
        self.is_broken.set(true);
        let kind = match error.downcast_ref::<Trap>() {
            Some(Trap::Interrupt) => PluginFailure::Timeout,
            Some(Trap::OutOfFuel) => PluginFailure::Fuel,
            _ => PluginFailure::Trap,
        };
        match self.is_starting.get() {
            true => *self.start_error.borrow_mut() = told(error),
            false => failed(&self.plugin, kind, &told(error)),
        }
        self.gone.notify_waiters();
        // Whoever waits shall see it.
        for stream in self.inner.borrow().store.data().contexts.values() {
            stream.wake.iter().for_each(|wake| wake.notify_one());
        }
    }

    /// Does what the guest asked for.
    fn after(self: &Rc<Self>) {
        let (outbox, grpc, queues, tick) = {
            let mut inner = self.inner.borrow_mut();
            let host = inner.store.data_mut();
            for id in std::mem::take(&mut host.woken) {
                if let Some(stream) = host.contexts.get(&id) {
                    stream.wake.iter().for_each(|wake| wake.notify_one());
                }
            }
            let tick = (host.tick != host.tick_known).then_some(host.tick);
            host.tick_known = host.tick;
            let outbox = std::mem::take(&mut host.outbox);
            let grpc = std::mem::take(&mut host.grpc_outbox);
            (outbox, grpc, std::mem::take(&mut host.queues), tick)
        };
        for (number, context, call) in outbox {
            self.send(number, context, call);
        }
        for begin in grpc {
            self.begin_grpc(begin);
        }
        for (id, queue) in queues {
            spawn_local(watch(Rc::downgrade(self), self.gone.clone(), id, queue));
        }
        if let Some(period) = tick {
            let number = self.timer.get().wrapping_add(1);
            self.timer.set(number);
            if !period.is_zero() {
                spawn_local(tick_every(
                    Rc::downgrade(self),
                    self.gone.clone(),
                    period,
                    number,
                ));
            }
        }
    }

    fn send(self: &Rc<Self>, number: u32, context: u32, call: HttpCall) {
        let Some(callout) = &self.callout else {
            return;
        };
        let calling = callout.call(call);
        let vm = Rc::downgrade(self);
        spawn_local(async move {
            let answer = calling.await;
            if let Some(vm) = vm.upgrade() {
                vm.answered(number, context, answer);
            }
        });
    }

    /// Tells the guest of the answer to a call; one that failed has no fields.
    fn answered(self: &Rc<Self>, number: u32, context: u32, answer: Option<HttpAnswer>) {
        let answer = answer.unwrap_or_default();
        let size = |length: usize| u32::try_from(length).unwrap_or(u32::MAX);
        let (fields, trailers) = (size(answer.head.len()), size(answer.trailers.len()));
        let bytes = size(answer.body.len());
        let is_wanted = {
            let mut inner = self.inner.borrow_mut();
            let host = inner.store.data_mut();
            host.calls = host.calls.saturating_sub(1);
            host.answer = Some(answer);
            context == ROOT || host.contexts.contains_key(&context)
        };
        if is_wanted {
            let params = (context, number, fields, bytes, trailers);
            let _ = self.call(context, |it| it.http_call_response.clone(), params);
        }
        self.inner.borrow_mut().store.data_mut().answer = None;
    }

    /// Opens a stream; its id, or nothing when there are too many.
    pub(crate) fn open(self: &Rc<Self>, facts: Rc<dyn Facts>) -> Result<Option<u32>, Broken> {
        let id = {
            let mut inner = self.inner.borrow_mut();
            let contexts = &mut inner.store.data_mut().contexts;
            if contexts.len() >= STREAMS_MAX {
                return Ok(None);
            }
            let mut id = self.next_context.get();
            while id <= ROOT || contexts.contains_key(&id) {
                id = id.wrapping_add(1);
            }
            self.next_context.set(id.wrapping_add(1));
            contexts.insert(id, StreamContext::new(facts));
            id
        };
        let created = self.call(id, |it| it.context_create.clone(), (id, ROOT));
        if created.is_err() {
            self.forget(id);
        }
        created.map(|_| Some(id))
    }

    /// Ends a stream.
    pub(crate) fn close(self: &Rc<Self>, id: u32) {
        // A trap in here costs the instance, not the request, which is over.
        let _ = self.call(id, |it| it.done.clone(), id);
        let _ = self.call(id, |it| it.log.clone(), id);
        let _ = self.call(id, |it| it.delete.clone(), id);
        self.forget(id);
    }

    fn forget(&self, id: u32) {
        let mut inner = self.inner.borrow_mut();
        let host = inner.store.data_mut();
        host.contexts.remove(&id);
        // What it called for ends with it.
        host.grpc.retain(|_, side| side.context != id);
    }

    /// What is kept for a stream; also of an instance that broke.
    pub(crate) fn stream<T>(
        &self,
        id: u32,
        with: impl FnOnce(&mut StreamContext) -> T,
    ) -> Option<T> {
        let mut inner = self.inner.borrow_mut();
        inner.store.data_mut().contexts.get_mut(&id).map(with)
    }

    /// A head leaves the plugin and is not sent on yet. What is called meanwhile reads it as it is by now.
    pub(crate) fn passed(&self, id: u32, at: usize, head: &Head) {
        let mut inner = self.inner.borrow_mut();
        let host = inner.store.data_mut();
        if !host.awaits() {
            return;
        }
        if let Some(stream) = host.contexts.get_mut(&id) {
            stream.sent[at] = Some(Rc::new(head.clone()));
        }
    }

    pub(crate) fn on_head(
        self: &Rc<Self>,
        id: u32,
        at: usize,
        fields: u32,
        ends: bool,
    ) -> Result<u32, Broken> {
        let is_long = matches!(self.inner.borrow().exports.head[at], Some(OnHead::Long(_)));
        let action = match is_long {
            true => {
                let long = |it: &Exports| match &it.head[at] {
                    Some(OnHead::Long(long)) => Some(long.clone()),
                    _ => None,
                };
                self.call(id, long, (id, fields, u32::from(ends)))?
            }
            false => {
                let short = |it: &Exports| match &it.head[at] {
                    Some(OnHead::Short(short)) => Some(short.clone()),
                    _ => None,
                };
                self.call(id, short, (id, fields))?
            }
        };
        Ok(action.unwrap_or(0))
    }

    pub(crate) fn on_body(
        self: &Rc<Self>,
        id: u32,
        at: usize,
        bytes: u32,
        ends: bool,
    ) -> Result<u32, Broken> {
        let params = (id, bytes, u32::from(ends));
        Ok(self
            .call(id, |it| it.body[at].clone(), params)?
            .unwrap_or(0))
    }

    pub(crate) fn on_trailers(
        self: &Rc<Self>,
        id: u32,
        at: usize,
        fields: u32,
    ) -> Result<u32, Broken> {
        Ok(self
            .call(id, |it| it.trailers[at].clone(), (id, fields))?
            .unwrap_or(0))
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        self.gone.notify_waiters();
        self.plugin.shared.metrics.instances.add(-1);
    }
}

/// An error with its causes, and no longer than a line.
fn told(error: &wasmtime::Error) -> String {
    let mut text = format!("{error:#}").replace(['\n', '\r'], " ");
    if text.len() > 500 {
        let end = (0..=500).rev().find(|at| text.is_char_boundary(*at));
        text.truncate(end.unwrap_or(0));
    }
    text
}

/// Gives the next call its time and its instructions.
fn allot(store: &mut Store<Host>, limits: &Limits, factor: u32) {
    store.set_epoch_deadline(ticks(limits.call_time * factor));
    if let Some(fuel) = limits.fuel {
        // It fails only where instructions are not counted.
        let _ = store.set_fuel(fuel.saturating_mul(u64::from(factor)));
    }
}

fn instantiate(module: &Module, host: Host) -> wasmtime::Result<Inner> {
    let limits = host.settings.limits;
    let mut store = Store::new(module.pre.module().engine(), host);
    store.limiter(Host::limiter);
    store.epoch_deadline_trap();
    allot(&mut store, &limits, START_FACTOR);
    let instance = module.pre.instantiate(&mut store)?;
    store.data_mut().memory = instance.get_memory(&mut store, "memory");
    let allocate = match export(&instance, &mut store, "proxy_on_memory_allocate")? {
        Some(allocate) => Some(allocate),
        None if module.is_earlier => export(&instance, &mut store, "alloc")?,
        None => export(&instance, &mut store, "malloc")?,
    };
    store.data_mut().allocate = allocate;
    let begin: Option<TypedFunc<(), ()>> = match export(&instance, &mut store, "_initialize")? {
        Some(initialize) => Some(initialize),
        None => export(&instance, &mut store, "_start")?,
    };
    if let Some(begin) = begin {
        begin.call(&mut store, ())?;
    }
    let exports = match module.is_earlier {
        true => earlier::exports(&instance, &mut store)?,
        false => Exports::of(&instance, &mut store)?,
    };
    Ok(Inner { store, exports })
}

/// Calls an instance in regular intervals, as long as it is there and wants no others.
async fn tick_every(vm: Weak<Vm>, gone: Rc<Notify>, period: Duration, number: u32) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(period) => {}
            () = gone.notified() => return,
        }
        let Some(vm) = vm.upgrade().filter(|vm| vm.timer.get() == number) else {
            return;
        };
        if vm.call(ROOT, |it| it.tick.clone(), ROOT).is_err() {
            return;
        }
    }
}

/// Tells an instance of what comes into a queue, as long as it is there.
async fn watch(vm: Weak<Vm>, gone: Rc<Notify>, id: u32, queue: Arc<Queue>) {
    loop {
        tokio::select! {
            () = queue.filled.notified() => {}
            () = gone.notified() => return,
        }
        let Some(vm) = vm.upgrade() else {
            // For another instance that waits.
            queue.filled.notify_one();
            return;
        };
        if vm
            .call(ROOT, |it| it.queue_ready.clone(), (ROOT, id))
            .is_err()
        {
            return;
        }
    }
}
