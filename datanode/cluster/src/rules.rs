//! What a record of a Lease allows: pure, so that every rule is a test.
//!
//! - Time is our own steady clock; no timestamp in the record is trusted.  A record counts
//!   from when we first saw it as it is (P13).
//! - A missing, blanked or foreign-edited record is waited out for a whole duration.  A
//!   blank one with the release mark of who held it may be taken at once.
//! - The same container under a new boot nonce takes at once: its predecessor is dead.
//! - Rank `i` waits `i` steps longer (P12), so that who should lead is the first to try.
//! - Who should lead and does not says so in the record of who does: it hands over to
//!   nobody that is not there.
//! - Who leads and is merely not able to renew stays leader; only another holder ends that
//!   (P16).  One that led and left is not in the record any more: what is neither as the
//!   leader wrote it, nor was seen before its last renewal can have been waited out, ends
//!   it too.
//! - A missing Lease is made blank, and taken only then: every takeover compares and swaps
//!   the very version that was waited out.

use std::time::Duration;

/// Between two ranks.
pub const RANK_STEP: Duration = Duration::from_millis(200);
/// No record makes anybody wait longer, whatever was written into it by hand.
const LONGEST: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug)]
pub struct Timing {
    pub duration: Duration,
    /// A strong read trusts the Lease this long after the last renewal was sent.
    pub renew_deadline: Duration,
    pub retry: Duration,
}

/// `<pod>_<pod uid>_<boot nonce>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub pod: String,
    pub uid: String,
    pub boot: String,
}

impl Identity {
    pub fn parse(text: &str) -> Option<Self> {
        let (rest, boot) = text.rsplit_once('_')?;
        let (pod, uid) = rest.rsplit_once('_')?;
        Some(Self {
            pod: pod.into(),
            uid: uid.into(),
            boot: boot.into(),
        })
    }

    fn is_earlier_start_of(&self, other: &Self) -> bool {
        self.pod == other.pod && self.uid == other.uid && self.boot != other.boot
    }
}

impl std::fmt::Display for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}_{}_{}", self.pod, self.uid, self.boot)
    }
}

/// What a Lease says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// Empty when nobody holds it.
    pub holder: String,
    /// Who blanked it on leaving; taking it removes the mark.
    pub released_by: Option<String>,
    /// Who should lead and is there to do it.
    pub asked_by: Option<String>,
    pub duration: Duration,
}

/// A record, or its absence, and since when we have seen it so.
#[derive(Clone, Debug)]
pub struct Sight {
    pub record: Option<Record>,
    pub since: Duration,
}

#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    pub me: &'a Identity,
    /// Place in `Shard.spec.nodes`, or behind its end.
    pub rank: u32,
    /// It is the one that should lead.
    pub is_first: bool,
    /// It has a term.
    pub leads: bool,
    /// When its last renewal was sent.
    pub renewed: Duration,
    /// The record is one of its own writes, of this term or of the attempt to begin one.
    pub wrote: bool,
    /// Not before this does it take anything; `None`: never.
    pub contends_from: Option<Duration>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Write ourselves into the record: a renewal or a takeover.
    Write,
    /// Make the Lease that is missing, without a holder.
    Create,
    /// Write into the record of another holder that we are there and should lead.
    Ask,
    /// Nothing to do before then, unless the record changes.
    WaitUntil(Duration),
    /// Nothing to do until something changes.
    Wait,
    /// Another process holds it: our term is over.
    Yield,
}

pub fn step(sight: &Sight, who: Candidate<'_>, timing: Timing, now: Duration) -> Step {
    let at = |due: Duration| match due <= now {
        true => Step::Write,
        false => Step::WaitUntil(due),
    };
    let record = sight.record.as_ref();
    let holder = record.map_or("", |record| record.holder.as_str());
    let is_mine = holder == who.me.to_string();
    if who.leads {
        let is_unbroken = is_mine && who.wrote || sight.since < who.renewed + timing.duration;
        return match record {
            _ if !is_unbroken => Step::Yield,
            None => Step::Create,
            Some(_) if is_mine => at(who.renewed + timing.retry),
            // Blanked by a hand: nobody else can have it yet.
            Some(_) if holder.is_empty() => Step::Write,
            Some(_) => Step::Yield,
        };
    }
    if is_mine && who.wrote {
        // The answer of our own write was lost, or we have left and could not say so.
        return take(Duration::ZERO, who, at);
    }
    let predecessor = Identity::parse(holder).is_some_and(|held| held.is_earlier_start_of(who.me));
    if predecessor {
        return take(Duration::ZERO, who, at);
    }
    let patience = match record {
        None => return who.contends_from.map_or(Step::Wait, |_| Step::Create),
        Some(record) if is_released(record) => Duration::ZERO,
        Some(record) => record.duration.min(LONGEST).max(timing.duration),
    };
    let due = sight.since + patience + RANK_STEP * who.rank;
    let may_ask = who.is_first && !holder.is_empty() && who.contends_from.is_some_and(|from| from <= now);
    let has_asked = record.and_then(|record| record.asked_by.as_deref()) == Some(&who.me.to_string());
    match may_ask && !has_asked && now < due {
        true => Step::Ask,
        false => take(due, who, at),
    }
}

fn take(due: Duration, who: Candidate<'_>, at: impl Fn(Duration) -> Step) -> Step {
    who.contends_from.map_or(Step::Wait, |from| at(due.max(from)))
}

fn is_released(record: &Record) -> bool {
    record.holder.is_empty() && record.released_by.is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMING: Timing = Timing {
        duration: Duration::from_secs(4),
        renew_deadline: Duration::from_millis(2_500),
        retry: Duration::from_millis(800),
    };

    fn identity(text: &str) -> Identity {
        Identity::parse(text).expect("pod_uid_boot")
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn held(holder: &str) -> Option<Record> {
        Some(Record {
            holder: holder.into(),
            duration: TIMING.duration,
            ..Record::default()
        })
    }

    /// `a_1_x`, which does not lead, looks at `record`, first seen at 10 s.
    fn look(record: Option<Record>, rank: u32, now: Duration) -> Step {
        let me = identity("a_1_x");
        let sight = Sight {
            record,
            since: ms(10_000),
        };
        let who = Candidate {
            me: &me,
            rank,
            is_first: false,
            leads: false,
            renewed: Duration::ZERO,
            wrote: false,
            contends_from: Some(Duration::ZERO),
        };
        step(&sight, who, TIMING, now)
    }

    /// `a_1_x`, which last renewed at 10 s, looks at `record` as soon as it is there.
    fn lead(record: Option<Record>, now: Duration) -> Step {
        lead_since(record, ms(10_000), now)
    }

    fn lead_since(record: Option<Record>, since: Duration, now: Duration) -> Step {
        let me = identity("a_1_x");
        let wrote = record == held("a_1_x");
        let sight = Sight { record, since };
        let who = Candidate {
            me: &me,
            rank: 0,
            is_first: true,
            leads: true,
            renewed: ms(10_000),
            wrote,
            contends_from: Some(Duration::ZERO),
        };
        step(&sight, who, TIMING, now)
    }

    #[test]
    fn a_record_that_does_not_change_is_taken_after_its_duration_by_rank() {
        assert_eq!(look(held("b_2_y"), 0, ms(13_999)), Step::WaitUntil(ms(14_000)));
        assert_eq!(look(held("b_2_y"), 0, ms(14_000)), Step::Write);
        assert_eq!(look(held("b_2_y"), 2, ms(14_000)), Step::WaitUntil(ms(14_400)));
    }

    #[test]
    fn a_missing_lease_is_made_and_a_blank_one_waited_out() {
        assert_eq!(look(None, 2, ms(10_000)), Step::Create);
        assert_eq!(look(held(""), 0, ms(10_000)), Step::WaitUntil(ms(14_000)));
        assert_eq!(look(held(""), 1, ms(14_200)), Step::Write);
    }

    #[test]
    fn a_released_lease_is_taken_at_once_in_order_of_rank() {
        let released = Some(Record {
            released_by: Some("b_2_y".into()),
            duration: ms(1_000),
            ..Record::default()
        });
        assert_eq!(look(released.clone(), 0, ms(10_000)), Step::Write);
        assert_eq!(look(released, 1, ms(10_000)), Step::WaitUntil(ms(10_200)));
    }

    #[test]
    fn a_mark_of_release_says_nothing_while_somebody_holds_the_lease() {
        let edited = Some(Record {
            holder: "b_2_y".into(),
            released_by: Some("c_3_z".into()),
            duration: ms(1),
            ..Record::default()
        });
        assert_eq!(look(edited, 0, ms(10_001)), Step::WaitUntil(ms(14_000)));
    }

    #[test]
    fn a_longer_duration_in_the_record_is_honoured_up_to_a_minute() {
        let of = |duration| {
            Some(Record {
                duration,
                ..held("b_2_y").expect("a record")
            })
        };
        assert_eq!(look(of(ms(9_000)), 0, ms(15_000)), Step::WaitUntil(ms(19_000)));
        assert_eq!(look(of(ms(u64::MAX)), 0, ms(70_000)), Step::Write);
    }

    #[test]
    fn a_restarted_container_takes_what_its_predecessor_held() {
        assert_eq!(look(held("a_1_w"), 5, ms(10_000)), Step::Write);
        // A pod of the same name is another pod.
        assert_eq!(look(held("a_2_w"), 0, ms(10_000)), Step::WaitUntil(ms(14_000)));
    }

    #[test]
    fn who_does_not_contend_waits() {
        let me = identity("a_1_x");
        let sight = Sight {
            record: held("b_2_y"),
            since: Duration::ZERO,
        };
        let mut who = Candidate {
            me: &me,
            rank: 0,
            is_first: false,
            leads: false,
            renewed: Duration::ZERO,
            wrote: false,
            contends_from: None,
        };
        assert_eq!(step(&sight, who, TIMING, ms(60_000)), Step::Wait);
        who.contends_from = Some(ms(70_000));
        assert_eq!(step(&sight, who, TIMING, ms(60_000)), Step::WaitUntil(ms(70_000)));
    }

    #[test]
    fn who_should_lead_asks_once_whoever_does() {
        let me = identity("a_1_x");
        let asked = |by: Option<&str>, now| {
            let record = Record {
                asked_by: by.map(str::to_owned),
                ..held("b_2_y").expect("a record")
            };
            let sight = Sight {
                record: Some(record),
                since: ms(10_000),
            };
            let who = Candidate {
                me: &me,
                rank: 0,
                is_first: true,
                leads: false,
                renewed: Duration::ZERO,
                wrote: false,
                contends_from: Some(ms(9_000)),
            };
            step(&sight, who, TIMING, now)
        };
        assert_eq!(asked(None, ms(10_001)), Step::Ask);
        // An earlier start of ours, or another pod, has asked for itself.
        assert_eq!(asked(Some("a_1_w"), ms(10_001)), Step::Ask);
        assert_eq!(asked(Some("a_1_x"), ms(10_001)), Step::WaitUntil(ms(14_000)));
        assert_eq!(asked(None, ms(14_000)), Step::Write);
        assert_eq!(asked(None, ms(8_000)), Step::WaitUntil(ms(14_000)));
    }

    #[test]
    fn a_leader_renews_puts_itself_back_and_yields_only_to_another_holder() {
        assert_eq!(lead(held("a_1_x"), ms(10_700)), Step::WaitUntil(ms(10_800)));
        assert_eq!(lead(held("a_1_x"), ms(10_800)), Step::Write);
        assert_eq!(lead(None, ms(10_001)), Step::Create);
        assert_eq!(lead(held(""), ms(10_001)), Step::Write);
        assert_eq!(lead(held("b_2_y"), ms(10_001)), Step::Yield);
        // However long it could not renew.
        assert_eq!(lead(held("a_1_x"), ms(90_000)), Step::Write);
    }

    #[test]
    fn a_record_that_somebody_else_may_have_held_meanwhile_ends_the_term() {
        // Seen before anybody can have waited our last renewal out, and after.
        for (since, step) in [(ms(13_999), Step::Write), (ms(14_000), Step::Yield)] {
            assert_eq!(lead_since(held(""), since, ms(14_001)), step);
        }
        assert_eq!(lead_since(None, ms(14_000), ms(14_001)), Step::Yield);
        let released = Some(Record {
            released_by: Some("b_2_y".into()),
            ..Record::default()
        });
        assert_eq!(lead_since(released, ms(20_000), ms(20_000)), Step::Yield);
    }

    #[test]
    fn whoever_was_written_into_the_record_by_a_hand_waits_it_out() {
        assert_eq!(look(held("a_1_x"), 0, ms(10_001)), Step::WaitUntil(ms(14_000)));
    }

    #[test]
    fn an_identity_survives_its_text() {
        let me = identity("words-7d_6c_f00");
        assert_eq!(
            (me.pod.as_str(), me.uid.as_str(), me.boot.as_str()),
            ("words-7d", "6c", "f00")
        );
        assert_eq!(me.to_string(), "words-7d_6c_f00");
        assert_eq!(Identity::parse("nobody"), None);
    }
}
