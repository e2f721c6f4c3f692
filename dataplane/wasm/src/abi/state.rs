//! Host calls that are not about a message: log, time, timers, shared data, queues, metrics, contexts.
//!
//! All of it is bounded by `host` and `shared`; what does not fit is refused with a status that the guest
//! sees.

use std::time::{Duration, SystemTime};

use dataplane_telemetry::metrics::{CustomKind, CustomMetric};

use crate::host::ROOT;
use crate::shared::NotWritten;

use super::{Done, Guest, Status, Stop, give, handed, handed_two, put, put_number};

/// Bytes of a line of log.
pub(super) const LINE_BYTES_MAX: usize = 4 * 1024;
/// A timer does not go off more often.
const TICK_MIN: Duration = Duration::from_millis(10);

pub(super) fn log(guest: &mut Guest<'_>, level: u32, line: u32, line_len: u32) -> Done {
    if level > 5 {
        return Err(Status::BadArgument.into());
    }
    let (line, host) = handed(guest, line, line_len)?;
    let line = &line[..line.len().min(LINE_BYTES_MAX)];
    let line = String::from_utf8_lossy(line).into_owned();
    host.log(level, &line);
    Ok(())
}

pub(super) fn log_level(guest: &mut Guest<'_>, out: u32) -> Done {
    use tracing::level_filters::LevelFilter;
    let level = match LevelFilter::current() {
        LevelFilter::TRACE => 0,
        LevelFilter::DEBUG => 1,
        LevelFilter::INFO => 2,
        LevelFilter::WARN => 3,
        LevelFilter::ERROR => 4,
        _ => 5,
    };
    put_number(guest, out, level)
}

pub(super) fn time(guest: &mut Guest<'_>, out: u32) -> Done {
    put(guest, out, &wall_clock().to_le_bytes())
}

/// Nanoseconds since 1970.
pub(super) fn wall_clock() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    })
}

pub(super) fn tick(guest: &mut Guest<'_>, period: u32) -> Done {
    let period = Duration::from_millis(u64::from(period));
    guest.data_mut().tick = match period {
        Duration::ZERO => period,
        period => period.max(TICK_MIN),
    };
    Ok(())
}

pub(super) fn configuration(guest: &mut Guest<'_>, out: u32, out_len: u32) -> Done {
    let config = guest.data().settings.config.clone();
    give(guest, &config, out, out_len)
}

pub(super) fn effective(guest: &mut Guest<'_>, context: u32) -> Done {
    let host = guest.data_mut();
    if context != ROOT && !host.contexts.contains_key(&context) {
        return Err(Status::BadArgument.into());
    }
    host.effective = context;
    Ok(())
}

/// A context is deleted with its request, whether or not its plugin asked for more time.
pub(super) fn done(_: &mut Guest<'_>) -> Done {
    Ok(())
}

pub(super) fn data(
    guest: &mut Guest<'_>,
    key: u32,
    key_len: u32,
    out: u32,
    out_len: u32,
    cas: u32,
) -> Done {
    let (key, host) = handed(guest, key, key_len)?;
    let (value, number) = host.shared.space.data(key).ok_or(Status::NotFound)?;
    put_number(guest, cas, number)?;
    give(guest, &value, out, out_len)
}

pub(super) fn set_data(
    guest: &mut Guest<'_>,
    key: u32,
    key_len: u32,
    value: u32,
    value_len: u32,
    cas: u32,
) -> Done {
    let (key, value, host) = handed_two(guest, (key, key_len), (value, value_len))?;
    match host.shared.space.set_data(key, value, cas) {
        Ok(()) => Ok(()),
        Err(NotWritten::Changed) => Err(Status::CasMismatch.into()),
        Err(NotWritten::Full) => Err(Status::InternalFailure.into()),
    }
}

pub(super) fn register_queue(guest: &mut Guest<'_>, name: u32, name_len: u32, id: u32) -> Done {
    let (name, host) = handed(guest, name, name_len)?;
    let (number, queue) = host
        .shared
        .space
        .register_queue(name)
        .ok_or(Status::InternalFailure)?;
    host.watch(number, queue);
    put_number(guest, id, number)
}

/// Of the queues that the plugin can see, whatever virtual machine it names: those of its own.
pub(super) fn resolve_queue(
    guest: &mut Guest<'_>,
    vm: u32,
    vm_len: u32,
    name: u32,
    name_len: u32,
    id: u32,
) -> Done {
    let (_, name, host) = handed_two(guest, (vm, vm_len), (name, name_len))?;
    let number = host.shared.space.queue_id(name).ok_or(Status::NotFound)?;
    put_number(guest, id, number)
}

pub(super) fn dequeue(guest: &mut Guest<'_>, id: u32, out: u32, out_len: u32) -> Done {
    let queue = guest
        .data()
        .shared
        .space
        .queue(id)
        .ok_or(Status::NotFound)?;
    let entry = queue.take().ok_or(Status::Empty)?;
    give(guest, &entry, out, out_len)
}

pub(super) fn enqueue(guest: &mut Guest<'_>, id: u32, data: u32, data_len: u32) -> Done {
    let (data, host) = handed(guest, data, data_len)?;
    let queue = host.shared.space.queue(id).ok_or(Status::NotFound)?;
    match queue.put(data) {
        true => Ok(()),
        false => Err(Status::InternalFailure.into()),
    }
}

pub(super) fn define_metric(
    guest: &mut Guest<'_>,
    kind: u32,
    name: u32,
    name_len: u32,
    id: u32,
) -> Done {
    let kind = match kind {
        0 => CustomKind::Counter,
        1 => CustomKind::Gauge,
        2 => CustomKind::Histogram,
        _ => return Err(Status::BadArgument.into()),
    };
    let (name, host) = handed(guest, name, name_len)?;
    let name = std::str::from_utf8(name).map_err(|_| Status::BadArgument)?;
    let at = host.shared.metrics.define(kind, name);
    let at = at.ok_or(Status::InternalFailure)?;
    let number = u32::try_from(at).map_err(|_| Status::InternalFailure)?;
    put_number(guest, id, number + 1)
}

fn custom(guest: &Guest<'_>, id: u32) -> Result<std::sync::Arc<CustomMetric>, Stop> {
    let at = id.checked_sub(1).and_then(|at| usize::try_from(at).ok());
    let metrics = &guest.data().shared.metrics;
    let found = at.and_then(|at| metrics.metric(at));
    found.ok_or(Stop::Told(Status::NotFound))
}

pub(super) fn increment_metric(guest: &mut Guest<'_>, id: u32, by: i64) -> Done {
    let metric = custom(guest, id)?;
    if metric.kind == CustomKind::Histogram {
        return Err(Status::BadArgument.into());
    }
    metric.add(by);
    Ok(())
}

pub(super) fn record_metric(guest: &mut Guest<'_>, id: u32, value: u64) -> Done {
    custom(guest, id)?.record(value);
    Ok(())
}

pub(super) fn metric(guest: &mut Guest<'_>, id: u32, out: u32) -> Done {
    let value = custom(guest, id)?.value();
    put(guest, out, &value.to_le_bytes())
}
