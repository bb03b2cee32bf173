//! The one place in this crate that leaves the async threads.

/// Runs file system calls on tokio's blocking pool: one hop (10–20 µs) for a whole
/// operation, never one per system call.  The work runs to its end even when the caller
/// is dropped.
#[expect(
    clippy::disallowed_methods,
    reason = "file I/O has no owner that could carry a `Tasks`"
)]
pub(crate) async fn run<T: Send + 'static>(
    work: impl FnOnce() -> object_store::Result<T> + Send + 'static,
) -> object_store::Result<T> {
    tokio::task::spawn_blocking(work).await?
}

/// Work that nobody waits for.
#[expect(
    clippy::disallowed_methods,
    reason = "file I/O has no owner that could carry a `Tasks`"
)]
pub(crate) fn start(work: impl FnOnce() + Send + 'static) {
    drop(tokio::task::spawn_blocking(work));
}
