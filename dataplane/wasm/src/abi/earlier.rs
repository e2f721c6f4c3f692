//! The interface that plugins had in the data plane before this one, so that they go on running: three
//! functions (`nantian_log`, `nantian_get_header`, `nantian_set_header`) and three hooks (`on_request`,
//! `on_response`, `on_stream_chunk`), which answer 0 to go on or the status to refuse with.
//!
//! `module` asks whether a module is of that kind, and `exports` gets its hooks in the shape of proxy-wasm's.
//! Such a module finds its memory as it was written in every call, because there it always did: most of
//! them never free what they allocate.

use bytes::Bytes;
use http::HeaderMap;
use wasmtime::{Func, Instance, Linker, Store};

use crate::exports::{Exports, Fn3, OnHead, export};
use crate::host::{Host, LocalResponse};

use super::state::LINE_BYTES_MAX;
use super::{Guest, Stop, handed, handed_two, put, room};

const ON_REQUEST: &str = "on_request";
const ON_RESPONSE: &str = "on_response";
const ON_CHUNK: &str = "on_stream_chunk";

/// The module that they stand in, and the one that a declaration without a module means.
const MODULES: [&str; 2] = ["nantian", "env"];

/// Whether it has a hook of that interface.
pub(crate) fn has_hooks(module: &wasmtime::Module) -> bool {
    let mut hooks = [ON_REQUEST, ON_RESPONSE, ON_CHUNK].into_iter();
    hooks.any(|hook| module.get_export(hook).is_some())
}

pub(super) fn link(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    for module in MODULES {
        linker.func_wrap(module, "nantian_log", log)?;
        linker.func_wrap(module, "nantian_get_header", get_header)?;
        linker.func_wrap(module, "nantian_set_header", set_header)?;
    }
    Ok(())
}

/// Its hooks. Those for heads are there in any case: what a request's hook sets is for the response.
pub(crate) fn exports(instance: &Instance, store: &mut Store<Host>) -> wasmtime::Result<Exports> {
    let head = |store: &mut Store<Host>, hook| {
        let own = hook_of(instance, store, hook)?;
        Ok::<_, wasmtime::Error>(Some(OnHead::Long(own)))
    };
    let has_chunks = instance.get_func(&mut *store, ON_CHUNK).is_some();
    Ok(Exports {
        is_earlier: true,
        head: [head(store, ON_REQUEST)?, head(store, ON_RESPONSE)?],
        body: match has_chunks {
            true => [None, Some(hook_of(instance, store, ON_CHUNK)?)],
            false => [None, None],
        },
        ..Exports::default()
    })
}

/// A hook in the shape of proxy-wasm's: context, size, whether it is the end; 1 to hold the message back.
fn hook_of(
    instance: &Instance,
    store: &mut Store<Host>,
    name: &'static str,
) -> wasmtime::Result<Fn3<u32>> {
    let own = export::<(), u32>(instance, store, name)?;
    let called = move |mut guest: Guest<'_>, _: u32, size: u32, _: u32| {
        let hooks = guest.data().settings.hooks;
        let is_meant = match name {
            ON_RESPONSE => hooks.response_head,
            ON_CHUNK => size > 0,
            _ => true,
        };
        let status = match &own {
            Some(own) if is_meant => own.call(&mut guest, ())?,
            _ => 0,
        };
        let Some(stream) = guest.data_mut().stream() else {
            return Ok(0);
        };
        if status != 0 {
            stream.local = Some(refusal(status));
            return Ok(1);
        }
        if let (ON_RESPONSE, Some(head)) = (name, &mut stream.response)
            && let Some(wanted) = stream.for_response.take()
        {
            for (field, value) in &wanted.fields {
                // What does not fit is left out.
                let _ = head.replace(field.as_str().as_bytes(), value.as_bytes());
            }
        }
        Ok::<u32, wasmtime::Error>(0)
    };
    Func::wrap(&mut *store, called).typed(&*store)
}

/// What the client gets instead; a number that is no status of an answer is a fault of the plugin's.
fn refusal(status: u32) -> LocalResponse {
    let status = u16::try_from(status).ok();
    LocalResponse {
        status: status.filter(|it| (200..600).contains(it)).unwrap_or(500),
        fields: HeaderMap::new(),
        body: Bytes::new(),
        grpc_status: None,
    }
}

/// Nobody is told of a pointer that is none: there is no way to.
fn log(mut guest: Guest<'_>, level: u32, line: u32, length: u32) {
    let Ok((line, host)) = handed(&mut guest, line, length) else {
        return;
    };
    let line = &line[..line.len().min(LINE_BYTES_MAX)];
    let line = String::from_utf8_lossy(line).into_owned();
    // 0 is for debugging, 3 and more for errors.
    host.log(level.min(3) + 1, &line);
}

/// Where the value of a field of the request is, and in the lower half its length; 0 without one.
fn get_header(mut guest: Guest<'_>, name: u32, length: u32) -> wasmtime::Result<u64> {
    match found(&mut guest, name, length) {
        Ok(packed) => Ok(packed),
        Err(Stop::Told(_)) => Ok(0),
        Err(Stop::Trapped(error)) => Err(error),
    }
}

fn found(guest: &mut Guest<'_>, name: u32, length: u32) -> Result<u64, Stop> {
    let (name, host) = handed(guest, name, length)?;
    let name = name.to_vec();
    let value = host.stream().and_then(|stream| {
        let head = stream.readable(0);
        head.and_then(|head| head.value(&name))
    });
    let Some(value) = value else { return Ok(0) };
    let (at, length) = room(guest, value.len())?;
    put(guest, at, &value)?;
    Ok(u64::from(at) << 32 | u64::from(length))
}

/// Sets a field of the response, now or when it comes.
fn set_header(mut guest: Guest<'_>, name: u32, name_len: u32, value: u32, value_len: u32) {
    let handed = handed_two(&mut guest, (name, name_len), (value, value_len));
    let Ok((name, value, host)) = handed else {
        return;
    };
    let Some(stream) = host.stream() else { return };
    let head = match (&mut stream.response, &stream.request) {
        (Some(response), _) => response,
        (None, Some(_)) => &mut **stream.for_response.get_or_insert_default(),
        (None, None) => return,
    };
    if name.first() != Some(&b':') {
        let _ = head.replace(name, value);
    }
}
