//! Lines in the host's log, under the name of the app. Lines beyond the app's rate or size limit are dropped and counted.

use std::fmt::Arguments;

use crate::host;

/// How much a line matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// The run failed, or a part of it.
    Error,
    /// Something is not as it should be.
    Warn,
    /// A milestone.
    Info,
    /// For the author.
    Debug,
}

/// Writes a line. The macros [`error!`](crate::error!), [`warn!`](crate::warn!), [`info!`](crate::info!) and
/// [`debug!`](crate::debug!) are shorter.
pub fn write(level: Level, message: Arguments<'_>) {
    match message.as_str() {
        Some(text) => host::log(level, text),
        None => host::log(level, &message.to_string()),
    }
}

/// Logs that the run failed, or a part of it. Takes what `format!` takes.
#[macro_export]
macro_rules! error { ($($message:tt)+) => { $crate::log::write($crate::log::Level::Error, ::std::format_args!($($message)+)) } }

/// Logs that something is not as it should be. Takes what `format!` takes.
#[macro_export]
macro_rules! warn { ($($message:tt)+) => { $crate::log::write($crate::log::Level::Warn, ::std::format_args!($($message)+)) } }

/// Logs a milestone. Takes what `format!` takes.
#[macro_export]
macro_rules! info { ($($message:tt)+) => { $crate::log::write($crate::log::Level::Info, ::std::format_args!($($message)+)) } }

/// Logs something for the author. Takes what `format!` takes.
#[macro_export]
macro_rules! debug { ($($message:tt)+) => { $crate::log::write($crate::log::Level::Debug, ::std::format_args!($($message)+)) } }
