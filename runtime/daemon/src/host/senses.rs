//! What the governor is told about the machine: a reading every second, more often when it is tight, and at once when the
//! kernel speaks up.

use std::{
    path::PathBuf,
    sync::{Arc, Weak},
    time::Duration,
};

use locara_platform::{KernelLevel, Platform, PowerSource, Sample, Thermal};
use locara_policy::{
    Bytes,
    governor::{self, Event, Level},
};
use tokio::{sync::Notify, task::JoinHandle};

use super::governed::Governed;

/// Between two readings while all is calm, and while it is not.
const CALM: Duration = Duration::from_secs(1);
const WATCHFUL: Duration = Duration::from_millis(250);
/// The thread that listens to the kernel looks this often whether its host is still there.
const LISTEN: Duration = Duration::from_secs(1);

/// Reads the sensors for as long as the host is there.
#[derive(Debug)]
pub(crate) struct Senses {
    wake: Arc<Notify>,
    reading: JoinHandle<()>,
}

impl Senses {
    /// Starts to read and to listen. Must be called inside a tokio runtime.
    ///
    /// `disk` names the volume that sessions are spilled to.
    pub(crate) fn start(platform: Arc<dyn Platform>, governed: &Arc<Governed>, disk: PathBuf) -> Self {
        let wake = Arc::new(Notify::new());
        let reading = tokio::spawn(read(platform.clone(), Arc::downgrade(governed), wake.clone(), disk));
        listen(&platform, Arc::downgrade(governed), wake.clone());
        Self { wake, reading }
    }

    /// Takes a reading now: something has just changed.
    pub(crate) fn look(&self) {
        self.wake.notify_one();
    }
}

impl Drop for Senses {
    fn drop(&mut self) {
        self.reading.abort();
    }
}

async fn read(platform: Arc<dyn Platform>, governed: Weak<Governed>, wake: Arc<Notify>, disk: PathBuf) {
    loop {
        let (of_platform, of_disk) = (platform.clone(), disk.clone());
        // Some kernels take milliseconds to add up the pages of a process.
        let sample = tokio::task::spawn_blocking(move || of_platform.sample(&of_disk)).await;
        let Some(governed) = governed.upgrade() else { return };
        match sample {
            Ok(Ok(sample)) => governed.tell(Event::Sample(translated(&sample))),
            Ok(Err(error)) => tracing::warn!(%error, "the memory of the machine cannot be read"),
            Err(_) => return,
        }
        let pause = if governed.level() >= Level::Elevated { WATCHFUL } else { CALM };
        drop(governed);
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = wake.notified() => {}
        }
    }
}

/// Listens on a thread of its own: the kernel's interfaces block.
fn listen(platform: &Arc<dyn Platform>, governed: Weak<Governed>, wake: Arc<Notify>) {
    let mut watch = match platform.watch_pressure() {
        Ok(watch) => watch,
        Err(error) => {
            tracing::info!(%error, "the kernel gives no notice of memory pressure; readings have to do");
            return;
        }
    };
    tracing::debug!(source = watch.describe(), "listening for memory pressure");
    let work = move || {
        while governed.strong_count() > 0 {
            match watch.wait(LISTEN) {
                Ok(None) => {}
                Ok(Some(event)) => {
                    let Some(governed) = governed.upgrade() else { return };
                    // A stall says that memory is short; how short says the reading that follows.
                    let level = event.level.map_or(governor::KernelLevel::Stalled, kernel);
                    governed.tell(Event::Kernel { level });
                    wake.notify_one();
                }
                Err(error) => {
                    tracing::warn!(%error, "the kernel's notice of memory pressure ended; readings have to do");
                    return;
                }
            }
        }
    };
    if let Err(error) = std::thread::Builder::new().name("pressure".into()).spawn(work) {
        tracing::warn!(%error, "no thread to listen for memory pressure; readings have to do");
    }
}

fn kernel(level: KernelLevel) -> governor::KernelLevel {
    match level {
        KernelLevel::Normal => governor::KernelLevel::Normal,
        KernelLevel::Warning => governor::KernelLevel::Warning,
        KernelLevel::Critical => governor::KernelLevel::Critical,
    }
}

/// A reading in the governor's words.
pub(crate) fn translated(sample: &Sample) -> governor::Sample {
    let hundredths = |percent: f64| (percent * 100.0).clamp(0.0, 10_000.0) as u32;
    governor::Sample {
        available: Bytes(sample.memory.available_bytes),
        swap_total: Bytes(sample.memory.swap_total_bytes),
        swap_used: Bytes(sample.memory.swap_used_bytes),
        swapped_out: Bytes(sample.memory.swapped_out_bytes),
        own_file: Bytes(sample.process.rss_file_bytes),
        own_anonymous: Bytes(sample.process.rss_anon_bytes),
        own_swapped: Bytes(sample.process.swapped_bytes),
        kernel: sample.pressure.map(kernel),
        stall: sample
            .stall
            .map(|stall| governor::Stall { some: hundredths(stall.some_avg10), full: hundredths(stall.full_avg10) }),
        thermal: sample.thermal.map(|thermal| match thermal {
            Thermal::Nominal => governor::Thermal::Nominal,
            Thermal::Fair => governor::Thermal::Fair,
            Thermal::Serious => governor::Thermal::Serious,
            Thermal::Critical => governor::Thermal::Critical,
        }),
        on_battery: sample.power.source == PowerSource::Battery,
        saver: sample.power.saver,
        disk_free: sample.disk_free_bytes.map(Bytes),
    }
}
