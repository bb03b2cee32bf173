//! A process: work that can be stopped in the middle of anything (SIGSTOP, a VM that was
//! paused), continued, and killed at any await.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;
use rhumb_seams::{OnExit, Tasks};
use tokio::task::JoinHandle;

/// A running process.
pub struct Process {
    gate: Gate,
    handle: JoinHandle<()>,
}

impl Process {
    pub fn start(tasks: &Tasks, work: impl Future<Output = ()> + Send + 'static) -> Self {
        let gate = Gate::default();
        let gated = Gated {
            gate: gate.clone(),
            work: Box::pin(work),
        };
        Self {
            gate,
            handle: tasks.spawn("process", OnExit::Fine, gated),
        }
    }

    /// Nothing of it runs until `resume`; its requests under way go on without it.
    pub fn pause(&self) {
        self.gate.0.lock().paused = true;
    }

    pub fn resume(&self) {
        let mut gate = self.gate.0.lock();
        gate.paused = false;
        if let Some(waker) = gate.waker.take() {
            waker.wake();
        }
    }

    pub fn kill(&self) {
        self.handle.abort();
    }

    pub fn has_ended(&self) -> bool {
        self.handle.is_finished()
    }
}

#[derive(Clone, Default)]
struct Gate(Arc<Mutex<GateState>>);

#[derive(Default)]
struct GateState {
    paused: bool,
    waker: Option<Waker>,
}

struct Gated {
    gate: Gate,
    work: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl Future for Gated {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut gate = self.gate.0.lock();
        if gate.paused {
            // Whatever wakes the work meanwhile is seen when it is polled again.
            gate.waker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        drop(gate);
        self.work.as_mut().poll(cx)
    }
}
