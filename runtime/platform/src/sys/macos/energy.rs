//! Heat and power, from Foundation and IOKit.

#![allow(unsafe_code, reason = "power sources are untyped dictionaries; each call says why it is sound")]

use objc2_core_foundation::{CFDictionary, CFNumber, CFRetained, CFString, CFType};
use objc2_foundation::{NSProcessInfo, NSProcessInfoThermalState};
use objc2_io_kit::{
    IOPSCopyPowerSourcesInfo, IOPSCopyPowerSourcesList, IOPSGetPowerSourceDescription, IOPSGetProvidingPowerSourceType,
};

use crate::{Power, PowerSource, Thermal};

/// How hot the machine is.
pub(super) fn thermal() -> Option<Thermal> {
    match NSProcessInfo::processInfo().thermalState() {
        NSProcessInfoThermalState::Nominal => Some(Thermal::Nominal),
        NSProcessInfoThermalState::Fair => Some(Thermal::Fair),
        NSProcessInfoThermalState::Serious => Some(Thermal::Serious),
        NSProcessInfoThermalState::Critical => Some(Thermal::Critical),
        _ => None,
    }
}

/// What feeds the machine, and whether Low Power Mode is on.
pub(super) fn power() -> Power {
    let saver = NSProcessInfo::processInfo().isLowPowerModeEnabled();
    let Some(snapshot) = IOPSCopyPowerSourcesInfo() else { return Power { saver, ..Power::default() } };
    // SAFETY: the snapshot comes from the call that makes snapshots.
    let feeding = unsafe { IOPSGetProvidingPowerSourceType(Some(&snapshot)) };
    // The values of `kIOPMACPowerKey`, `kIOPMBatteryPowerKey` and `kIOPMUPSPowerKey` in `IOPSKeys.h` and `IOPS.h`.
    let source = match feeding.map(|name| name.to_string()).as_deref() {
        Some("AC Power") => PowerSource::Mains,
        Some("Battery Power" | "UPS Power") => PowerSource::Battery,
        _ => PowerSource::Unknown,
    };
    Power { source, battery_percent: battery_percent(&snapshot), saver }
}

/// How full the machine's own battery is.
fn battery_percent(snapshot: &CFType) -> Option<u8> {
    // SAFETY: the snapshot comes from the call that makes snapshots.
    let sources = unsafe { IOPSCopyPowerSourcesList(Some(snapshot)) }?;
    // SAFETY: an array of objects, which is what the call documents; nothing is said about their type.
    let sources = unsafe { CFRetained::cast_unchecked::<objc2_core_foundation::CFArray<CFType>>(sources) };
    sources.iter().find_map(|source| {
        // SAFETY: the snapshot and one entry of its list.
        let description = unsafe { IOPSGetPowerSourceDescription(Some(snapshot), Some(&source)) }?;
        // SAFETY: a dictionary with text keys, which is what the call documents; nothing is said about the values.
        let description = unsafe { CFRetained::cast_unchecked::<CFDictionary<CFString, CFType>>(description) };
        let text =
            |key| Some(description.get(&CFString::from_static_str(key))?.downcast::<CFString>().ok()?.to_string());
        let number = |key| description.get(&CFString::from_static_str(key))?.downcast::<CFNumber>().ok()?.as_i64();
        // Keys and values of `IOPSKeys.h`; a UPS or a mouse is another type.
        if text("Type")? != "InternalBattery" {
            return None;
        }
        let percent = number("Current Capacity")?.checked_mul(100)?.checked_div(number("Max Capacity")?)?;
        u8::try_from(percent).ok().filter(|percent| *percent <= 100)
    })
}
