//! Names of listeners in a snapshot, and what they say.
//!
//! `namespace/gateway/listener` for a listener of a Gateway, and
//! `namespace/gateway/namespace/set/listener` for one of a ListenerSet: every listener belongs to one
//! Gateway, whose addresses it is bound to. Neither part can hold a slash. Names are made and read
//! here alone; data planes take them as they are.

use std::sync::Arc;

use crate::cluster_view::Kind;

/// What a name says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ListenerName<'a> {
    /// Key of the Gateway.
    pub(super) gateway: &'a str,
    /// Key of the ListenerSet it is written in.
    pub(super) set: Option<&'a str>,
    /// Its own name there.
    pub(super) section: &'a str,
}

impl<'a> ListenerName<'a> {
    /// Reads a name of ours.
    pub(super) fn read(name: &'a str) -> Option<Self> {
        if name.matches('/').count() == 3 {
            // `mesh/namespace/service/port`, which belongs to no Gateway.
            return None;
        }
        let (owner, section) = name.rsplit_once('/')?;
        let mut slashes = owner.match_indices('/').map(|(at, _)| at);
        let (gateway, set) = match (slashes.next(), slashes.next()) {
            (Some(_), Some(second)) => (&owner[..second], Some(&owner[second + 1..])),
            _ => (owner, None),
        };
        Some(Self {
            gateway,
            set,
            section,
        })
    }

    /// The object it is written in, whose status tells of it.
    pub(super) fn owner(&self) -> (Kind, &'a str) {
        match self.set {
            Some(set) => (Kind::ListenerSet, set),
            None => (Kind::Gateway, self.gateway),
        }
    }

    /// The name as snapshots hold it.
    pub(super) fn written(&self) -> Arc<str> {
        let Self {
            gateway, section, ..
        } = self;
        match self.set {
            Some(set) => format!("{gateway}/{set}/{section}").into(),
            None => format!("{gateway}/{section}").into(),
        }
    }
}

/// Key of the Gateway that a listener of that name belongs to; empty for a name that is not ours.
pub(super) fn gateway_of(name: &str) -> &str {
    ListenerName::read(name).map_or("", |name| name.gateway)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        for (gateway, set, text, owner) in [
            (
                "infra/gw",
                None,
                "infra/gw/http",
                (Kind::Gateway, "infra/gw"),
            ),
            (
                "infra/gw",
                Some("shop/set"),
                "infra/gw/shop/set/http",
                (Kind::ListenerSet, "shop/set"),
            ),
        ] {
            let section = "http";
            let name = ListenerName {
                gateway,
                set,
                section,
            };
            assert_eq!(&*name.written(), text);
            assert_eq!(ListenerName::read(text), Some(name));
            assert_eq!(name.owner(), owner);
            assert_eq!(gateway_of(text), gateway);
        }
        for other in [
            "nothing",
            "mesh/shop/cart/20001",
            "mesh/shop/cart/20001@web",
        ] {
            assert_eq!(gateway_of(other), "");
        }
    }
}
