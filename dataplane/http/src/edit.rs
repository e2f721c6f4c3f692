//! A change to a header field that a service asked for while the request runs.
//!
//! Unlike those of the configuration it is made once and used once. `authorize` makes it from what it
//! has checked, the filter phase applies those that concern the response.

use http::{HeaderMap, HeaderName, HeaderValue};

use ir::authorization::EditAction;

/// A change to a header field, checked.
#[derive(Debug)]
pub(crate) struct Edit {
    name: HeaderName,
    value: HeaderValue,
    action: EditAction,
}

impl Edit {
    pub(crate) fn new(name: HeaderName, value: HeaderValue, action: EditAction) -> Self {
        Self {
            name,
            value,
            action,
        }
    }

    /// Makes the change; `None` when there is no room.
    pub(crate) fn apply(&self, headers: &mut HeaderMap) -> Option<()> {
        let (name, value) = (self.name.clone(), self.value.clone());
        let is_there = headers.contains_key(&name);
        match self.action {
            EditAction::Append => headers.try_append(name, value).map(drop),
            EditAction::AddIfAbsent if is_there => Ok(()),
            EditAction::OverwriteIfPresent if !is_there => Ok(()),
            EditAction::AddIfAbsent | EditAction::Overwrite | EditAction::OverwriteIfPresent => {
                headers.try_insert(name, value).map(drop)
            }
        }
        .ok()
    }
}
