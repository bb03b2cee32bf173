//! Is there one order of the operations, within the times they took, that explains what
//! every client was told?  (Wing and Gong's search with Lowe's memory of visited states.)
//!
//! An operation of unknown outcome may take effect at any time after it was asked for, or
//! never.  Everything else takes effect exactly once between its call and its return.
//!
//! Many unknown outcomes would make the search explode.  But an unknown operation has no
//! deadline, so it may be put off as long as nothing looks at what it does: it is tried
//! only right before an operation for which it makes a difference.  And of those whose
//! content nobody ever saw, one is as good as another: only the oldest is tried.

use std::collections::{BTreeSet, HashSet};

use crate::history::{Action, Content, Op, State, Told};

/// Beyond this the history is too concurrent to decide: an error, never a pass.
const VISITED_LIMIT: usize = 3_000_000;

#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    Linearizable,
    /// The longest explained prefix, the state after it, and what fits nothing.
    Impossible(String),
    Undecided,
}

/// `initial` is the state before the first operation.
pub fn check(ops: &[Op], initial: State) -> Verdict {
    let (mut known, mut unknown): (Vec<&Op>, Vec<&Op>) = ops.iter().partition(|op| op.told != Told::Unknown);
    known.sort_by_key(|op| op.invoked);
    unknown.sort_by_key(|op| op.invoked);
    let seen = Seen::of(ops);
    let kinds = unknown.iter().map(|op| seen.kind(op.action)).collect();
    let search = Search {
        known,
        unknown,
        kinds,
        visited: HashSet::new(),
        best: Vec::new(),
    };
    search.run(initial)
}

struct Search<'a> {
    known: Vec<&'a Op>,
    unknown: Vec<&'a Op>,
    /// Of the unknown ones; equal kinds are interchangeable.
    kinds: Vec<Option<Kind>>,
    visited: HashSet<(Done, State, Unproven)>,
    /// The longest order found so far, for the report.
    best: Vec<Step>,
}

/// Which operations have taken effect.  Known ones are nearly a prefix of the order of
/// their calls, so `from` counts that prefix and `beyond` lists the rest.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Done {
    from: usize,
    beyond: Vec<usize>,
    unknown: Vec<bool>,
}

/// Operations that no answer could ever tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Delete,
    UnseenPut,
    UnseenCreate,
    UnseenPatch,
}

/// What anybody's answer or condition referred to.
struct Seen {
    tags: BTreeSet<u64>,
    ns: BTreeSet<u64>,
}

/// The state before the last step, when that was an unknown operation: the next one has to
/// show the difference.
type Unproven = Option<State>;

#[derive(Clone, Copy, Debug)]
enum Step {
    Known(usize),
    Unknown(usize),
}

struct Frame {
    done: Done,
    state: State,
    choices: Vec<(Step, State)>,
}

impl Search<'_> {
    fn run(mut self, initial: State) -> Verdict {
        let done = Done {
            from: 0,
            beyond: Vec::new(),
            unknown: vec![false; self.unknown.len()],
        };
        let mut stack = vec![self.frame(done, initial, None)];
        let mut path: Vec<Step> = Vec::new();
        while let Some(top) = stack.last_mut() {
            if top.done.from == self.known.len() {
                return Verdict::Linearizable;
            }
            let Some((step, state)) = top.choices.pop() else {
                stack.pop();
                path.pop();
                continue;
            };
            let done = top.done.with(step);
            let unproven = matches!(step, Step::Unknown(_)).then_some(top.state);
            if !self.visited.insert((done.clone(), state, unproven)) {
                continue;
            }
            if self.visited.len() > VISITED_LIMIT {
                return Verdict::Undecided;
            }
            path.push(step);
            if path.len() > self.best.len() {
                self.best.clone_from(&path);
            }
            let frame = self.frame(done, state, unproven);
            stack.push(frame);
        }
        Verdict::Impossible(self.report(initial))
    }

    /// What may take effect next.  The last choice is tried first, so the likely ones
    /// (known, returned early) come last.
    fn frame(&self, done: Done, state: State, unproven: Unproven) -> Frame {
        let mut choices = Vec::new();
        let mut open = self.open(&done);
        let earliest_return = open
            .iter()
            .map(|at| self.known[*at].returned)
            .min()
            .unwrap_or(u64::MAX);
        let shows = |op: &Op| unproven.is_none_or(|before| shows_the_difference(op, before, state));
        let mut tried = BTreeSet::new();
        for (at, op) in self.unknown.iter().enumerate() {
            let may = !done.unknown[at] && op.invoked <= earliest_return && shows(op);
            // Taking effect without changing anything is the same as never.
            let next = if may {
                op.applied_to(state).filter(|next| *next != state)
            } else {
                None
            };
            if let Some(next) = next
                && self.kinds[at].is_none_or(|kind| tried.insert(kind))
            {
                choices.push((Step::Unknown(at), next));
            }
        }
        choices.reverse();
        open.retain(|at| self.known[*at].invoked <= earliest_return && shows(self.known[*at]));
        open.sort_by_key(|at| std::cmp::Reverse(self.known[*at].returned));
        for at in open {
            if let Some(next) = self.known[at].applied_to(state) {
                choices.push((Step::Known(at), next));
            }
        }
        Frame { done, state, choices }
    }

    /// Known operations that have not taken effect and are called before the first of
    /// them returns.
    fn open(&self, done: &Done) -> Vec<usize> {
        let mut open = Vec::new();
        let mut earliest_return = u64::MAX;
        for at in done.from..self.known.len() {
            let op = self.known[at];
            if op.invoked > earliest_return {
                break;
            }
            if !done.beyond.contains(&at) {
                earliest_return = earliest_return.min(op.returned);
                open.push(at);
            }
        }
        open
    }

    fn report(&self, initial: State) -> String {
        let mut state = initial;
        let mut done = Done {
            from: 0,
            beyond: Vec::new(),
            unknown: vec![false; self.unknown.len()],
        };
        let mut lines = Vec::new();
        for step in &self.best {
            let op = match step {
                Step::Known(at) => self.known[*at],
                Step::Unknown(at) => self.unknown[*at],
            };
            state = op.applied_to(state).unwrap_or(state);
            done = done.with(*step);
            lines.push(format!("  {op}"));
        }
        let from = lines.len().saturating_sub(25);
        let stuck: Vec<String> = self
            .open(&done)
            .iter()
            .map(|at| format!("  {}", self.known[*at]))
            .collect();
        let unknown = self.unknown.iter().zip(&done.unknown).filter(|(_, done)| !**done);
        let unknown: Vec<String> = unknown.map(|(op, _)| format!("  {op}")).collect();
        format!(
            "explained (the last of {}):\n{}\nleaves {state:?}, but then\n{}\nunknown and unused:\n{}",
            lines.len(),
            lines[from..].join("\n"),
            stuck.join("\n"),
            unknown.join("\n"),
        )
    }
}

impl Seen {
    fn of(ops: &[Op]) -> Self {
        let mut seen = Self {
            tags: BTreeSet::new(),
            ns: BTreeSet::new(),
        };
        for op in ops {
            if let Told::Saw(Some(content)) = op.told {
                seen.note(content);
            }
            match op.action {
                Action::Swap { from, .. } => seen.note(from),
                Action::SwapTag { tag, .. } => drop(seen.tags.insert(tag)),
                _ => {}
            }
        }
        seen
    }

    fn note(&mut self, content: Content) {
        self.tags.insert(content.tag);
        self.ns.insert(content.n);
    }

    fn kind(&self, action: Action) -> Option<Kind> {
        let unseen = |content: Content| !self.tags.contains(&content.tag) && !self.ns.contains(&content.n);
        match action {
            Action::Delete => Some(Kind::Delete),
            Action::Put(content) if unseen(content) => Some(Kind::UnseenPut),
            Action::CreateIfAbsent(content) if unseen(content) => Some(Kind::UnseenCreate),
            Action::Patch(n) if !self.ns.contains(&n) => Some(Kind::UnseenPatch),
            _ => None,
        }
    }
}

/// False when the operation does the same to both states, or nothing to either.
fn shows_the_difference(op: &Op, one: State, other: State) -> bool {
    let (after_one, after_other) = (op.applied_to(one), op.applied_to(other));
    let passive = after_one == Some(one) && after_other == Some(other);
    after_one != after_other && !passive
}

impl Done {
    fn with(&self, step: Step) -> Self {
        let mut next = self.clone();
        match step {
            Step::Unknown(at) => next.unknown[at] = true,
            Step::Known(at) => {
                let place = next.beyond.partition_point(|other| *other < at);
                next.beyond.insert(place, at);
                while next.beyond.first() == Some(&next.from) {
                    next.beyond.remove(0);
                    next.from += 1;
                }
            }
        }
        next
    }
}

#[cfg(test)]
mod tests;
