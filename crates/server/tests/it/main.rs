//! What this crate promises to those who build against it.

mod openapi;
