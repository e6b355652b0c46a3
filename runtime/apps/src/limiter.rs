//! The memory of a guest: one cap over all its linear memories and tables, known to the ledger byte by byte.
//!
//! wasmtime's own limits are per memory; a component with many memories walks around them. Here the sum counts. Growth
//! is reserved in the ledger before it happens and given back when the instance ends or the growth fails.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::MemoryDenial;
use crate::usage::UsageGauge;

/// Bytes of host memory behind one table element.
const TABLE_ELEMENT_BYTES: u64 = size_of::<usize>() as u64;

/// Where the bytes of guests are accounted; the daemon puts its ledger behind it.
pub trait GuestLedger: Send + Sync + 'static {
    /// Reserves `bytes` more for the app before its guest gets them.
    ///
    /// # Errors
    /// What is missing, in words, when the machine has not got them: the guest's growth is then refused.
    fn reserve(&self, app: &str, bytes: u64) -> Result<(), String>;

    /// Gives bytes back that were reserved.
    fn release(&self, app: &str, bytes: u64);
}

/// A ledger that only counts: for tests and for tools without a daemon.
#[derive(Debug, Default)]
pub struct CountingLedger(AtomicU64);

impl CountingLedger {
    /// Bytes that are reserved now, over all apps.
    pub fn bytes(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }
}

impl GuestLedger for CountingLedger {
    fn reserve(&self, _app: &str, bytes: u64) -> Result<(), String> {
        self.0.fetch_add(bytes, Ordering::AcqRel);
        Ok(())
    }
    fn release(&self, _app: &str, bytes: u64) {
        self.0.fetch_sub(bytes, Ordering::AcqRel);
    }
}

/// The account of one instance. Dropping it gives everything back.
pub(crate) struct GuestMemory {
    app: Arc<str>,
    ledger: Arc<dyn GuestLedger>,
    usage: UsageGauge,
    cap: u64,
    table_elements: u64,
    used: u64,
    peak: u64,
    /// The growth that was allowed last: taken back if wasmtime then fails to grow.
    pending: u64,
    denial: Option<MemoryDenial>,
}

impl GuestMemory {
    /// `cap` in bytes; `table_elements` for each table.
    pub(crate) fn new(
        app: Arc<str>,
        ledger: Arc<dyn GuestLedger>,
        usage: UsageGauge,
        cap: u64,
        table_elements: u64,
    ) -> Self {
        Self { app, ledger, usage, cap, table_elements, used: 0, peak: 0, pending: 0, denial: None }
    }

    /// Most bytes that were held at once.
    pub(crate) fn peak(&self) -> u64 {
        self.peak
    }

    /// The last growth that was refused and not followed by one that was allowed: the likely reason of a trap.
    pub(crate) fn denial(&self) -> Option<&MemoryDenial> {
        self.denial.as_ref()
    }

    fn grow(&mut self, bytes: u64) -> bool {
        self.pending = 0;
        let wanted = self.used.saturating_add(bytes);
        if wanted > self.cap {
            self.denial = Some(MemoryDenial { used: self.used, asked: bytes, cap: self.cap, machine: None });
            return false;
        }
        if let Err(reason) = self.ledger.reserve(&self.app, bytes) {
            self.denial = Some(MemoryDenial { used: self.used, asked: bytes, cap: self.cap, machine: Some(reason) });
            return false;
        }
        self.used = wanted;
        self.usage.guest(wanted);
        self.peak = self.peak.max(wanted);
        self.pending = bytes;
        self.denial = None;
        true
    }

    fn roll_back(&mut self) {
        let bytes = std::mem::take(&mut self.pending);
        self.used -= bytes;
        self.usage.guest(self.used);
        self.ledger.release(&self.app, bytes);
    }
}

impl Drop for GuestMemory {
    fn drop(&mut self) {
        self.ledger.release(&self.app, self.used);
        self.usage.guest(0);
    }
}

impl wasmtime::ResourceLimiter for GuestMemory {
    fn memory_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        if maximum.is_some_and(|maximum| desired > maximum) {
            self.pending = 0;
            return Ok(false);
        }
        Ok(self.grow(desired.saturating_sub(current) as u64))
    }

    fn memory_grow_failed(&mut self, error: wasmtime::Error) -> wasmtime::Result<()> {
        tracing::debug!(app = %self.app, %error, "memory did not grow");
        self.roll_back();
        Ok(())
    }

    fn table_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        if desired as u64 > self.table_elements || maximum.is_some_and(|maximum| desired > maximum) {
            self.pending = 0;
            return Ok(false);
        }
        Ok(self.grow((desired.saturating_sub(current) as u64).saturating_mul(TABLE_ELEMENT_BYTES)))
    }

    fn table_grow_failed(&mut self, error: wasmtime::Error) -> wasmtime::Result<()> {
        tracing::debug!(app = %self.app, %error, "table did not grow");
        self.roll_back();
        Ok(())
    }

    fn instances(&self) -> usize {
        crate::sandbox::MAX_CORE_INSTANCES
    }

    fn tables(&self) -> usize {
        crate::sandbox::MAX_TABLES
    }

    fn memories(&self) -> usize {
        crate::sandbox::MAX_MEMORIES
    }
}

#[cfg(test)]
mod tests {
    use wasmtime::ResourceLimiter;

    use super::*;

    const PAGE: usize = 65536;

    struct Poor;
    impl GuestLedger for Poor {
        fn reserve(&self, _app: &str, _bytes: u64) -> Result<(), String> {
            Err("12 MB short".to_owned())
        }
        fn release(&self, _app: &str, bytes: u64) {
            assert_eq!(bytes, 0, "nothing was reserved");
        }
    }

    fn memory(ledger: &Arc<CountingLedger>, cap: usize) -> GuestMemory {
        let ledger: Arc<dyn GuestLedger> = ledger.clone();
        GuestMemory::new("app".into(), ledger, UsageGauge::default(), cap as u64, 1000)
    }

    #[test]
    fn the_cap_is_on_the_sum_of_all_memories_and_tables() {
        let ledger = Arc::new(CountingLedger::default());
        let mut guest = memory(&ledger, 2 * PAGE);
        assert!(guest.memory_growing(0, PAGE, None).expect("no trap"));
        assert!(guest.table_growing(0, 8, None).expect("no trap"));
        assert!(!guest.memory_growing(0, PAGE, None).expect("no trap"), "a second memory counts too");
        let denial = guest.denial().expect("noted");
        assert_eq!((denial.used, denial.asked, denial.cap), (65600, 65536, 131_072));
        assert_eq!(ledger.bytes(), 65600);
        drop(guest);
        assert_eq!(ledger.bytes(), 0);
    }

    #[test]
    fn a_growth_that_fails_is_given_back_once() {
        let ledger = Arc::new(CountingLedger::default());
        let mut guest = memory(&ledger, 4 * PAGE);
        assert!(guest.memory_growing(0, PAGE, None).expect("no trap"));
        assert!(guest.memory_growing(PAGE, 3 * PAGE, None).expect("no trap"));
        guest.memory_grow_failed(wasmtime::Error::msg("out of address space")).expect("no trap");
        guest.memory_grow_failed(wasmtime::Error::msg("beyond the type's maximum")).expect("no trap");
        assert_eq!((guest.used, ledger.bytes()), (PAGE as u64, PAGE as u64));
        assert_eq!(guest.peak(), 3 * PAGE as u64);
    }

    #[test]
    fn what_the_machine_has_not_got_is_refused_with_its_reason() {
        let mut guest = GuestMemory::new("app".into(), Arc::new(Poor), UsageGauge::default(), 1 << 30, 1000);
        assert!(!guest.memory_growing(0, PAGE, None).expect("no trap"));
        assert_eq!(guest.denial().and_then(|denial| denial.machine.as_deref()), Some("12 MB short"));
    }

    #[test]
    fn growth_beyond_the_declared_maximum_is_not_charged() {
        let ledger = Arc::new(CountingLedger::default());
        let mut guest = memory(&ledger, 4 * PAGE);
        assert!(!guest.memory_growing(0, 2 * PAGE, Some(PAGE)).expect("no trap"));
        assert!(!guest.table_growing(0, 1001, None).expect("no trap"));
        assert_eq!(ledger.bytes(), 0);
    }
}
