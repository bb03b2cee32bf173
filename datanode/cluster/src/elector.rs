//! Contends for one slot and keeps it, by `rules`, over the Lease of that slot.
//!
//! One task owns all of it: what was last seen, the term, the writes.  Its client must not
//! retry; every call has a time limit.  Whatever a write's answer was, the next look shows
//! what is there: all writes are compare-and-swap on the resource version.
//!
//! Leaving is: flush while still serving, end the term, let what is under way finish, then
//! release (P18).  A term that was fenced is over at once, and the slot is left alone for
//! a while, so that two clusters on one bucket do not take it from each other all the time.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::Api;
use kube::api::PostParams;
use rhumb_crds::{Shard, names};
use rhumb_seams::{CancellationToken, Clock, Rand, Term};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::Led;
use crate::board::{Board, Leader};
use crate::follow::Seen;
use crate::lease;
use crate::placement::Placement;
use crate::rules::{Candidate, Identity, Sight, Step, Timing, step};

/// How long a flush before a hand-over may take.
const FLUSH_TIME: Duration = Duration::from_secs(5);
/// How long what is under way may take to finish once the term has ended.
const SETTLE_TIME: Duration = Duration::from_secs(5);
/// Who handed over leaves the slot to others this long.
const AFTER_HAND_OVER: Duration = Duration::from_secs(2);
/// Who was fenced, while its Lease was its own, leaves the slot alone this long.
const AFTER_FENCE: Duration = Duration::from_secs(10);

pub struct Elector {
    pub slot: u32,
    pub database: String,
    pub me: Identity,
    pub address: SocketAddr,
    pub timing: Timing,
    /// The uid of our bucket.
    pub bucket_uid: String,
    pub leases: Api<Lease>,
    pub clock: Clock,
    pub rand: Rand,
    pub board: Board,
    pub led: Arc<dyn Led>,
    pub seen: watch::Receiver<Seen<Lease>>,
    pub shard: watch::Receiver<Seen<Shard>>,
    /// Cancelled when this process is to lead nothing any more.
    pub drain: CancellationToken,
    /// Counts the slots that have nothing left to hand over.
    pub drained: watch::Sender<u32>,
}

/// What the loop keeps between two steps.
#[derive(Default)]
struct State {
    /// `None` until the first look.
    sight: Option<Sight>,
    /// The object behind the record.
    lease: Option<Lease>,
    term: Option<Term>,
    placement: Placement,
    /// When the last successful write was sent.
    renewed: Duration,
    /// Marks the writes of this term, or of the attempts to begin one.
    acquired: Option<MicroTime>,
    /// After a failure.
    not_before: Duration,
    /// A call failed since the last answer: that the record did not change says nothing.
    is_blind: bool,
    contends_from: Duration,
    is_drained: bool,
}

impl Elector {
    /// Runs until it is dropped.
    pub async fn run(self) {
        let mut this = Running {
            state: State::default(),
            elector: self,
        };
        loop {
            if this.lost_its_term() {
                this.leave(Leaving::Lost).await;
            } else if this.should_hand_over() {
                this.hand_over().await;
            } else {
                this.pass().await;
            }
            this.note_drained();
        }
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Leaving {
    HandOver,
    /// Fenced, or another process holds the Lease.
    Lost,
}

struct Running {
    elector: Elector,
    state: State,
}

impl Running {
    fn lost_its_term(&self) -> bool {
        self.state.term.as_ref().is_some_and(Term::has_ended)
    }

    fn should_hand_over(&self) -> bool {
        let asked = self.elector.drain.is_cancelled() || self.successor_asks();
        self.state.term.is_some() && asked
    }

    /// That it is warm may have been its last word: one that is gone asks for nothing.
    fn successor_asks(&self) -> bool {
        let record = self.state.lease.as_ref().map(lease::record);
        let by = record.and_then(|record| Identity::parse(&record.asked_by?));
        by.is_some_and(|by| self.state.placement.successor == Some(by.pod))
    }

    fn note_drained(&mut self) {
        if self.elector.drain.is_cancelled() && self.state.term.is_none() && !self.state.is_drained {
            self.state.is_drained = true;
            self.elector.drained.send_modify(|count| *count += 1);
        }
    }

    /// One step of the rules: waits, looks or writes.
    async fn pass(&mut self) {
        self.take_news();
        let now = self.elector.clock.steady();
        let must_look = self.state.is_blind && self.state.term.is_none();
        let Some(sight) = self.state.sight.as_ref().filter(|_| !must_look) else {
            return match self.state.not_before > now {
                true => self.wait(Some(self.state.not_before - now)).await,
                false => self.look().await,
            };
        };
        let candidate = Candidate {
            me: &self.elector.me,
            rank: self.state.placement.rank,
            is_first: self.state.placement.is_listed && self.state.placement.rank == 0,
            leads: self.state.term.is_some(),
            renewed: self.state.renewed,
            wrote: self.wrote(),
            contends_from: self.may_contend().then_some(self.state.contends_from),
        };
        let step = step(sight, candidate, self.elector.timing, now);
        match step {
            Step::Write | Step::Create | Step::Ask if self.state.not_before > now => {
                self.wait(Some(self.state.not_before - now)).await;
            }
            Step::Write => self.write().await,
            Step::Create => self.create().await,
            Step::Ask => self.ask().await,
            Step::WaitUntil(due) => self.wait(Some(due - now)).await,
            Step::Wait => self.wait(None).await,
            Step::Yield => {
                if let Some(term) = &self.state.term {
                    tracing::warn!(
                        slot = self.elector.slot,
                        "another pod holds the Lease, or may have held it: this one's term is over"
                    );
                    term.end();
                }
            }
        }
    }

    /// Whether the record is our own write, which a hand's never is.
    fn wrote(&self) -> bool {
        let acquired = self.state.lease.as_ref().and_then(lease::acquired);
        acquired.is_some() && acquired == self.state.acquired.as_ref()
    }

    fn may_contend(&self) -> bool {
        let foreign = self.state.placement.database_uid.as_ref();
        !self.elector.drain.is_cancelled() && foreign.is_none_or(|uid| *uid == self.elector.bucket_uid)
    }

    /// Until something changes, at most `at_most`.
    async fn wait(&mut self, at_most: Option<Duration>) {
        let ended = self.state.term.as_ref().map(|term| term.ended().clone());
        let ended = async {
            match ended {
                Some(ended) => ended.cancelled().await,
                None => std::future::pending().await,
            }
        };
        let draining = self.elector.drain.clone();
        let draining = async {
            match self.state.is_drained || draining.is_cancelled() {
                true => std::future::pending().await,
                false => draining.cancelled().await,
            }
        };
        // Clones: what they see stays news to `take_news`.
        let (mut seen, mut shard) = (self.elector.seen.clone(), self.elector.shard.clone());
        // Longer than any duration of ours; the loop looks again.
        let at_most = at_most.unwrap_or(Duration::from_secs(60));
        tokio::select! {
            biased;
            () = ended => {}
            () = draining => {}
            // The senders live as long as the cluster does.
            _ = seen.changed() => {}
            _ = shard.changed() => {}
            () = sleep(at_most) => {}
        }
    }

    fn take_news(&mut self) {
        self.state.placement = {
            let shard = self.elector.shard.borrow_and_update();
            Placement::read(&shard, &self.elector.me.pod)
        };
        if !self.elector.seen.has_changed().unwrap_or(false) {
            return;
        }
        let seen = self.elector.seen.borrow_and_update().clone();
        match seen {
            Seen::Unknown => {}
            Seen::Missing => self.overhear(None),
            Seen::There(lease) => self.overhear(Some(lease.as_ref().clone())),
        }
    }

    /// Takes in what a watch says.  Of a record that was read newer it is no news.
    fn overhear(&mut self, lease: Option<Lease>) {
        let version = |lease: &Option<Lease>| lease.as_ref().and_then(lease::version);
        let (known, new) = (version(&self.state.lease), version(&lease));
        if known.is_none() || new.is_none() || known < new {
            self.observe(lease);
        }
    }

    /// Takes in what is there, as an answer to us says.  What its holder wrote counts from
    /// when it was first seen as it is: whoever asks for the slot, or labels the object, gives
    /// a dead leader no more time.  Versions may go back, when the cluster was restored.
    fn observe(&mut self, lease: Option<Lease>) {
        let version = |lease: &Option<Lease>| lease.as_ref()?.metadata.resource_version.clone();
        if lease.is_some() && version(&self.state.lease) == version(&lease) {
            return;
        }
        let record = lease.as_ref().map(lease::record);
        let unchanged = match (&self.state.lease, &lease) {
            (Some(known), Some(new)) => lease::says_the_same(known, new),
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        };
        let before = self.state.sight.as_ref().filter(|_| unchanged);
        let since = before.map_or_else(|| self.elector.clock.steady(), |sight| sight.since);
        self.state.sight = Some(Sight { record, since });
        self.state.lease = lease;
        if self.state.term.is_none() {
            let leader = self.peer().unwrap_or(Leader::Nobody);
            self.elector.board.set(self.elector.slot, leader);
        }
    }

    fn peer(&self) -> Option<Leader> {
        let lease = self.state.lease.as_ref()?;
        let holder = Identity::parse(&lease::record(lease).holder)?;
        if holder.pod == self.elector.me.pod {
            return None;
        }
        Some(Leader::Peer {
            pod: holder.pod,
            address: lease::address(lease)?,
        })
    }

    fn call_time(&self) -> Duration {
        self.elector.timing.renew_deadline / 2
    }

    /// A pause after a failure, with some chance in it: all slots fail together.
    fn pause(&mut self) {
        let pause = self
            .elector
            .timing
            .retry
            .mul_f64(0.25 + 0.25 * self.elector.rand.unit());
        self.state.not_before = self.elector.clock.steady() + pause;
    }

    async fn look(&mut self) {
        let name = names::shard(&self.elector.database, self.elector.slot);
        match timeout(self.call_time(), self.elector.leases.get_opt(&name)).await {
            Ok(Ok(found)) => {
                self.observe(found);
                self.see_again();
            }
            Ok(Err(error)) => self.failed(&error.to_string()),
            Err(_) => self.failed("no answer in time"),
        }
    }

    /// A new Lease is nobody's: who takes it has waited for it like everybody.
    async fn create(&mut self) {
        let blank = lease::blank(&self.elector.database, self.elector.slot);
        let options = PostParams::default();
        let created = self.elector.leases.create(&options, &blank);
        match timeout(self.call_time(), created).await {
            Ok(Ok(lease)) => self.observe(Some(lease)),
            Ok(Err(kube::Error::Api(status))) if status.is_already_exists() => self.look().await,
            Ok(Err(error)) => self.failed(&error.to_string()),
            Err(_) => self.failed("no answer in time"),
        }
    }

    async fn write(&mut self) {
        let Some(from) = self.state.lease.clone() else {
            return self.look().await;
        };
        let Elector {
            slot,
            database,
            me,
            address,
            timing,
            leases,
            clock,
            ..
        } = &self.elector;
        let unix_ms = clock.unix_ms();
        let acquired = self.state.acquired.get_or_insert_with(|| lease::moment(unix_ms));
        let holder = me.to_string();
        let lease = lease::held(from, (&holder, *address), timing.duration, acquired, unix_ms);
        let (name, options) = (names::shard(database, *slot), PostParams::default());
        let sent = clock.steady();
        let written = leases.replace(&name, &options, &lease);
        match timeout(self.call_time(), written).await {
            Ok(Ok(lease)) => {
                self.won(sent);
                self.observe(Some(lease));
            }
            // Somebody else was faster, or it is gone: see what is there now.
            Ok(Err(kube::Error::Api(status))) if status.is_conflict() || status.is_not_found() => {
                self.look().await;
            }
            Ok(Err(error)) => self.failed(&error.to_string()),
            // It may have been written all the same; if so, the watch or the next try says so.
            Err(_) => self.failed("no answer in time"),
        }
    }

    async fn ask(&mut self) {
        let Some(from) = self.state.lease.clone() else {
            return self.look().await;
        };
        let asking = lease::asked(from, &self.elector.me.to_string());
        let name = names::shard(&self.elector.database, self.elector.slot);
        let options = PostParams::default();
        let asked = self.elector.leases.replace(&name, &options, &asking);
        match timeout(self.call_time(), asked).await {
            // A renewal, most likely: the next step asks again.
            Ok(Err(kube::Error::Api(status))) if status.is_conflict() => self.look().await,
            Ok(Ok(lease)) => self.observe(Some(lease)),
            Ok(Err(error)) => self.failed(&error.to_string()),
            Err(_) => self.failed("no answer in time"),
        }
    }

    fn won(&mut self, sent: Duration) {
        let until = sent + self.elector.timing.renew_deadline;
        self.state.renewed = sent;
        self.state.is_blind = false;
        match &self.state.term {
            Some(term) => term.renew(until),
            None => {
                tracing::info!(
                    slot = self.elector.slot,
                    rank = self.state.placement.rank,
                    "leading"
                );
                let term = Term::new(self.elector.clock.clone(), until);
                self.state.term = Some(term.clone());
                self.elector.board.set(self.elector.slot, Leader::Me(term));
            }
        }
    }

    fn failed(&mut self, why: &str) {
        let (slot, leads) = (self.elector.slot, self.state.term.is_some());
        // Once per outage: all slots say it, several times a second.
        match self.state.is_blind {
            false => tracing::warn!(slot, leads, why, "the Lease cannot be read or written"),
            true => tracing::debug!(slot, leads, why, "the Lease still cannot be read or written"),
        }
        self.state.is_blind = true;
        self.pause();
    }

    /// The leader could not renew either, perhaps: it gets a whole duration from here on.
    fn see_again(&mut self) {
        if std::mem::take(&mut self.state.is_blind)
            && let Some(sight) = &mut self.state.sight
        {
            sight.since = self.elector.clock.steady();
        }
    }

    /// Flushes while it still serves and renews, then leaves.
    async fn hand_over(&mut self) {
        tracing::info!(
            slot = self.elector.slot,
            to = self.state.placement.successor,
            "handing the slot over"
        );
        let led = self.elector.led.clone();
        {
            let mut flushed = pin!(timeout(FLUSH_TIME, led.flush(self.elector.slot)));
            loop {
                // A pass that is cut short left a write in doubt at most; all are guarded.
                tokio::select! {
                    biased;
                    _ = &mut flushed => break,
                    () = self.pass() => {}
                }
                if self.lost_its_term() {
                    break;
                }
            }
        }
        match self.lost_its_term() {
            true => self.leave(Leaving::Lost).await,
            false => self.leave(Leaving::HandOver).await,
        }
    }

    async fn leave(&mut self, why: Leaving) {
        let Some(term) = self.state.term.take() else {
            return;
        };
        let slot = self.elector.slot;
        term.end();
        self.elector
            .board
            .set(slot, self.peer().unwrap_or(Leader::Nobody));
        let settled = timeout(SETTLE_TIME, self.elector.led.settle(slot)).await;
        if settled.is_err() {
            tracing::warn!(
                slot,
                "what was under way did not finish in time: the bucket's fence holds it off"
            );
        }
        self.take_news();
        let now = self.elector.clock.steady();
        let pause = match why {
            Leaving::HandOver => AFTER_HAND_OVER,
            Leaving::Lost if term.was_fenced() => AFTER_FENCE,
            Leaving::Lost => Duration::ZERO,
        };
        self.state.contends_from = now + pause;
        if why == Leaving::Lost {
            tracing::warn!(slot, fenced = term.was_fenced(), "no longer leading");
        }
        self.release().await;
        self.state.acquired = None;
        let leader = self.peer().unwrap_or(Leader::Nobody);
        self.elector.board.set(slot, leader);
    }

    /// Only if the record is still ours; the next one then need not wait.
    async fn release(&mut self) {
        let me = self.elector.me.to_string();
        for _ in 0..3 {
            let ours = self
                .state
                .lease
                .as_ref()
                .filter(|lease| lease::record(lease).holder == me);
            let Some(ours) = ours else { return };
            let blank = lease::released(ours.clone(), &me, self.elector.clock.unix_ms());
            let name = names::shard(&self.elector.database, self.elector.slot);
            let options = PostParams::default();
            let put = self.elector.leases.replace(&name, &options, &blank);
            match timeout(self.call_time(), put).await {
                Ok(Ok(lease)) => return self.observe(Some(lease)),
                Ok(Err(_)) | Err(_) => self.look().await,
            }
        }
        tracing::warn!(
            slot = self.elector.slot,
            "the Lease was not released: the next leader waits it out"
        );
    }
}
