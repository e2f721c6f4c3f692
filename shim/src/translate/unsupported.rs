//! Kinds that are read but not served yet: each object is told so in its conditions.
//!
//! Saying nothing would leave a user to guess. When a kind becomes supported, its line here goes.

use std::sync::Arc;

use imbl::OrdMap;

use crate::cluster_view::{ClusterView, Kind, Object, Objects, Watched};
use crate::conditions::{ConditionType, Conditions, ObjectStatus};

type Statuses = OrdMap<(Kind, Arc<str>), Arc<ObjectStatus>>;

/// Brings the statuses of kinds that are not served in line with `next`.
pub(super) fn update(before: &ClusterView, next: &ClusterView, statuses: &mut Statuses) {
    one(&before.listener_sets, &next.listener_sets, statuses);
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

fn status<T: Watched>(object: &Object<T>) -> ObjectStatus {
    let mut conditions = Conditions::new(object.generation());
    let message = format!("{} is not supported yet, it has no effect", T::KIND);
    conditions.fail(ConditionType::Accepted, "UnsupportedValue", message);
    let mut status = ObjectStatus::new(object);
    status.conditions = conditions.finish();
    status
}
