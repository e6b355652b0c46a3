//! Engines: what turns tokens into tokens.
//!
//! [`api`] holds the messages, [`reclaim`] those of memory pressure, [`llama`] the engine in this process, [`chat`] the way
//! from a conversation to a prompt.
//! This crate must never know HTTP, Wasm, manifests or where model files come from.
pub mod api;
pub mod chat;
pub mod llama;
mod output;
pub mod reclaim;
pub mod shape;
mod text;

pub use api::*;
