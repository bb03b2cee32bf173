//! How much memory this process may use and uses.

use std::path::Path;

use crate::byte_size::ByteSize;

/// Of the limit, for a process without one: enough to start on.
const FALLBACK: u64 = 2 << 30;

/// Three quarters of what the machine or the container has.
pub fn default_limit() -> ByteSize {
    let limits = [
        cgroup(Path::new("/sys/fs/cgroup/memory.max")),
        cgroup(Path::new("/sys/fs/cgroup/memory/memory.limit_in_bytes")),
        kib_line(Path::new("/proc/meminfo"), "MemTotal:"),
    ];
    let least = limits.into_iter().flatten().min().unwrap_or(FALLBACK);
    ByteSize(least / 4 * 3)
}

/// Resident bytes of this process; 0 where `/proc` is not there.
pub fn resident() -> u64 {
    kib_line(Path::new("/proc/self/status"), "VmRSS:").unwrap_or_default()
}

/// The limit of a control group; `max` and the huge number of cgroup v1 mean none.
fn cgroup(path: &Path) -> Option<u64> {
    let limit: u64 = std::fs::read_to_string(path).ok()?.trim().parse().ok()?;
    (limit > 0 && limit < 1 << 50).then_some(limit)
}

/// `Name:   123 kB`
fn kib_line(path: &Path, name: &str) -> Option<u64> {
    let text = std::fs::read_to_string(path).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_uses_some_of_what_it_may() {
        let limit = default_limit();
        assert!(limit > ByteSize(64 << 20));
        assert!((1..limit.0 * 2).contains(&resident()));
    }
}
