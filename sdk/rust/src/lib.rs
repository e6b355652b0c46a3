#![doc = include_str!("../README.md")]

mod answer;
mod app;
#[cfg(target_family = "wasm")]
#[doc(hidden)]
pub mod bindings;
mod budget;
mod entry;
mod error;
pub mod files;
// Everything the app asks of the host goes through this seam: WIT imports on Wasm, a scripted host natively.
mod host;
pub mod http;
pub mod log;
mod message;
mod session;
pub mod storage;
pub mod system;
#[cfg(not(target_family = "wasm"))]
pub mod testing;

pub use answer::{Answer, Reply};
pub use app::{App, Input, Output};
pub use budget::{Budget, Changes, Consequence, Pool, Pressure, Release};
pub use error::{Error, Failure};
pub use locara_macros::app;
pub use message::{
    Completion, Constraint, Event, Extension, Message, Request, Sampling, Speaker, StopReason, Tool, ToolCall,
    ToolChoice, Usage,
};
pub use session::{Ask, Session};

/// The crates behind [`Ask::parse`] and [`Tool::of`], for `#[derive(serde::Deserialize, schemars::JsonSchema)]` with
/// `#[serde(crate = "locara::serde")]` and `#[schemars(crate = "locara::schemars")]`.
pub use {schemars, serde};

/// Tells the person how far the work is: `fraction` is between 0 and 1, `None` if that is unknown.
pub fn progress(fraction: Option<f32>, message: impl AsRef<str>) {
    host::progress(fraction, message.as_ref());
}

/// For the code that `#[locara::app]` writes. No part of the API.
#[doc(hidden)]
pub mod __private {
    pub use crate::entry::Entry;
    #[cfg(not(target_family = "wasm"))]
    pub use crate::entry::keep;
}
