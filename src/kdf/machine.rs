//! Defaults for Argon2 memory and lanes, from the machine's memory and CPUs.

use std::fs;
use std::thread;

/// Default memory in KiB: half of the machine's memory or of the container's limit, at most 1 GiB.
pub(crate) fn default_argon2_memory() -> u32 {
    let limit = fs::read_to_string(CGROUP_LIMIT).ok();
    half(physical_memory(), limit.as_deref().and_then(cgroup_limit))
}

/// Default lanes: one per thread that can run in parallel, at most 4.
pub(crate) fn default_argon2_parallelism() -> u32 {
    let threads = thread::available_parallelism().map_or(1, usize::from);
    u32::try_from(threads).map_or(MOST_LANES, |threads| threads.min(MOST_LANES))
}

/// Half of the smaller figure, in KiB, within bounds.
fn half(physical: Option<u64>, limit: Option<u64>) -> u32 {
    let bytes = physical.into_iter().chain(limit).min().unwrap_or(u64::MAX);
    let kib = u32::try_from(bytes / 2 / 1024).unwrap_or(u32::MAX);
    kib.clamp(LEAST_MEMORY, MOST_MEMORY)
}

/// Bytes of memory in this machine. `None` on systems without `/proc/meminfo`.
fn physical_memory() -> Option<u64> {
    total(&fs::read_to_string("/proc/meminfo").ok()?)
}

/// Value of `MemTotal` in bytes; see `proc_meminfo(5)`.
fn total(meminfo: &str) -> Option<u64> {
    let value = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    value.trim().strip_suffix(" kB")?.parse::<u64>().ok()?.checked_mul(1024)
}

/// Memory limit of a control group in bytes. `None` for `max`.
fn cgroup_limit(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

/// Limit of the topmost visible control group (cgroup v2). In a container that is its own.
const CGROUP_LIMIT: &str = "/sys/fs/cgroup/memory.max";

/// Maximum in KiB, as in cryptsetup, so that machines with less memory can open the keyslot.
const MOST_MEMORY: u32 = 1 << 20;

/// Minimum in KiB: 8 per lane, which is also cryptsetup's minimum.
const LEAST_MEMORY: u32 = 8 * MOST_LANES;

/// Maximum of lanes, as in cryptsetup.
const MOST_LANES: u32 = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_what_there_is() {
        const GIB: u64 = 1 << 30;
        assert_eq!(half(None, None), MOST_MEMORY);
        assert_eq!(half(Some(16 * GIB), None), MOST_MEMORY);
        assert_eq!(half(Some(GIB), None), MOST_MEMORY / 2);
        assert_eq!(half(Some(16 * GIB), Some(GIB / 2)), MOST_MEMORY / 4);
        assert_eq!(half(Some(GIB), Some(u64::MAX)), MOST_MEMORY / 2);
        assert_eq!(half(None, Some(4096)), LEAST_MEMORY);
    }

    #[test]
    fn limits_of_control_groups() {
        assert_eq!(cgroup_limit("max\n"), None);
        assert_eq!(cgroup_limit(""), None);
        assert_eq!(cgroup_limit("536870912\n"), Some(512 << 20));
    }

    #[test]
    fn memory_by_the_kernel() {
        assert_eq!(total("MemTotal:       16384 kB\nMemFree:   1 kB\n"), Some(16 << 20));
        assert_eq!(total("MemFree:   1 kB\n"), None);
        assert_eq!(total("MemTotal: many\n"), None);
    }

    #[test]
    fn of_this_machine() {
        assert!(physical_memory().is_some_and(|bytes| bytes > 1 << 20));
        assert!((LEAST_MEMORY..=MOST_MEMORY).contains(&default_argon2_memory()));
        assert!((1..=MOST_LANES).contains(&default_argon2_parallelism()));
    }
}
