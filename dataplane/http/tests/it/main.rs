//! What the crate promises to its callers, through its public interface alone and without sockets.

mod h1;
