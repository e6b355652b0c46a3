//! Guest memory in the governor's account: one figure for each app, over all its runs.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use locara_apps::GuestLedger;
use locara_policy::{Bytes, governor::Event, ledger::AppId};

use super::governed::Governed;

/// See the module.
#[derive(Debug)]
pub(crate) struct GuestAccount {
    governed: Arc<Governed>,
    held: Mutex<HashMap<String, u64>>,
}

impl GuestAccount {
    pub(crate) fn new(governed: Arc<Governed>) -> Self {
        Self { governed, held: Mutex::default() }
    }

    fn set(&self, app: &str, bytes: u64) -> Result<(), String> {
        let event = |ticket| Event::Guest { ticket, app: AppId(app.to_owned()), bytes: Bytes(bytes) };
        self.governed.ask_now(event).map(drop).map_err(|refusal| refusal.to_string())
    }
}

impl GuestLedger for GuestAccount {
    fn reserve(&self, app: &str, bytes: u64) -> Result<(), String> {
        // Held until the governor has answered: growths of one app are entered in the order in which they are counted.
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let total = held.get(app).copied().unwrap_or(0).saturating_add(bytes);
        self.set(app, total)?;
        held.insert(app.to_owned(), total);
        Ok(())
    }

    fn release(&self, app: &str, bytes: u64) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(total) = held.get_mut(app) else { return };
        *total = total.saturating_sub(bytes);
        let rest = *total;
        if rest == 0 {
            held.remove(app);
        }
        if let Err(error) = self.set(app, rest) {
            tracing::error!(app, error, "the account of a guest does not shrink");
        }
    }
}
