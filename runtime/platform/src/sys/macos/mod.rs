//! macOS: sysctl, Mach and Metal.

mod energy;
mod files;
mod gpu;
mod mach;
mod sysctl;
mod watch;

use std::path::Path;

use fs_err as fs;
use objc2::rc::autoreleasepool;

use crate::{
    Evicted, FileResidency, MachineFacts, MappingMemory, MemoryNow, Platform, PlatformError, PressureWatch,
    ProcessMemory, Qos, Sample,
};

/// macOS, on Apple silicon or Intel.
#[derive(Debug, Clone, Copy, Default)]
pub struct MacOs;

impl Platform for MacOs {
    fn machine(&self) -> Result<MachineFacts, PlatformError> {
        let physical_cores = sysctl::number::<u32>(c"hw.physicalcpu")?;
        // Level 0 is the fastest cluster. Intel has no levels: all its cores are alike.
        let performance_cores = sysctl::number::<u32>(c"hw.perflevel0.physicalcpu").unwrap_or(physical_cores);
        Ok(MachineFacts {
            os: "macos".to_owned(),
            os_version: sysctl::text(c"kern.osproductversion").unwrap_or_default(),
            cpu: sysctl::text(c"machdep.cpu.brand_string").unwrap_or_else(|_| std::env::consts::ARCH.to_owned()),
            ram_bytes: sysctl::number::<u64>(c"hw.memsize")?,
            // There are no control groups.
            memory_limit_bytes: None,
            page_bytes: mach::page_bytes(),
            physical_cores: physical_cores.max(1),
            performance_cores: performance_cores.max(1),
            gpu: gpu::facts(),
        })
    }

    fn memory(&self) -> Result<MemoryNow, PlatformError> {
        let statistics = mach::statistics()?;
        let swap = sysctl::swap()?;
        let page = mach::page_bytes();
        let pages = |count: u32| u64::from(count).saturating_mul(page);
        // The kernel's own rule for its first warning is "the compressor occupies more than all that is not wired".
        // The free count includes speculative pages already.
        let loose = pages(statistics.active_count)
            .saturating_add(pages(statistics.inactive_count))
            .saturating_add(pages(statistics.free_count));
        let compressed = pages(statistics.compressor_page_count);
        Ok(MemoryNow {
            available_bytes: loose.saturating_sub(compressed),
            critical_available_bytes: Some(critical_available_bytes(loose, compressed)),
            free_bytes: pages(statistics.free_count),
            swap_total_bytes: swap.xsu_total,
            swap_used_bytes: swap.xsu_used,
            swapped_in_bytes: statistics.swapins.saturating_mul(page),
            swapped_out_bytes: statistics.swapouts.saturating_mul(page),
            wired_bytes: Some(pages(statistics.wire_count)),
            compressed_bytes: Some(compressed),
        })
    }

    fn process(&self) -> Result<ProcessMemory, PlatformError> {
        // The structure is packed, so its fields are copied out and never borrowed.
        let task = mach::task()?;
        Ok(ProcessMemory {
            rss_file_bytes: task.external,
            rss_anon_bytes: task.internal,
            // Shared memory without a file is counted as internal.
            rss_shmem_bytes: 0,
            swapped_bytes: task.compressed,
            footprint_bytes: Some(task.phys_footprint),
            gpu_bytes: gpu::allocated_bytes(),
        })
    }

    fn mapping(&self, path: &Path) -> Result<MappingMemory, PlatformError> {
        mach::mapping(&fs::canonicalize(path)?)
    }

    fn sample(&self, folder: &Path) -> Result<Sample, PlatformError> {
        // Threads of the host have no pool of their own, and what frameworks leave to one would pile up.
        autoreleasepool(|_| {
            Ok(Sample {
                memory: self.memory()?,
                process: self.process()?,
                pressure: sysctl::pressure_level(),
                stall: None,
                group: None,
                thermal: energy::thermal(),
                power: energy::power(),
                disk_free_bytes: super::disk_free_bytes(folder),
            })
        })
    }

    fn watch_pressure(&self) -> Result<Box<dyn PressureWatch>, PlatformError> {
        Ok(Box::new(watch::Watch::start()))
    }

    fn residency(&self, path: &Path) -> Result<FileResidency, PlatformError> {
        let file = fs::canonicalize(path)?;
        Ok(FileResidency {
            file_bytes: fs::metadata(&file)?.len(),
            // Only `mincore` on a mapping tells, page by page.
            cached_bytes: None,
            resident_bytes: mach::mapping(&file)?.resident_bytes,
        })
    }

    fn evict(&self, path: &Path) -> Result<Evicted, PlatformError> {
        files::evict(&fs::canonicalize(path)?)
    }

    fn prefetch(&self, path: &Path) -> Result<u64, PlatformError> {
        files::prefetch(&fs::canonicalize(path)?)
    }

    fn release_heap(&self) {
        files::release_heap();
    }

    fn set_thread_qos(&self, qos: Qos) -> Result<(), PlatformError> {
        let class = match qos {
            Qos::Utility => libc::qos_class_t::QOS_CLASS_UTILITY,
            Qos::UserInitiated => libc::qos_class_t::QOS_CLASS_USER_INITIATED,
            Qos::UserInteractive => libc::qos_class_t::QOS_CLASS_USER_INTERACTIVE,
        };
        // SAFETY: takes two plain values and touches nothing but the calling thread.
        #[allow(unsafe_code, reason = "there is no safe wrapper for it")]
        let error = unsafe { libc::pthread_set_qos_class_self_np(class, 0) };
        if error == 0 {
            return Ok(());
        }
        let call = format!("pthread_set_qos_class_self_np({qos:?})");
        Err(PlatformError::Call { call, source: std::io::Error::from_raw_os_error(error) })
    }
}

/// What can be wired before the kernel calls its state critical. With `loose` N and `compressed` C its rule is N < 12/35 (N + C):
/// `VM_PRESSURE_WARNING_TO_CRITICAL` of `vm_pageout.c`, 12/10 of a 35th times ten. Wiring w takes it from N, so w is where
/// N − w = 12/35 (N − w + C), that is (35 N − 12 (N + C)) / 23.
fn critical_available_bytes(loose: u64, compressed: u64) -> u64 {
    let all = u128::from(loose) + u128::from(compressed);
    let left = (35 * u128::from(loose)).saturating_sub(12 * all) / 23;
    u64::try_from(left).unwrap_or(u64::MAX)
}
