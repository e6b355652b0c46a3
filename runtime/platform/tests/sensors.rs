//! A sample of Linux on folders of fixture files, and on the machine the test runs on.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test that cannot continue should say where")]

mod common;

use std::path::Path;

use common::{at, laptop_with};
use fs_err as fs;
use locara_platform::{GroupMemory, Platform, Power, PowerSource, Sample, Stall, Thermal, host};
use tempfile::TempDir;

fn sample(root: &TempDir) -> Sample {
    at(root).sample(root.path()).unwrap()
}

const OWN_GROUP: (&str, &str) = ("proc/self/cgroup", "3:memory:/v1\n0::/user.slice/app.scope\n");
const OWN_PRESSURE: &str = "sys/fs/cgroup/unified/user.slice/app.scope/memory.pressure";
const ALL_PRESSURE: &str = "proc/pressure/memory";

#[test]
fn a_laptop_without_sensors_has_memory_and_a_disk() {
    let root = laptop_with(&[]);
    let now = sample(&root);
    assert_eq!(now.memory, at(&root).memory().unwrap());
    assert_eq!(now.process, at(&root).process().unwrap());
    assert!(now.disk_free_bytes.unwrap() > 0);
    let bare =
        Sample { memory: now.memory, process: now.process, disk_free_bytes: now.disk_free_bytes, ..Sample::default() };
    assert_eq!(now, bare);

    let elsewhere = at(&root).sample(Path::new("/no/such/folder")).unwrap();
    assert_eq!(elsewhere, Sample { disk_free_bytes: None, ..now });
}

#[test]
fn without_figures_of_memory_there_is_no_sample() {
    let root = laptop_with(&[("proc/meminfo", "MemFree: 1 kB\n")]);
    let error = at(&root).sample(root.path()).unwrap_err().to_string();
    assert!(error.contains("proc/meminfo") && error.contains("SwapTotal"), "{error}");
}

#[test]
fn the_own_groups_stalls_come_before_the_machines() {
    let own = "some avg10=1.50 avg60=0.10 avg300=0.00 total=70\nfull avg10=0.25 avg60=0.00 avg300=0.00 total=50\n";
    let all = "some avg10=9.00 avg60=0.00 avg300=0.00 total=900\nfull avg10=8.00 avg60=0.00 avg300=0.00 total=800\n";
    let of_group = Stall { some_avg10: 1.5, full_avg10: 0.25, some_total_us: 70, full_total_us: 50 };
    let of_machine = Stall { some_avg10: 9.0, full_avg10: 8.0, some_total_us: 900, full_total_us: 800 };
    let stall = |files: &[(&str, &str)]| sample(&laptop_with(files)).stall;

    assert_eq!(stall(&[OWN_GROUP, (OWN_PRESSURE, own), (ALL_PRESSURE, all)]), Some(of_group));
    assert_eq!(stall(&[OWN_GROUP, (ALL_PRESSURE, all)]), Some(of_machine));
    assert_eq!(stall(&[OWN_GROUP, (OWN_PRESSURE, ""), (ALL_PRESSURE, all)]), Some(of_machine), "the own file is empty");
    // A kernel without the feature, or one where it is switched off.
    assert_eq!(stall(&[OWN_GROUP]), None);
    // Somebody else's stalls are nobody's.
    assert_eq!(stall(&[OWN_GROUP, ("sys/fs/cgroup/unified/user.slice/memory.pressure", own)]), None);
}

#[test]
fn stalls_that_make_no_sense_are_no_reading() {
    let good = "some avg10=1.00 avg60=0.00 avg300=0.00 total=7\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=5\n";
    let stall = |text: &str| sample(&laptop_with(&[(ALL_PRESSURE, text)])).stall;
    assert!(stall(good).is_some());
    for (from, to) in [
        ("avg10=1.00", "avg10=NaN"),
        ("avg10=1.00", "avg10=inf"),
        ("avg10=1.00", "avg10=-1.00"),
        ("avg10=1.00", "avg10=100.01"),
        ("avg10=1.00", "avg10="),
        ("avg10=1.00 ", ""),
        ("total=7", "total=99999999999999999999999"),
        ("total=7", "total=-7"),
        ("full", "half"),
    ] {
        assert_eq!(stall(&good.replacen(from, to, 1)), None, "{from} became {to}");
    }
}

#[test]
fn the_group_with_the_least_left_is_in_the_sample() {
    let v2 = laptop_with(&[
        OWN_GROUP,
        ("sys/fs/cgroup/user.slice/memory.max", "3000\n"),
        ("sys/fs/cgroup/user.slice/memory.current", "1000\n"),
        ("sys/fs/cgroup/user.slice/app.scope/memory.max", "9000\n"),
        ("sys/fs/cgroup/user.slice/app.scope/memory.current", "8500\n"),
        ("sys/fs/cgroup/user.slice/app.scope/memory.stat", "inactive_file 300\n"),
    ]);
    assert_eq!(sample(&v2).group, Some(GroupMemory { limit_bytes: 9000, used_bytes: 8200 }));
    assert_eq!(sample(&v2).memory.available_bytes, 800);

    let v1 = laptop_with(&[
        OWN_GROUP,
        ("sys/fs/cgroup/memory/v1/memory.limit_in_bytes", "5000\n"),
        ("sys/fs/cgroup/memory/v1/memory.usage_in_bytes", "6000\n"),
    ]);
    let group = sample(&v1).group.unwrap();
    assert_eq!((group, group.left_bytes()), (GroupMemory { limit_bytes: 5000, used_bytes: 6000 }, 0));
}

/// A thermal zone: its temperature and its trip points.
fn zone(index: u32, temp: &str, trips: &[(&str, &str)]) -> Vec<(String, String)> {
    let folder = format!("sys/class/thermal/thermal_zone{index}");
    let mut files = vec![(format!("{folder}/temp"), temp.to_owned())];
    for (trip, (kind, at)) in trips.iter().enumerate() {
        files.push((format!("{folder}/trip_point_{trip}_type"), format!("{kind}\n")));
        files.push((format!("{folder}/trip_point_{trip}_temp"), format!("{at}\n")));
    }
    files
}

fn with_zones(zones: &[Vec<(String, String)>]) -> TempDir {
    let files: Vec<_> = zones.iter().flatten().map(|(path, text)| (path.as_str(), text.as_str())).collect();
    laptop_with(&files)
}

#[test]
fn heat_is_measured_by_the_trip_points_of_each_zone() {
    let trips = [("active", "40000"), ("passive", "85000"), ("hot", "95000"), ("critical", "105000")];
    let at = |temp: &str| sample(&with_zones(&[zone(0, temp, &trips)])).thermal;
    for (temp, expected) in [
        ("20000", Thermal::Nominal),
        ("79999", Thermal::Nominal),
        ("80000", Thermal::Fair),
        ("84999\n", Thermal::Fair),
        ("85000", Thermal::Serious),
        ("94999", Thermal::Serious),
        ("95000", Thermal::Critical),
    ] {
        assert_eq!(at(temp), Some(expected), "{temp}");
    }
    let critical_alone = |temp: &str| sample(&with_zones(&[zone(0, temp, &[("critical", "105000")])])).thermal;
    assert_eq!(critical_alone("99999"), Some(Thermal::Nominal));
    assert_eq!(critical_alone("100000"), Some(Thermal::Critical), "before the machine switches itself off");
}

#[test]
fn the_hottest_zone_counts_and_broken_ones_do_not() {
    let passive = [("passive", "85000")];
    let zones = [
        zone(0, "30000", &passive),
        zone(1, "86000", &passive),
        // A radio that is switched off, a sensor that does not know, and one without trip points.
        zone(2, "", &passive),
        zone(3, "-274000", &passive),
        zone(4, "99000", &[]),
        zone(10, "99000", &[("active", "50000")]),
    ];
    assert_eq!(sample(&with_zones(&zones)).thermal, Some(Thermal::Serious));
    assert_eq!(sample(&with_zones(&zones[2..])).thermal, None);

    // Trip points that are not set, or that nothing can reach, trip nothing; the one after them still does.
    let unset =
        [("passive", "0"), ("passive", "-274000"), ("hot", "9999999999"), ("critical", "x"), ("passive", "60000")];
    assert_eq!(sample(&with_zones(&[zone(0, "61000", &unset)])).thermal, Some(Thermal::Serious));
    assert_eq!(sample(&with_zones(&[zone(0, "61000", &unset[..4])])).thermal, None);
}

#[test]
fn a_sensor_that_vanishes_is_none_and_the_rest_goes_on() {
    let root = with_zones(&[zone(0, "86000", &[("passive", "85000")])]);
    let before = sample(&root);
    assert_eq!(before.thermal, Some(Thermal::Serious));
    fs::remove_file(root.path().join("sys/class/thermal/thermal_zone0/temp")).unwrap();
    let after = sample(&root);
    assert_eq!((after.thermal, after.memory), (None, before.memory));
}

/// Power supplies: `name/file` and its text.
fn power(files: &[(&str, &str)]) -> Power {
    let files: Vec<_> =
        files.iter().map(|(path, text)| (format!("sys/class/power_supply/{path}"), format!("{text}\n"))).collect();
    let files: Vec<_> = files.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
    sample(&laptop_with(&files)).power
}

#[test]
fn power_comes_from_the_wall_or_from_a_battery() {
    use PowerSource::{Battery, Mains, Unknown};
    let battery = |status| [("BAT0/type", "Battery"), ("BAT0/status", status), ("BAT0/capacity", "73")];
    let wall = |online| [("AC/type", "Mains"), ("AC/online", online)];
    let of = |files: &[&[(&str, &str)]]| {
        let power = power(&files.concat());
        (power.source, power.battery_percent)
    };
    assert_eq!(of(&[]), (Unknown, None));
    assert_eq!(of(&[&wall("1"), &battery("Charging")]), (Mains, Some(73)));
    assert_eq!(of(&[&wall("0"), &battery("Discharging")]), (Battery, Some(73)));
    assert_eq!(of(&[&wall("0"), &battery("Unknown")]), (Battery, Some(73)));
    assert_eq!(of(&[&battery("Discharging")]), (Battery, Some(73)));
    assert_eq!(of(&[&battery("Full")]), (Mains, Some(73)));
    assert_eq!(of(&[&battery("Unknown")]), (Unknown, Some(73)));
    assert_eq!(of(&[&wall("1")]), (Mains, None));
    assert_eq!(of(&[&wall("0")]), (Unknown, None), "a machine that runs runs from something");
    assert_eq!(of(&[&[("usb/type", "USB"), ("usb/online", "1")], &battery("Discharging")]), (Mains, Some(73)));
}

#[test]
fn batteries_are_averaged_and_those_of_mice_ignored() {
    let two = [
        ("BAT0/type", "Battery"),
        ("BAT0/status", "Discharging"),
        ("BAT0/capacity", "20"),
        ("BAT1/type", "Battery"),
        ("BAT1/capacity", "80"),
        ("BAT2/type", "Battery"),
        ("BAT2/present", "0"),
        ("BAT2/capacity", "0"),
        ("mouse/type", "Battery"),
        ("mouse/scope", "Device"),
        ("mouse/status", "Discharging"),
        ("mouse/capacity", "1"),
    ];
    assert_eq!((power(&two).source, power(&two).battery_percent), (PowerSource::Battery, Some(50)));
    assert_eq!(power(&two[8..]), Power::default());
    assert_eq!(power(&[("BAT0/type", "Battery"), ("BAT0/capacity", "101")]).battery_percent, None);
    assert_eq!(power(&[("BAT0/type", "Battery"), ("BAT0/capacity", "-1")]).battery_percent, None);
}

#[test]
fn saving_energy_is_read_from_the_profile() {
    let saver = |path: &str, text: &str| sample(&laptop_with(&[(path, text)])).power.saver;
    assert!(saver("sys/firmware/acpi/platform_profile", "low-power\n"));
    assert!(!saver("sys/firmware/acpi/platform_profile", "balanced\n"));
    let preference = "sys/devices/system/cpu/cpu0/cpufreq/energy_performance_preference";
    assert!(saver(preference, "power\n"));
    assert!(!saver(preference, "balance_power\n"));
}

#[test]
fn garbage_in_every_sensor_is_no_reading_and_no_error() {
    let sensors = [
        "proc/self/cgroup",
        "proc/pressure/memory",
        "sys/fs/cgroup/memory.max",
        "sys/fs/cgroup/memory.current",
        "sys/fs/cgroup/memory.pressure",
        "sys/class/thermal/thermal_zone0/temp",
        "sys/class/thermal/thermal_zone0/trip_point_0_type",
        "sys/class/thermal/thermal_zone0/trip_point_0_temp",
        "sys/class/power_supply/BAT0/type",
        "sys/class/power_supply/BAT0/capacity",
        "sys/class/power_supply/BAT0/status",
        "sys/firmware/acpi/platform_profile",
    ];
    let clean = sample(&laptop_with(&[]));
    for garbage in
        [&b""[..], b"\n\n\n", b"\xff\xfe\x00", b"99999999999999999999999999", b"-1", b"NaN", b"some some some ="]
    {
        let root = laptop_with(&[]);
        for sensor in sensors {
            let path = root.path().join(sensor);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, garbage).unwrap();
        }
        let now = Sample { disk_free_bytes: clean.disk_free_bytes, ..sample(&root) };
        assert_eq!(now, clean, "{garbage:?}");
    }
}

#[test]
fn the_machine_at_hand_gives_a_sample() {
    let host = host();
    let folder = TempDir::new().unwrap();
    let now = host.sample(folder.path()).unwrap();
    assert!(now.memory.available_bytes > 0 && now.process.rss_anon_bytes > 0);
    assert!(now.disk_free_bytes.unwrap() > 0);
    assert_eq!(now.pressure, None, "Linux has no such word");
    if fs::read_to_string("/proc/pressure/memory").is_ok() {
        assert!(now.stall.is_some());
    }
}
