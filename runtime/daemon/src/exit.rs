//! Exit codes. They are a promise to scripts: documented in the README, never renumbered. 2, a wrong command line, is
//! clap's own.

use std::process::ExitCode;

/// How the command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Done.
    Success,
    /// What was asked could not be done: bad input, a missing file, an app that reported an error.
    Failure,
    /// A capability is not asked for or not granted.
    Denied,
    /// It does not fit into memory.
    NoFit,
    /// The app misbehaved and was stopped.
    AppStopped,
    /// A fault in Locara.
    Internal,
}

impl Exit {
    /// The number.
    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::Success => 0,
            Self::Failure => 1,
            Self::Denied => 3,
            Self::NoFit => 4,
            Self::AppStopped => 5,
            Self::Internal => 70,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}
