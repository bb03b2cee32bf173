//! Background work with an owner: every task has a name, every end is seen, and one
//! token stops them all.

use std::future::Future;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// What an end that nobody asked for means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnExit {
    /// A loop the process cannot do without: its end stops the process.
    Stop,
    /// Work that is allowed to finish.
    Fine,
}

#[derive(Clone, Debug, Default)]
pub struct Tasks {
    tracker: TaskTracker,
    stop: CancellationToken,
}

impl Tasks {
    pub fn new() -> Self {
        Self::default()
    }

    /// Cancelled when the process is to stop.
    pub fn stopping(&self) -> &CancellationToken {
        &self.stop
    }

    pub fn spawn<F>(&self, name: &'static str, on_exit: OnExit, work: F) -> tokio::task::JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let guard = EndGuard {
            name,
            on_exit,
            stop: self.stop.clone(),
            ended: false,
        };
        self.tracker.spawn(async move {
            let mut guard = guard;
            let output = work.await;
            guard.end();
            output
        })
    }

    /// CPU-bound work off the request threads.  A panic comes back as the error.
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that hands work to the blocking pool"
    )]
    pub async fn compute<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, tokio::task::JoinError> {
        tokio::task::spawn_blocking(work).await
    }

    /// Asks every task to stop and waits until all have ended.
    pub async fn shut_down(&self) {
        self.stop.cancel();
        self.tracker.close();
        self.tracker.wait().await;
    }
}

/// Sees the end of a task however it comes: return, panic or abort.
struct EndGuard {
    name: &'static str,
    on_exit: OnExit,
    stop: CancellationToken,
    ended: bool,
}

impl EndGuard {
    fn end(&mut self) {
        self.ended = true;
        if self.on_exit == OnExit::Stop && !self.stop.is_cancelled() {
            tracing::error!(task = self.name, "a task the process needs has ended: stopping");
            self.stop.cancel();
        }
    }
}

impl Drop for EndGuard {
    fn drop(&mut self) {
        if !self.ended {
            tracing::error!(task = self.name, "task panicked or was aborted");
            if self.on_exit == OnExit::Stop {
                self.stop.cancel();
            }
        }
    }
}
