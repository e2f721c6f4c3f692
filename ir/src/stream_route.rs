//! TCP, UDP and TLS routes: which bytes go to which backends.
use crate::resource::Resource;
use std::sync::Arc;
/// A route for streams or datagrams.
#[derive(Clone, Debug, PartialEq)]
pub struct StreamRoute {
    /// `kind/namespace/name`, the kind in lower case.
    pub key: Arc<str>,
}
impl Resource for StreamRoute {
    fn key(&self) -> &Arc<str> {
        &self.key
    }
}
