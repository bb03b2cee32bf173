//! Arrays that are read in jumps, on huge pages: a row's codes lie anywhere, and with pages
//! of 4 kB nearly every row costs a walk through the page table.  The allocator asks for
//! none, since a huge page that holds a few live objects is memory lost.
#![allow(unsafe_code, reason = "advice to the kernel about memory takes its address")]

/// Of x86-64, and of 64-bit Arm with pages of 4 kB.
const HUGE_PAGE: usize = 2 << 20;

/// Moves a finished array to huge pages, as far as it fills them; some milliseconds.
pub(crate) fn on_huge_pages<T>(items: &[T]) {
    let (start, bytes) = (items.as_ptr() as usize, size_of_val(items));
    let (first, end) = (
        start.next_multiple_of(HUGE_PAGE),
        (start + bytes) / HUGE_PAGE * HUGE_PAGE,
    );
    if first < end {
        advise(first, end - first);
    }
}

#[cfg(target_os = "linux")]
fn advise(first: usize, bytes: usize) {
    let first = first as *mut libc::c_void;
    // SAFETY: advice about memory that is borrowed here; it changes no byte of it.
    let moved = unsafe { libc::madvise(first, bytes, libc::MADV_COLLAPSE) };
    if moved != 0 {
        // Before Linux 6.1, or no huge page is free now: the kernel may do it in its own time.
        // SAFETY: as above.  Where there are no huge pages at all, small ones do.
        let _ = unsafe { libc::madvise(first, bytes, libc::MADV_HUGEPAGE) };
    }
}

#[cfg(not(target_os = "linux"))]
fn advise(_first: usize, _bytes: usize) {}
