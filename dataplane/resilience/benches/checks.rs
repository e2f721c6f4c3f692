//! What a check costs on one core, beside the same check behind a mutex.

use std::collections::HashMap;
use std::hint::black_box;
use std::sync::Mutex;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};

use dataplane_resilience::circuit_breaker::{Breaker, Settings};
use dataplane_resilience::token_bucket::{Bucket, Keyed, Rate};

/// The plain way to write the same: a count, a time, a lock.
struct Plain {
    failures: u32,
    open_until: Option<Duration>,
}

fn breaker(c: &mut Criterion) {
    let mut group = c.benchmark_group("breaker check and record");
    let now = Duration::from_secs(1);
    let breaker = Breaker::new(Settings::default());
    group.bench_function("atomic", |b| {
        b.iter(|| {
            if let Ok(pass) = black_box(&breaker).enter(now) {
                pass.succeeded();
            }
        });
    });
    let plain = Mutex::new(Plain {
        failures: 0,
        open_until: None,
    });
    group.bench_function("mutex", |b| {
        b.iter(|| {
            let plain = black_box(&plain);
            let may_pass = plain
                .lock()
                .is_ok_and(|state| state.open_until.is_none_or(|until| until <= now));
            if may_pass && let Ok(mut state) = plain.lock() {
                state.failures = 0;
            }
        });
    });
    group.finish();
}

fn rate_limit(c: &mut Criterion) {
    let mut group = c.benchmark_group("rate limit");
    let rate = Rate::new(1_000_000_000, Duration::from_secs(1), 1_000_000);
    let tick = Duration::from_nanos(1);
    let mut now = Duration::ZERO;
    let bucket = Bucket::default();
    group.bench_function("one key, atomic", |b| {
        b.iter(|| {
            now += tick;
            black_box(&bucket).take(&rate, 1, now)
        });
    });
    let plain = Mutex::new((Duration::ZERO, 0.0_f64));
    group.bench_function("one key, mutex", |b| {
        b.iter(|| {
            now += tick;
            let mut state = black_box(&plain).lock().unwrap_or_else(|e| e.into_inner());
            let (last, tokens) = *state;
            let tokens = ((now - last).as_nanos() as f64 + tokens).min(1e6);
            *state = (now, (tokens - 1.0).max(0.0));
            tokens >= 1.0
        });
    });
    let keys: Vec<u64> = (0..100_000_u64)
        .map(|key| (key + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15))
        .collect();
    let keyed = Keyed::with_room_for(2 * keys.len());
    let mut at = 0;
    group.bench_function("100,000 keys, atomic", |b| {
        b.iter(|| {
            now += tick;
            at = (at + 7_919) % keys.len();
            black_box(&keyed).take(keys[at], &rate, 1, now)
        });
    });
    let plain: Mutex<HashMap<u64, (Duration, f64)>> = Mutex::default();
    group.bench_function("100,000 keys, mutex", |b| {
        b.iter(|| {
            now += tick;
            at = (at + 7_919) % keys.len();
            let mut map = black_box(&plain).lock().unwrap_or_else(|e| e.into_inner());
            let state = map.entry(keys[at]).or_insert((now, 1e6));
            let tokens = ((now - state.0).as_nanos() as f64 + state.1).min(1e6);
            *state = (now, (tokens - 1.0).max(0.0));
            tokens >= 1.0
        });
    });
    group.finish();
}

criterion_group!(benches, breaker, rate_limit);
criterion_main!(benches);
