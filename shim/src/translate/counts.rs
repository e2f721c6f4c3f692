//! How many routes each listener took, in the statuses of Gateways and ListenerSets.
//!
//! The last step but policies of [`super::translate`], when all routes have found their listeners.
//! There may be thousands of ListenerSets, and a route counts at one or two of them: nothing is
//! looked at here that counts as before.

use std::collections::BTreeSet;
use std::sync::Arc;

use imbl::ordmap::DiffItem;

use super::Translation;
use crate::conditions::ObjectStatus;

impl Translation {
    /// Adds to the statuses of Gateways and ListenerSets how many routes are attached.
    pub(super) fn update_gateway_statuses(&mut self, before: &Self) {
        let gateways = Arc::clone(&self.gateways);
        if !Arc::ptr_eq(&before.gateways, &gateways) {
            for old in &before.gateways.statuses {
                self.statuses.remove(&(old.kind, old.key.clone()));
            }
            for status in &gateways.statuses {
                self.count_routes(status);
            }
            return;
        }
        let changes = before.attached.diff(&self.attached);
        let listeners = changes.map(|change| match change {
            DiffItem::Add(listener, _) | DiffItem::Remove(listener, _) => listener,
            DiffItem::Update { new, .. } => new.0,
        });
        let owners = listeners.filter_map(|listener| gateways.owners.get(listener).copied());
        let owners: BTreeSet<usize> = owners.collect();
        for owner in owners {
            self.count_routes(&gateways.statuses[owner]);
        }
    }

    fn count_routes(&mut self, status: &ObjectStatus) {
        let mut status = status.clone();
        for listener in &mut status.listeners {
            let attached = self.attached.get(&listener.id).copied();
            listener.attached_routes = attached.unwrap_or_default();
        }
        self.statuses
            .insert((status.kind, status.key.clone()), Arc::new(status));
    }
}
