//! Names of AI providers become addresses, off the request path.
//!
//! One task looks at the providers of the configuration that serves, asks the system's resolver for
//! each name when it is due, and tells the providers what was found. A name that is not found keeps
//! the addresses it had. Lookups are bounded in number; one that hangs holds up only its own name.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use dataplane_config::Store;

/// How often a name is looked up; the system's resolver does not tell how long an answer holds.
const REFRESH: Duration = Duration::from_secs(30);
/// The pause after a first failure; it doubles up to [`REFRESH`].
const AGAIN: Duration = Duration::from_secs(1);
/// How long a lookup may take before its name counts as not found.
const LOOKUP_TIME_MAX: Duration = Duration::from_secs(5);
/// Lookups at once.
const LOOKUPS_MAX: usize = 16;

/// What is known of a name.
#[derive(Debug)]
struct Known {
    due: Instant,
    failures: u32,
    is_asked: bool,
}

/// Resolves names until `stop`; `changed` tells that there may be others.
pub async fn run(store: Arc<Store>, mut changed: watch::Receiver<()>, stop: CancellationToken) {
    let mut names: HashMap<String, Known> = HashMap::new();
    let mut lookups = JoinSet::new();
    loop {
        let next = ask(&store, &mut names, &mut lookups);
        tokio::select! {
            () = stop.cancelled() => return,
            Ok(()) = changed.changed() => {}
            () = sleep_until(next) => {}
            Some(ended) = lookups.join_next() => {
                if let Ok((name, found)) = ended {
                    tell(&store, &mut names, &name, &found);
                }
            }
        }
    }
}

/// Begins the lookups that are due; says when the next one is.
fn ask(
    store: &Store,
    names: &mut HashMap<String, Known>,
    lookups: &mut JoinSet<(String, Vec<IpAddr>)>,
) -> Instant {
    let now = Instant::now();
    let config = store.load();
    let wanted: Vec<&str> = config.ai_sites().filter_map(|site| site.name()).collect();
    // One that a configuration brought after its name was looked up is told as soon as can be.
    for site in config.ai_sites().filter(|site| !site.is_known()) {
        let known = site.name().and_then(|name| names.get_mut(name));
        if let Some(known) = known.filter(|known| known.failures == 0) {
            known.due = now;
        }
    }
    names.retain(|name, known| known.is_asked || wanted.contains(&name.as_str()));
    let mut next = now + REFRESH;
    for name in wanted {
        let known = names.entry(name.to_owned()).or_insert(Known {
            due: now,
            failures: 0,
            is_asked: false,
        });
        if known.is_asked {
            continue;
        }
        if known.due > now || lookups.len() >= LOOKUPS_MAX {
            next = next.min(known.due.max(now + Duration::from_millis(100)));
            continue;
        }
        known.is_asked = true;
        let name = name.to_owned();
        lookups.spawn(async move {
            let found = lookup(&name).await;
            (name, found)
        });
    }
    next
}

async fn lookup(name: &str) -> Vec<IpAddr> {
    match timeout(LOOKUP_TIME_MAX, tokio::net::lookup_host((name, 0))).await {
        Ok(Ok(found)) => found.map(|address| address.ip()).collect(),
        Ok(Err(error)) => {
            debug!(name, %error, "a provider's name was not found");
            Vec::new()
        }
        Err(_) => {
            debug!(name, "a provider's name was not found in time");
            Vec::new()
        }
    }
}

/// Tells the providers of that name, and notes when it is due again.
fn tell(store: &Store, names: &mut HashMap<String, Known>, name: &str, found: &[IpAddr]) {
    let Some(known) = names.get_mut(name) else {
        return;
    };
    known.is_asked = false;
    known.failures = match found {
        [] => known.failures.saturating_add(1),
        _ => 0,
    };
    let pause = match known.failures {
        0 => REFRESH,
        failures => REFRESH.min(AGAIN * 2_u32.saturating_pow(failures.min(8) - 1)),
    };
    if known.failures == 1 {
        info!(name, "the name of an AI provider is not found; check DNS");
    }
    known.due = Instant::now() + pause;
    let config = store.load();
    let sites = config.ai_sites().filter(|site| site.name() == Some(name));
    sites.for_each(|site| site.found(found));
}
