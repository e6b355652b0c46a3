//! The `locara` command from outside: one module for each thing that a person does with it.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod chat;
mod check;
mod client;
mod crash;
mod grants;
mod hostile;
mod install;
mod memory;
mod model;
mod models;
mod plan;
mod pull;
mod run;
mod service;
mod stop;
mod words;
