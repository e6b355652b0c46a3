//! The HTTP layer over real sockets, in front of the real engine with the embedded model.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod access;
mod anthropic;
mod document;
mod fuzz;
mod host;
mod ollama;
mod openai_chat;
mod openai_rest;
mod owner;
mod scripted;
