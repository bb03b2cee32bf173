//! How many queries run at once.  More wait a moment; those for whom it gets no better are
//! told 429, and so is at once who would have to stand behind too many others: a burst is
//! smoothed and an overload is not piled up.
//!
//! Those who wait take turns by who they are, so that one caller with a thousand queries
//! delays another's single one by one query and not by a thousand.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rhumb_core::{Code, Problem};
use tokio::sync::oneshot;

/// Longer and the client would rather have asked another server.
const WAIT: Duration = Duration::from_secs(2);
/// Waiting per place: with more, the last would wait longer than `WAIT` for ordinary queries
/// of some ten milliseconds.
const QUEUE: usize = 64;

#[derive(Clone, Debug)]
pub struct Gate(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    line: Mutex<Line>,
    most_waiting: usize,
}

#[derive(Debug)]
struct Line {
    free: usize,
    waiting: usize,
    /// Who has somebody waiting, in the order of their turns.
    turns: VecDeque<Arc<str>>,
    by_caller: HashMap<Arc<str>, VecDeque<oneshot::Sender<()>>>,
}

/// A place among those that run; it is free again when this is dropped.
#[derive(Debug)]
pub struct Place(Gate);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.0.line.lock().pass_on();
    }
}

/// Somebody in the line.  One who leaves with the place just given to him passes it on.
struct Waiting {
    called: oneshot::Receiver<()>,
    gate: Gate,
    entered: bool,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if self.entered {
            return;
        }
        let mut line = self.gate.0.line.lock();
        self.called.close();
        match self.called.try_recv() {
            Ok(()) => line.pass_on(),
            // Still in the line: whoever comes to him finds him gone.
            Err(_) => line.waiting -= 1,
        }
    }
}

impl Line {
    fn pass_on(&mut self) {
        while let Some(caller) = self.turns.pop_front() {
            let Some(queue) = self.by_caller.get_mut(&caller) else {
                continue;
            };
            let first = queue.pop_front();
            match queue.is_empty() {
                true => drop(self.by_caller.remove(&caller)),
                false => self.turns.push_back(caller),
            }
            if first.is_some_and(|waiting| waiting.send(()).is_ok()) {
                self.waiting -= 1;
                return;
            }
        }
        self.free += 1;
    }

    fn join(&mut self, caller: &str) -> oneshot::Receiver<()> {
        let (call, called) = oneshot::channel();
        self.waiting += 1;
        match self.by_caller.get_mut(caller) {
            Some(queue) => queue.push_back(call),
            None => {
                let caller: Arc<str> = caller.into();
                self.turns.push_back(caller.clone());
                self.by_caller.insert(caller, VecDeque::from([call]));
            }
        }
        called
    }

    fn standing(&self, caller: &str) -> usize {
        self.by_caller.get(caller).map_or(0, VecDeque::len)
    }
}

impl Gate {
    pub fn new(at_once: usize) -> Self {
        let at_once = at_once.max(1);
        Self(Arc::new(Shared {
            line: Mutex::new(Line {
                free: at_once,
                waiting: 0,
                turns: VecDeque::new(),
                by_caller: HashMap::new(),
            }),
            most_waiting: at_once.saturating_mul(QUEUE),
        }))
    }

    /// `caller` is asked for only when there is no place.
    pub async fn enter(&self, caller: impl FnOnce() -> String) -> Result<Place, Problem> {
        let mut waiting = {
            let mut line = self.0.line.lock();
            if line.free > 0 {
                line.free -= 1;
                return Ok(Place(self.clone()));
            }
            let caller = caller();
            // Half of the line is for the others, whoever fills it.
            let most = self.0.most_waiting;
            if line.waiting >= most || line.standing(&caller) >= most.div_ceil(2) {
                return Err(busy());
            }
            Waiting {
                called: line.join(&caller),
                gate: self.clone(),
                entered: false,
            }
        };
        match tokio::time::timeout(WAIT, &mut waiting.called).await {
            Ok(Ok(())) => {
                waiting.entered = true;
                Ok(Place(self.clone()))
            }
            Ok(Err(_)) | Err(_) => Err(busy()),
        }
    }
}

fn busy() -> Problem {
    Problem::new(Code::TooManyRequests, "too many queries are running")
        .hint("ask again in a moment, or with fewer connections")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn somebody() -> String {
        "somebody".into()
    }

    #[tokio::test(start_paused = true)]
    async fn a_burst_is_smoothed_and_an_overload_turned_away() {
        let gate = Gate::new(1);
        let first = gate.enter(somebody).await.expect("free");
        let refused = gate.enter(somebody).await.expect_err("taken");
        assert_eq!(refused.code, Code::TooManyRequests);
        let later = async {
            tokio::time::sleep(WAIT / 2).await;
            drop(first);
        };
        let (second, ()) = tokio::join!(gate.enter(somebody), later);
        assert!(second.is_ok(), "free in time");
    }

    #[tokio::test(start_paused = true)]
    async fn who_would_stand_behind_too_many_is_told_at_once() {
        let gate = Gate::new(1);
        let _first = gate.enter(somebody).await.expect("free");
        let mut line: Vec<_> = (0..QUEUE / 2).map(|_| Box::pin(gate.enter(somebody))).collect();
        for waiting in &mut line {
            assert!(futures::poll!(waiting).is_pending());
        }
        let begun = tokio::time::Instant::now();
        let refused = gate.enter(somebody).await.expect_err("half of the line is his");
        assert_eq!(refused.code, Code::TooManyRequests);
        assert_eq!(begun.elapsed(), Duration::ZERO);
        let mut other = Box::pin(gate.enter(|| "another".into()));
        assert!(futures::poll!(&mut other).is_pending(), "the other half is not");
    }

    #[tokio::test(start_paused = true)]
    async fn callers_take_turns() {
        let gate = Gate::new(1);
        let first = gate.enter(somebody).await.expect("free");
        let mut greedy: Vec<_> = (0..20).map(|_| Box::pin(gate.enter(somebody))).collect();
        for waiting in &mut greedy {
            assert!(futures::poll!(waiting).is_pending());
        }
        let mut modest = Box::pin(gate.enter(|| "modest".into()));
        assert!(futures::poll!(&mut modest).is_pending());
        drop(first);
        let second = greedy.remove(0).await.expect("his turn");
        assert!(futures::poll!(&mut modest).is_pending());
        drop(second);
        assert!(modest.await.is_ok(), "one turn of another is all he waited for");
    }

    #[tokio::test(start_paused = true)]
    async fn no_place_is_lost_with_those_who_leave() {
        let gate = Gate::new(1);
        for leave_called in [false, true] {
            let first = gate.enter(somebody).await.expect("free");
            let mut leaving = Box::pin(gate.enter(somebody));
            assert!(futures::poll!(&mut leaving).is_pending());
            if leave_called {
                drop(first);
                drop(leaving);
            } else {
                drop(leaving);
                drop(first);
            }
            let line = gate.0.line.lock();
            assert_eq!((line.free, line.waiting), (1, 0));
        }
    }
}
