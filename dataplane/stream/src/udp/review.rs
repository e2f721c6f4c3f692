//! What a new configuration means for sessions that are there.
//!
//! A session keeps its endpoint whatever is configured. It leaves when its route or its listener is
//! gone, as it would with the whole socket: once it falls silent, at the latest after the drain
//! time. It ends at once when a policy does not let its client in any more.

use dataplane_config::{Current, UdpBind};
use dataplane_telemetry::reason::Reason;

use super::Port;
use super::begin::Session;
use crate::log::Story;

impl Port {
    /// Looks at all sessions when the configuration is another one than at the last look.
    pub(super) fn review(&self) -> bool {
        let config = self.worker.config();
        if self.reviewed.borrow().as_ref() == Some(config.version()) {
            return false;
        }
        *self.reviewed.borrow_mut() = Some(config.version().clone());
        // A socket without a listener is about to be told so.
        let Some(bind) = config.udp_binds.get(&self.address) else {
            return false;
        };
        let now = self.limits.now();
        let until = now + self.worker.settings.drain;
        let mut sessions = self.sessions.borrow_mut();
        let mut denied = Vec::new();
        for id in sessions.ids() {
            let Some(Session { story, .. }) = sessions.load(id) else {
                continue;
            };
            if !is_let_in(&config, bind, story) {
                denied.push(id);
            } else if !is_configured(bind, story) {
                sessions.leave(id, now, until);
            }
        }
        drop(sessions);
        for id in denied {
            self.end(id, Reason::AddressDenied);
        }
        true
    }
}

/// Whether the route that a session came by is still the one of its listener.
fn is_configured(bind: &UdpBind, story: &Story) -> bool {
    let now = bind.streams.lookup(None).map(|rule| &rule.route);
    let then = story.rule.as_ref().map(|rule| &rule.route);
    bind.listener == story.listener && now == then
}

/// Whether the policies of the listener and of the backend let its client in.
fn is_let_in(config: &Current, bind: &UdpBind, story: &Story) -> bool {
    let rule = story.rule.as_ref();
    let backend = rule.and_then(|rule| rule.backends.get(story.backend?));
    let cluster = backend.and_then(|backend| config.cluster_by_keys(&backend.cluster_keys));
    let of_backend = cluster.and_then(|cluster| cluster.access.as_ref());
    let mut lists = bind.access.iter().chain(of_backend);
    lists.all(|lists| lists.admit(story.client.ip()))
}
