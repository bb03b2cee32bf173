//! Readers of other people's formats may panic on broken files.  Here that is a refusal
//! like any other, and no line in the log that reads like a mistake of ours.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};

thread_local! {
    static READING: Cell<bool> = const { Cell::new(false) };
}

/// What a panic of a reader is told as.
pub const SENSELESS: &str = "its reader could make no sense of it";

/// What `read` returns; `None` when it panicked.
pub fn read<T>(read: impl FnOnce() -> T) -> Option<T> {
    READING.set(true);
    let result = catch_unwind(AssertUnwindSafe(read));
    READING.set(false);
    result.ok()
}

/// From here on panics of foreign readers are passed over in silence, all others reported
/// as before.
pub fn hush() {
    let report = take_hook();
    set_hook(Box::new(move |panic| {
        if !READING.get() {
            report(panic);
        }
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_of_a_reader_is_no_answer_and_nothing_more() {
        assert_eq!(read(|| 3), Some(3));
        assert_eq!(read::<u8>(|| panic!("offset 17 of 3")), None);
        assert!(!READING.get());
    }
}
