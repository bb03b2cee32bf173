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

/// How much less a quiet thread counts to the scheduler than one that answers requests.
const QUIET: i32 = 10;

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

    /// Work that may take its time, on a thread of its own with low priority, so that it never
    /// holds up a request.  A panic comes back as `None`.  It goes on when nobody waits for it
    /// any more; what is long looks at `stopping` now and then.
    pub async fn compute_quietly<T: Send + 'static>(
        &self,
        name: &'static str,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let (done, result) = tokio::sync::oneshot::channel();
        let _tracked = self.tracker.token();
        let started = std::thread::Builder::new().name(name.into()).spawn(move || {
            // Refused where priorities are fixed: it then runs like any other thread.
            let _ = rustix::process::nice(QUIET);
            // Nobody waits any more: the result is of no use.
            let _ = done.send(work());
        });
        if let Err(error) = started {
            tracing::error!(task = name, %error, "no thread could be started");
        }
        result.await.ok()
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
            match std::thread::panicking() {
                true => tracing::error!(task = self.name, "task panicked"),
                false => tracing::debug!(task = self.name, "task was given up before its end"),
            }
            if self.on_exit == OnExit::Stop {
                self.stop.cancel();
            }
        }
    }
}
