//! `progress`: how far the app has come. The caller sees the newest report, not all of them.

use tokio::sync::watch;
use wasmtime::Result;
use wasmtime::component::HasData;

use super::Access;
use crate::bindings::progress as wit;
use crate::report::presentable;

/// Longest message, bytes.
const MAX_MESSAGE: usize = 256;

/// How far a run has come.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Progress {
    /// Between 0 and 1, if the app knows.
    pub fraction: Option<f32>,
    /// What it does now.
    pub message: String,
}

/// Where reports go.
pub(crate) struct ProgressState(pub(crate) watch::Sender<Progress>);

/// Every app may report.
pub(crate) struct ProgressPolicy;

/// `progress` of one host call.
pub(crate) type ProgressAccess<'a> = Access<'a, ProgressState, ProgressPolicy>;

/// Names [`ProgressAccess`] to wasmtime.
pub(crate) struct HasProgress;

impl HasData for HasProgress {
    type Data<'a> = ProgressAccess<'a>;
}

impl wit::Host for ProgressAccess<'_> {
    fn report(&mut self, fraction: Option<f32>, message: String) -> Result<()> {
        self.charge()?;
        let fraction = fraction.filter(|fraction| !fraction.is_nan()).map(|fraction| fraction.clamp(0.0, 1.0));
        self.state.0.send_replace(Progress { fraction, message: presentable(&message, MAX_MESSAGE) });
        Ok(())
    }
}
