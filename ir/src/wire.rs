//! The generated messages and stubs of `gateway.control.v1`, and nothing else.
