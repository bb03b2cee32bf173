//! The allocator, and what an idle process gives back.
//!
//! An idle server is one of many on its machine.  What it freed stays with the allocator, which
//! only gives back while others allocate; code that ran once, such as for writing a table, stays
//! mapped with all that lies around it.  Both count as memory in use.
#![allow(
    unsafe_code,
    reason = "speaks to the allocator and the kernel about this process's memory"
)]

use std::time::Duration;

use libmimalloc_sys::{mi_collect, mi_option_set_default, mi_option_t};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How long freed memory is kept for whoever allocates next, in milliseconds.  The crate has no
/// name for it.
const PURGE_DELAY: mi_option_t = 15;
const KEPT_MS: i64 = 100;

/// One look at whether the process works.
const EVERY: Duration = Duration::from_secs(10);

/// Less work than this in that time is idle.
const IDLE: Duration = Duration::from_millis(200);

/// From now on.
pub fn give_back_when_idle() {
    // SAFETY: sets a number, which is read at the next purge.
    unsafe { mi_option_set_default(PURGE_DELAY, KEPT_MS) };
    let started = std::thread::Builder::new().name("memory".into()).spawn(watch);
    if let Err(error) = started {
        tracing::warn!(%error, "an idle server will keep what it once used: no thread could be started");
    }
}

fn watch() {
    let (mut used, mut was_idle) = (cpu_time(), false);
    loop {
        std::thread::sleep(EVERY);
        let before = std::mem::replace(&mut used, cpu_time());
        let is_idle = used.saturating_sub(before) < IDLE;
        if is_idle && !was_idle {
            give_back();
        }
        was_idle = is_idle;
    }
}

fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
}

fn give_back() {
    // SAFETY: takes nothing, and any thread may call it at any time.
    unsafe { mi_collect(true) };
    #[cfg(target_os = "linux")]
    unmap_code();
}

/// The page cache has it for as long as there is room, and running it maps it again.
#[cfg(target_os = "linux")]
fn unmap_code() {
    let exe = std::env::current_exe();
    let maps = std::fs::read_to_string("/proc/self/maps");
    let (Ok(exe), Ok(maps)) = (exe, maps) else {
        return;
    };
    for (start, end) in maps.lines().filter_map(|line| code_of(&exe, line)) {
        let first = start as *mut libc::c_void;
        // SAFETY: pages of a file that nobody can have written: they are read again when needed.
        let refused = unsafe { libc::madvise(first, end - start, libc::MADV_DONTNEED) };
        // Then they stay.
        let _ = refused;
    }
}

/// The addresses of a mapping that is code of `exe`.
#[cfg(target_os = "linux")]
fn code_of(exe: &std::path::Path, line: &str) -> Option<(usize, usize)> {
    let mut columns = line.split_ascii_whitespace();
    let (range, permissions, path) = (columns.next()?, columns.next()?, columns.nth(3)?);
    let (start, end) = range.split_once('-')?;
    let address = |text| usize::from_str_radix(text, 16).ok();
    let is_code = permissions == "r-xp" && exe.as_os_str() == path;
    is_code.then_some((address(start)?, address(end)?))
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use super::*;

    #[test]
    fn the_option_without_a_name_is_the_purge_delay() {
        let set = || unsafe { libmimalloc_sys::mi_option_get(PURGE_DELAY) };
        assert_eq!(set(), 1_000, "mimalloc's default");
        give_back_when_idle();
        assert_eq!(set(), KEPT_MS);
    }

    #[test]
    fn code_is_found_given_back_and_runs_on() {
        let maps = std::fs::read_to_string("/proc/self/maps").expect("a proc file system");
        let exe = std::env::current_exe().expect("a program");
        let code = || maps.lines().filter_map(|line| code_of(&exe, line));
        let here = give_back as fn() as usize;
        assert!(code().any(|(start, end)| (start..end).contains(&here)), "{maps}");
        give_back();
        let library = "7f00-7f10 r-xp 00000000 08:01 17   /usr/lib/libc.so.6";
        assert_eq!(code_of(&exe, library), None);
    }
}
