//! Everything in a sample but memory: stalls, heat, power. A file that is missing or says nonsense is no reading.

use super::{Linux, cgroup};
use crate::{Power, PowerSource, Stall, Thermal};

/// Stalls for want of memory: of the own group, else of the machine.
pub(super) fn stall(linux: &Linux) -> Option<Stall> {
    let own =
        cgroup::pressure_files(linux).into_iter().find_map(|file| stall_of(&linux.read_optional(file.to_str()?)?));
    own.or_else(|| stall_of(&linux.read_optional(PRESSURE)?))
}

/// Stalls of the whole machine.
pub(super) const PRESSURE: &str = "proc/pressure/memory";

/// `some avg10=0.12 avg60=0.00 avg300=0.00 total=345` and the same for `full`.
fn stall_of(text: &str) -> Option<Stall> {
    let line = |kind: &str| {
        let fields = text.lines().find_map(|line| line.strip_prefix(kind)?.strip_prefix(' '))?;
        let field =
            |name: &str| fields.split_whitespace().find_map(|field| field.strip_prefix(name)?.strip_prefix('='));
        let avg10 = field("avg10")?.parse::<f64>().ok().filter(|percent| (0.0..=100.0).contains(percent))?;
        Some((avg10, field("total")?.parse().ok()?))
    };
    let ((some_avg10, some_total_us), (full_avg10, full_total_us)) = (line("some")?, line("full")?);
    Some(Stall { some_avg10, full_avg10, some_total_us, full_total_us })
}

/// The hottest zone, measured by its own trip points.
pub(super) fn thermal(linux: &Linux) -> Option<Thermal> {
    const ZONES: &str = "sys/class/thermal";
    let zones = linux.list(ZONES).into_iter().filter(|name| name.starts_with("thermal_zone"));
    zones.filter_map(|zone| thermal_of(linux, &format!("{ZONES}/{zone}"))).max()
}

/// `None` for a zone without a temperature or without a trip point that means something: fans (`active`) do not.
fn thermal_of(linux: &Linux, zone: &str) -> Option<Thermal> {
    /// `THERMAL_MAX_TRIPS` was 12 when kernels still had a limit; there is none now, so this one only bounds the work.
    const MOST_TRIPS: u32 = 64;
    /// Thousandths of a degree before a trip point that count as close to it.
    const CLOSE: i64 = 5_000;
    let now = millidegrees(linux, &format!("{zone}/temp"))?;
    let trips = (0..MOST_TRIPS).map_while(|trip| {
        let kind = linux.read_optional(&format!("{zone}/trip_point_{trip}_type"))?;
        Some((kind, millidegrees(linux, &format!("{zone}/trip_point_{trip}_temp"))))
    });
    // Zero and below are the firmware's way to say that a trip point is not set.
    let trips = trips.filter_map(|(kind, at)| Some((kind, at.filter(|at| *at > 0)?)));
    let levels = trips.filter_map(|(kind, at)| {
        Some(match kind.trim() {
            "passive" if now >= at => Thermal::Serious,
            "passive" if now >= at - CLOSE => Thermal::Fair,
            "hot" if now >= at => Thermal::Critical,
            "critical" if now >= at - CLOSE => Thermal::Critical,
            "passive" | "hot" | "critical" => Thermal::Nominal,
            _ => return None,
        })
    });
    levels.max()
}

/// Drivers report absolute zero, or more than silicon survives, when they do not know.
fn millidegrees(linux: &Linux, file: &str) -> Option<i64> {
    linux.read_optional(file)?.trim().parse().ok().filter(|value| (-100_000..=200_000).contains(value))
}

/// What feeds the machine, and whether the person asked it to save energy.
pub(super) fn power(linux: &Linux) -> Power {
    let (mut wall_on, mut wall_off, mut charged, mut discharging) = (false, false, false, false);
    let mut percents = Vec::new();
    for name in linux.list("sys/class/power_supply") {
        let field = |field: &str| {
            let text = linux.read_optional(&format!("sys/class/power_supply/{name}/{field}"))?;
            Some(text.trim().to_owned())
        };
        // Batteries of mice and keyboards.
        if field("scope").is_some_and(|scope| scope == "Device") {
            continue;
        }
        match field("type").as_deref() {
            Some("Battery") if field("present").as_deref() != Some("0") => {
                match field("status").as_deref() {
                    Some("Discharging") => discharging = true,
                    Some("Charging" | "Full" | "Not charging") => charged = true,
                    _ => {}
                }
                let percent = field("capacity").and_then(|text| text.parse::<u8>().ok());
                percents.extend(percent.filter(|percent| *percent <= 100));
            }
            // A charger on USB-C is of type `USB`, a UPS on the machine of type `UPS`, which tells nothing by being online.
            Some("Mains" | "USB") => match field("online").as_deref() {
                Some("1") => wall_on = true,
                Some("0") => wall_off = true,
                _ => {}
            },
            _ => {}
        }
    }
    // A weak charger is online while the battery still empties; then the wall is what feeds it, and it will hold longer.
    let source = if wall_on || (charged && !discharging) {
        PowerSource::Mains
    } else if discharging || (wall_off && !percents.is_empty()) {
        PowerSource::Battery
    } else {
        PowerSource::Unknown
    };
    let sum: usize = percents.iter().map(|percent| usize::from(*percent)).sum();
    let battery_percent = sum.checked_div(percents.len()).and_then(|mean| u8::try_from(mean).ok());
    Power { source, battery_percent, saver: saver(linux) }
}

/// The profile of the firmware, or where it has none, of the processor. Both are what the power settings of desktops write.
fn saver(linux: &Linux) -> bool {
    let says = |file: &str, word: &str| linux.read_optional(file).is_some_and(|text| text.trim() == word);
    says("sys/firmware/acpi/platform_profile", "low-power")
        || says("sys/devices/system/cpu/cpu0/cpufreq/energy_performance_preference", "power")
}
