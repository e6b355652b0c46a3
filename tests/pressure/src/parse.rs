//! The few formats of the kernel that the test reads. Pure.

/// The number after `key` in lines of `key number`, as `memory.stat`, `memory.events` and `memory.oom_control` have them.
pub(crate) fn field(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}

/// Bytes of a field of `/proc/PID/status`, whose lines are `Key:\tnumber kB`.
pub(crate) fn status_bytes(text: &str, key: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
    rest.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// This process's group of a version 1 controller, below its mount, from `/proc/self/cgroup`.
pub(crate) fn v1_group<'a>(text: &'a str, controller: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let (_, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        controllers.split(',').any(|name| name == controller).then(|| path.trim_start_matches('/'))
    })
}

/// This process's group of version 2, below its mount.
pub(crate) fn v2_group(text: &str) -> Option<&str> {
    text.lines().find_map(|line| line.strip_prefix("0::")).map(|path| path.trim_start_matches('/'))
}

/// Devices and files that the machine swaps to, from `/proc/swaps`.
pub(crate) fn swaps(text: &str) -> Vec<&str> {
    text.lines().skip(1).filter_map(|line| line.split_whitespace().next()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &str = "cache 221184\nrss 1912832\nswap 4096\nswapcached 12288\ntotal_swap 8192\n";

    #[test]
    fn a_field_is_found_by_its_whole_name() {
        assert_eq!(field(STAT, "swap"), Some(4096));
        assert_eq!(field(STAT, "swapcached"), Some(12288));
        assert_eq!(field(STAT, "swa"), None);
        assert_eq!(field("oom_kill_disable 0\nunder_oom 0\noom_kill 3\n", "oom_kill"), Some(3));
        assert_eq!(field("swap many\n", "swap"), None);
        assert_eq!(field("", "swap"), None);
    }

    #[test]
    fn a_status_is_in_kibibytes() {
        let status = "Name:\tlocara\nVmRSS:\t  457020 kB\nRssAnon:\t  231000 kB\nVmSwap:\t       0 kB\nThreads:\t9\n";
        assert_eq!(status_bytes(status, "RssAnon"), Some(231_000 * 1024));
        assert_eq!(status_bytes(status, "VmSwap"), Some(0));
        assert_eq!(status_bytes(status, "Rss"), None);
        assert_eq!(status_bytes(status, "Threads"), None, "not bytes");
    }

    #[test]
    fn groups_of_both_versions_are_told_apart() {
        let hybrid = "9:name=systemd:/\n4:cpu,memory:/a/b\n0::/c\n";
        assert_eq!(v1_group(hybrid, "memory"), Some("a/b"));
        assert_eq!(v1_group(hybrid, "mem"), None);
        assert_eq!(v2_group(hybrid), Some("c"));
        assert_eq!(v1_group("0::/user.slice\n", "memory"), None);
        assert_eq!(v2_group("4:memory:/a\n"), None);
    }

    #[test]
    fn swaps_are_listed_without_the_heading() {
        let text = "Filename\t\t\tType\t\tSize\t\tUsed\t\tPriority\n/dev/zram0   partition\t1048572\t0\t-2\n";
        assert_eq!(swaps(text), ["/dev/zram0"]);
        assert!(swaps("Filename\t\t\tType\t\tSize\t\tUsed\t\tPriority\n").is_empty());
    }
}
