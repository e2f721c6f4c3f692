//! Kinds that are read but not served yet: each object is told so in its conditions.
//!
//! Saying nothing would leave a user to guess. When a kind becomes supported, its line here goes.

use std::sync::Arc;

use crds::check::Checked;
use imbl::OrdMap;
use ir::Violation;

use crate::cluster_view::{ClusterView, Kind, Object, Objects, Watched};
use crate::conditions::{ConditionType, Conditions, ObjectStatus};

type Statuses = OrdMap<(Kind, Arc<str>), Arc<ObjectStatus>>;

/// Brings the statuses of kinds that are not served in line with `next`.
pub(super) fn update(before: &ClusterView, next: &ClusterView, statuses: &mut Statuses) {
    ours(&before.wasm_plugins, &next.wasm_plugins, statuses);
}

fn one<T: Watched>(before: &Objects<T>, next: &Objects<T>, statuses: &mut Statuses) {
    for (old, new) in before.changes(next) {
        match (old, new) {
            (_, Some(object)) => {
                statuses.insert((T::KIND, object.key.clone()), Arc::new(status(object)));
            }
            (Some(object), None) => drop(statuses.remove(&(T::KIND, object.key.clone()))),
            (None, None) => {}
        }
    }
}

/// Kinds of our own, which are also told what is wrong with them.
fn ours<T: Watched + Checked>(before: &Objects<T>, next: &Objects<T>, statuses: &mut Statuses) {
    one(before, next, statuses);
    for (_, new) in before.changes(next) {
        let Some(object) = new else { continue };
        let Some(status) = statuses.get_mut(&(T::KIND, object.key.clone())) else {
            continue;
        };
        let faults = crds::check::faults(&object.value).into_iter();
        Arc::make_mut(status).violations = faults
            .map(|fault| Violation {
                object: object.title(),
                path: fault.path,
                message: fault.message,
            })
            .collect();
    }
}

fn status<T: Watched>(object: &Object<T>) -> ObjectStatus {
    let mut conditions = Conditions::new(object.generation());
    let message = format!("{} is not supported yet, it has no effect", T::KIND);
    conditions.fail(ConditionType::Accepted, "UnsupportedValue", message);
    let mut status = ObjectStatus::new(object);
    status.conditions = conditions.finish();
    status
}
