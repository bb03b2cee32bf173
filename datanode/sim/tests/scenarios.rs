//! Written-out stories: the ones every reader of the protocol asks about first.

use std::time::Duration;

use rhumb_core::{Epoch, Seq, Slot};
use rhumb_seams::Rand;
use rhumb_sim::{Blow, Habits, Line, Plan, Process, Simulation, run_seed};
use rhumb_store::log::{
    AppendError, Claim, Log, PartitionFolder, Pending, Takeover, read_verified, takeover,
};
use rhumb_store::retry::RetryPolicy;
use rhumb_store::state::State;
use rhumb_store::{ErrorKind, StoreError};

const HOUR: Duration = Duration::from_secs(3_600);

/// Runs a story in a world of its own.
fn story(told: impl AsyncFnOnce(Simulation)) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build();
    runtime
        .expect("a runtime")
        .block_on(async { told(Simulation::new(1, Plan::default())).await });
}

/// One process's way to the partition: every request is tried once and may take for ever.
struct Client {
    folder: PartitionFolder,
    line: Line,
    name: &'static str,
}

async fn client(simulation: &Simulation, name: &'static str) -> Client {
    let retry = RetryPolicy {
        attempts: 1,
        budget: 100 * HOUR,
        attempt_timeout: 100 * HOUR,
        ..RetryPolicy::default()
    };
    let node = simulation.node(
        name,
        Habits {
            retry,
            ..Habits::random(&Rand::from_seed(1))
        },
    );
    let options = rhumb_store::BucketOptions {
        ram_cache_bytes: 0,
        retry: node.habits.retry.clone(),
        certify: false,
        ..Default::default()
    };
    let ids = rhumb_seams::Ids::new(node.clock.clone(), node.rand.clone());
    let store = node.world.store(node.line.clone());
    let bucket =
        rhumb_store::Bucket::open_with(store, Default::default(), options, node.rand.clone(), ids).await;
    let folder = PartitionFolder::new(&bucket.expect("a calm day"), &node.collection, 0);
    Client {
        folder,
        line: node.line,
        name,
    }
}

impl Client {
    async fn open(&self) -> Takeover {
        takeover(&self.folder, self.name)
            .await
            .expect("nobody is in the way")
    }

    /// What anybody would find now.
    async fn content(&self) -> Vec<String> {
        let reading = read_verified(&self.folder)
            .await
            .expect("readable")
            .expect("there");
        reading
            .tail
            .iter()
            .map(|r| String::from_utf8_lossy(&r.body).into_owned())
            .collect()
    }
}

fn prepare(log: &mut Log, body: &str) -> Pending {
    let next_seq = log.next_seq().next();
    log.prepare(body.as_bytes().to_vec(), next_seq)
        .expect("nothing is on its way")
}

async fn append(log: &mut Log, bodies: &[&str]) {
    for body in bodies {
        let mut pending = prepare(log, body);
        log.put(&mut pending).await.expect("nobody is in the way");
    }
}

async fn try_append(log: &mut Log, body: &str) -> AppendError {
    let mut pending = prepare(log, body);
    log.put(&mut pending).await.expect_err("it cannot land")
}

async fn checkpoint(claim: &mut Claim, applied: u64) -> Result<(), StoreError> {
    let edit = |state: &mut State| {
        (state.applied, state.base) = (Slot(applied), Some(applied));
        Ok(())
    };
    claim.checkpoint(edit).await.map(drop)
}

#[test]
fn a_writer_killed_between_the_base_and_the_state_loses_nothing() {
    story(async |world| {
        let (a, b) = (client(&world, "a").await, client(&world, "b").await);
        let mut held = a.open().await;
        append(&mut held.log, &["one", "two"]).await;
        // The base is written here; the checkpoint that would name it gets nowhere.
        a.line.set_down(true);
        checkpoint(&mut held.claim, 2)
            .await
            .expect_err("the store is away");
        drop(held);
        let next = b.open().await;
        assert_eq!(
            (next.claim.state().base, next.claim.state().applied),
            (None, Slot(0))
        );
        assert_eq!(b.content().await, ["one", "two"]);
    });
}

#[test]
fn a_checkpoint_whose_answer_is_lost_counts_once() {
    story(async |world| {
        let a = client(&world, "a").await;
        let mut held = a.open().await;
        append(&mut held.log, &["one", "two", "three"]).await;
        a.line.once("put state.json", Blow::LoseAnswer);
        checkpoint(&mut held.claim, 2)
            .await
            .expect("resolved by reading it back");
        checkpoint(&mut held.claim, 3)
            .await
            .expect("and the next one builds on it");
        assert_eq!(held.claim.state().applied, Slot(3));
    });
}

#[test]
fn a_checkpoint_that_arrives_late_is_found_by_the_next_one() {
    story(async |world| {
        let a = client(&world, "a").await;
        let mut held = a.open().await;
        append(&mut held.log, &["one", "two"]).await;
        // The repetition lands first, and the late one no longer fits.
        a.line
            .once("put state.json", Blow::Deliver(Duration::from_millis(1)));
        let first = checkpoint(&mut held.claim, 1).await;
        tokio::time::sleep(HOUR).await;
        checkpoint(&mut held.claim, 2).await.expect("the claim holds");
        assert!(first.is_ok());
        assert_eq!(
            (held.claim.state().applied, held.claim.state().base),
            (Slot(2), Some(2))
        );
    });
}

#[test]
fn a_claim_and_a_fence_whose_answers_are_lost_still_take_over_once() {
    story(async |world| {
        let (a, b) = (client(&world, "a").await, client(&world, "b").await);
        let mut old = a.open().await;
        append(&mut old.log, &["one"]).await;
        b.line.once("put state.json", Blow::LoseAnswer);
        b.line.once("put /wal/", Blow::LoseAnswer);
        let new = b.open().await;
        assert_eq!(b.line.blows_left(), 0);
        assert_eq!((new.claim.epoch(), new.log.tip()), (Epoch(2), Slot(2)));
        assert_eq!(try_append(&mut old.log, "late").await.kind(), ErrorKind::Fenced);
    });
}

#[test]
fn an_append_whose_answer_is_lost_is_in_the_log_once() {
    story(async |world| {
        let a = client(&world, "a").await;
        let mut held = a.open().await;
        a.line.once("put /wal/", Blow::LoseAnswer);
        let mut pending = prepare(&mut held.log, "one");
        let unknown = held.log.put(&mut pending).await.expect_err("nobody answered");
        assert_eq!(unknown.kind(), ErrorKind::Retry);
        let position = held.log.put(&mut pending).await.expect("it was there");
        assert_eq!(position.slot, Slot(1));
        append(&mut held.log, &["two"]).await;
        assert_eq!(a.content().await, ["one", "two"]);
    });
}

#[test]
fn a_put_that_arrives_after_the_fence_is_refused_for_ever() {
    story(async |world| {
        let (a, b) = (client(&world, "a").await, client(&world, "b").await);
        let mut zombie = a.open().await;
        append(&mut zombie.log, &["one"]).await;
        a.line.once("put /wal/", Blow::Deliver(HOUR));
        let mut pending = prepare(&mut zombie.log, "late");
        assert!(matches!(
            zombie.log.put(&mut pending).await,
            Err(AppendError::Unknown { .. })
        ));
        let mut new = b.open().await;
        append(&mut new.log, &["two"]).await;
        tokio::time::sleep(2 * HOUR).await;
        assert_eq!(b.content().await, ["one", "two"]);
        let end = zombie
            .log
            .put(&mut pending)
            .await
            .expect_err("the slot is a fence");
        assert!(matches!(end, AppendError::Fenced { by: Epoch(2) }));
    });
}

#[test]
fn a_record_that_was_replayed_and_collected_before_its_writer_asks_again_is_there_once() {
    story(async |world| {
        let (a, b, c) = (
            client(&world, "a").await,
            client(&world, "b").await,
            client(&world, "c").await,
        );
        let mut zombie = a.open().await;
        a.line.once("put /wal/", Blow::LoseAnswer);
        let mut pending = prepare(&mut zombie.log, "mine");
        assert!(matches!(
            zombie.log.put(&mut pending).await,
            Err(AppendError::Unknown { .. })
        ));

        let mut new = b.open().await;
        assert_eq!(new.tail.len(), 1, "its record was there");
        append(&mut new.log, &["3", "4", "5", "6", "7"]).await;
        checkpoint(&mut new.claim, 7).await.expect("the claim holds");
        new.claim.collect(100).await.expect("collected");

        // The slot is free again, so the same PUT lands again, below `applied`.
        let position = zombie.log.put(&mut pending).await.expect("and that is the truth");
        assert_eq!(position.slot, Slot(1));
        assert_eq!(
            try_append(&mut zombie.log, "more").await.kind(),
            ErrorKind::Fenced
        );
        assert!(c.open().await.tail.is_empty(), "nothing of it is read twice");
    });
}

#[test]
fn a_fence_outlives_gc_and_still_stops_the_zombie() {
    story(async |world| {
        let (a, b) = (client(&world, "a").await, client(&world, "b").await);
        let mut zombie = a.open().await;
        append(&mut zombie.log, &["one"]).await;
        let mut new = b.open().await;
        let bodies: Vec<String> = (3..20).map(|n| n.to_string()).collect();
        append(
            &mut new.log,
            &bodies.iter().map(String::as_str).collect::<Vec<_>>(),
        )
        .await;
        for applied in [10, 15, 19] {
            checkpoint(&mut new.claim, applied)
                .await
                .expect("the claim holds");
            new.claim.collect(1_000).await.expect("collected");
            new.claim.sweep(1_000).await.expect("swept");
        }
        tokio::time::sleep(24 * HOUR).await;
        assert_eq!(
            try_append(&mut zombie.log, "late").await.kind(),
            ErrorKind::Fenced
        );
    });
}

#[test]
fn a_stale_claimants_fence_in_a_collected_slot_does_not_let_it_serve() {
    story(async |world| {
        let (a, b, c) = (
            client(&world, "a").await,
            client(&world, "b").await,
            client(&world, "c").await,
        );
        let mut first = a.open().await;
        append(&mut first.log, &["1", "2", "3", "4", "5", "6", "7", "8"]).await;
        // It claims, and then its reads of the log take an hour.
        for _ in 0..32 {
            b.line.once("get /wal/", Blow::Slow(HOUR));
        }
        let stale = takeover(&b.folder, "b");
        let overtaken = async {
            tokio::time::sleep(Duration::from_secs(60)).await;
            let mut new = c.open().await;
            assert_eq!(new.claim.epoch(), Epoch(3));
            append(&mut new.log, &["10", "11", "12", "13", "14", "15"]).await;
            checkpoint(&mut new.claim, 15).await.expect("the claim holds");
            new.claim.collect(100).await.expect("collected");
            new
        };
        let (stale, mut new) = tokio::join!(stale, overtaken);
        let refused = stale.expect_err("a newer holder came");
        assert_eq!(refused.kind(), ErrorKind::Fenced, "{refused}");
        append(&mut new.log, &["16"]).await;
        assert_eq!(a.content().await, ["16"]);
    });
}

#[test]
fn a_reader_that_gc_overtakes_starts_over() {
    story(async |world| {
        let (a, r) = (client(&world, "a").await, client(&world, "r").await);
        let mut held = a.open().await;
        append(&mut held.log, &["1", "2", "3", "4", "5", "6", "7", "8"]).await;
        for _ in 0..32 {
            r.line.once("get /wal/", Blow::Slow(HOUR));
        }
        let reading = read_verified(&r.folder);
        let meanwhile = async {
            tokio::time::sleep(Duration::from_secs(60)).await;
            append(&mut held.log, &["9", "10"]).await;
            checkpoint(&mut held.claim, 9).await.expect("the claim holds");
            held.claim.collect(100).await.expect("collected");
        };
        let (reading, ()) = tokio::join!(reading, meanwhile);
        let reading = reading.expect("readable").expect("there");
        assert_eq!(reading.state.applied, Slot(9));
        assert_eq!(reading.tail.len(), 1);
    });
}

#[test]
fn an_outage_leaves_the_append_pending_and_it_lands_once() {
    story(async |world| {
        let a = client(&world, "a").await;
        let mut held = a.open().await;
        append(&mut held.log, &["one"]).await;
        a.line.set_down(true);
        let mut pending = prepare(&mut held.log, "two");
        for _ in 0..10 {
            let end = held.log.put(&mut pending).await.expect_err("the store is away");
            assert_eq!(end.kind(), ErrorKind::Retry);
            assert!(
                held.log.prepare(b"three".to_vec(), Seq(99)).is_err(),
                "never past an open slot"
            );
        }
        assert_eq!(
            held.barrier.check().await.expect_err("no answer").kind(),
            ErrorKind::Retry
        );
        a.line.set_down(false);
        held.log.put(&mut pending).await.expect("the store is back");
        assert_eq!(a.content().await, ["one", "two"]);
    });
}

#[test]
fn a_claimant_after_a_hand_back_is_fenced_by_the_next_one() {
    story(async |world| {
        let (a, b, c) = (
            client(&world, "a").await,
            client(&world, "b").await,
            client(&world, "c").await,
        );
        let mut held = a.open().await;
        append(&mut held.log, &["one"]).await;
        held.claim.release(held.log).await.expect("handed back");
        let mut zombie = b.open().await;
        let mut new = c.open().await;
        append(&mut new.log, &["two"]).await;
        assert_eq!(
            try_append(&mut zombie.log, "late").await.kind(),
            ErrorKind::Fenced
        );
        assert_eq!(
            zombie.barrier.check().await.expect_err("replaced").kind(),
            ErrorKind::Fenced
        );
        assert_eq!(c.content().await, ["one", "two"]);
    });
}

#[test]
fn two_servers_that_fight_for_a_partition_lose_nothing() {
    story(async |world| {
        let rand = Rand::from_seed(5);
        let mut servers = Vec::new();
        for name in ["left", "right"] {
            let habits = Habits {
                contend: Duration::from_secs(3),
                ..Habits::random(&rand)
            };
            servers.push(Process::start(&world.tasks, world.node(name, habits).run()));
        }
        tokio::time::sleep(Duration::from_secs(60)).await;
        for server in &servers {
            server.kill();
        }
        let wrong = world.judge().await;
        assert!(wrong.is_empty(), "{wrong:?}");
        let done = world.history.summary();
        assert!(
            done.acked > 50 && done.fenced > 5 && done.takeovers > 10,
            "{done:?}"
        );
    });
}

#[test]
fn a_server_stopped_for_days_acknowledges_nothing_when_it_wakes() {
    story(async |world| {
        let rand = Rand::from_seed(6);
        let habits = Habits {
            contend: Duration::from_secs(1),
            ..Habits::random(&rand)
        };
        let sleeper = Process::start(&world.tasks, world.node("sleeper", habits.clone()).run());
        tokio::time::sleep(Duration::from_secs(20)).await;
        sleeper.pause();
        let other = Process::start(&world.tasks, world.node("other", habits).run());
        tokio::time::sleep(Duration::from_secs(60)).await;
        other.kill();
        tokio::time::sleep(720 * HOUR).await;
        sleeper.resume();
        tokio::time::sleep(Duration::from_secs(30)).await;
        sleeper.kill();
        let wrong = world.judge().await;
        assert!(wrong.is_empty(), "{wrong:?}");
        assert!(world.history.summary().fenced > 0);
    });
}

/// Seeds that once failed, or nearly: kept so that they are run for ever.
#[test]
fn seeds_that_once_failed_stay_green() {
    const SEEDS: [u64; 0] = [];
    for seed in SEEDS {
        let report = run_seed(seed, Plan::default());
        assert!(
            report.violations.is_empty(),
            "seed {seed}: {:?}",
            report.violations
        );
    }
}
