//! What a thread is for, in words that every scheduler understands.

use serde::{Deserialize, Serialize};

/// Quality of service of a thread. There is no `background`: on Apple silicon it binds a thread to the efficiency cores
/// and throttles its I/O, which makes a model about ten times slower.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Qos {
    /// Reading ahead, writing state to disk.
    Utility,
    /// Inference: somebody waits for it.
    UserInitiated,
    /// Drawing what somebody looks at.
    UserInteractive,
}
