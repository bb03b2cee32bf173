//! A group commit: requests that share one log object, and what each of them is told.

use std::collections::HashMap;

use rhumb_core::write::Counts;
use rhumb_core::{DocId, Position};
use tokio::sync::oneshot;

use crate::entry::LogEntry;
use crate::error::EngineError;
use crate::judge::Old;
use crate::partition::writer::Applied;

/// One group on its way to the log.
#[derive(Default)]
pub struct Group {
    pub entry: LogEntry,
    /// Documents as the group leaves them; `None` is deleted.
    pub changed: HashMap<DocId, Option<Old>>,
    pub answers: Vec<(oneshot::Sender<Result<Applied, EngineError>>, Verdict)>,
    pub bytes: usize,
    /// Rows by which it changes the partition, counted by the tally already.
    pub growth: i64,
}

pub enum Verdict {
    /// Answered with the group's position.
    Applied(Counts),
    /// A repeat of a request answered before.
    Repeat(Applied),
    Refused(EngineError),
}

impl Group {
    pub fn answer(self, position: Position) {
        self.tell(|counts| Ok(Applied { counts, position }));
    }

    /// Nothing of the group was applied.
    pub fn fail(self, error: impl Fn() -> EngineError) {
        self.tell(|_| Err(error()));
    }

    /// `applied` is what became of those that the group was to apply.
    fn tell(self, applied: impl Fn(Counts) -> Result<Applied, EngineError>) {
        for (reply, verdict) in self.answers {
            let answer = match verdict {
                Verdict::Applied(counts) => applied(counts),
                Verdict::Repeat(first) => Ok(first),
                Verdict::Refused(e) => Err(e),
            };
            // A caller that went away needs no answer.
            let _ = reply.send(answer);
        }
    }
}
