use std::sync::Arc;

use bytes::Bytes;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload};
use rhumb_core::{CollectionId, Epoch, Position, Seq, Slot};
use rhumb_seams::{Clock, Ids, Rand};

use super::*;
use crate::crypt::MasterKey;
use crate::state::State;
use crate::{Bucket, BucketOptions, ErrorKind, StoreError};

/// One partition in memory, and the store under it for damage.
struct World {
    folder: PartitionFolder,
    store: Arc<dyn ObjectStore>,
}

/// This file is compiled twice: see `log/mod.rs`.
fn master_key() -> Option<Arc<MasterKey>> {
    let sealed = module_path!().ends_with("sealed_tests");
    sealed.then(|| Arc::new(MasterKey::parse(&format!("{}00", "5a".repeat(31))).expect("a key")))
}

async fn world() -> World {
    let store = Arc::new(InMemory::new());
    let rand = Rand::from_seed(7);
    let ids = Ids::new(Clock::starting_at(0), rand.clone());
    let options = BucketOptions {
        ram_cache_bytes: 0,
        certify: false,
        master_key: master_key(),
        ..BucketOptions::default()
    };
    let id = CollectionId::parse(&ids.ulid()).expect("a ULID");
    let bucket = Bucket::open_with(store, Path::default(), options, rand, ids).await;
    let bucket = bucket.expect("a bucket in memory");
    World {
        folder: PartitionFolder::new(&bucket, &id, 0),
        store: bucket.object_store(),
    }
}

impl World {
    async fn open(&self, holder: &str) -> Takeover {
        takeover(&self.folder, holder)
            .await
            .expect("nobody is in the way")
    }

    async fn open_err(&self) -> StoreError {
        takeover(&self.folder, "late").await.expect_err("refused")
    }

    async fn has(&self, slot: u64) -> bool {
        self.store.head(&self.folder.slot_path(Slot(slot))).await.is_ok()
    }

    async fn read(&self, slot: u64) -> Bytes {
        let object = self.store.get(&self.folder.slot_path(Slot(slot))).await;
        object.expect("there").bytes().await.expect("read")
    }

    /// Whoever sends it late asks nobody.
    async fn put(&self, slot: u64, body: Bytes) {
        let path = self.folder.slot_path(Slot(slot));
        self.store.put(&path, body.into()).await.expect("written");
    }

    async fn delete(&self, slot: u64) {
        self.store
            .delete(&self.folder.slot_path(Slot(slot)))
            .await
            .expect("deleted");
    }

    async fn slots(&self) -> Vec<u64> {
        use futures::TryStreamExt;
        let listed = self.store.list(Some(&self.folder.path("wal")));
        let objects: Vec<_> = listed.try_collect().await.expect("listed");
        objects
            .iter()
            .filter_map(|o| PartitionFolder::slot_of(&o.location))
            .map(|s| s.0)
            .collect()
    }
}

async fn append(log: &mut Log, body: &str) -> Result<Position, AppendError> {
    let next_seq = log.next_seq().next();
    let mut pending = log.prepare(body.as_bytes().to_vec(), next_seq)?;
    log.put(&mut pending).await
}

async fn append_ok(log: &mut Log, bodies: &[&str]) {
    for body in bodies {
        append(log, body).await.expect("nobody is in the way");
    }
}

async fn checkpoint(claim: &mut Claim, applied: u64) {
    let edit = |state: &mut State| {
        state.applied = Slot(applied);
        state.base = Some(state.base.unwrap_or(0) + 1);
        Ok(())
    };
    claim.checkpoint(edit).await.expect("the claim holds");
}

async fn bodies(tail: Replay) -> Vec<String> {
    let records = tail.read_all().await.expect("readable");
    records
        .into_iter()
        .map(|r| String::from_utf8_lossy(&r.body).into_owned())
        .collect()
}

#[tokio::test]
async fn a_new_partition_is_claimed_and_written_from_slot_one() {
    let world = world().await;
    let mut held = world.open("a").await;
    assert_eq!(held.claim.epoch(), Epoch(1));
    assert!(held.tail.is_empty());
    let position = append(&mut held.log, "one").await.expect("landed");
    assert_eq!(
        position,
        Position {
            epoch: Epoch(1),
            slot: Slot(1)
        }
    );
    assert_eq!(world.slots().await, [1], "nobody was there to fence");
    held.barrier.check().await.expect("the claim holds");
}

#[tokio::test]
async fn a_takeover_fences_the_log_and_replays_what_was_there() {
    let world = world().await;
    let mut old = world.open("a").await;
    append_ok(&mut old.log, &["one", "two"]).await;
    let mut new = world.open("b").await;
    assert_eq!(
        (new.tail_slots, new.log.tip(), new.log.next_seq()),
        (3, Slot(3), Seq(3))
    );
    assert_eq!(bodies(new.tail).await, ["one", "two"]);

    let fenced = append(&mut old.log, "late").await.expect_err("slot 3 is a fence");
    assert!(matches!(fenced, AppendError::Fenced { by: Epoch(2) }));
    assert_eq!(
        append(&mut old.log, "later").await.expect_err("still").kind(),
        ErrorKind::Fenced
    );
    assert_eq!(
        old.barrier.check().await.expect_err("replaced").kind(),
        ErrorKind::Fenced
    );
    let blocked = old.claim.checkpoint(|_| Ok(())).await.map(drop);
    assert_eq!(blocked.expect_err("replaced").kind(), ErrorKind::Fenced);
    append_ok(&mut new.log, &["three"]).await;
    assert_eq!(bodies(world.open("c").await.tail).await, ["one", "two", "three"]);
}

#[tokio::test]
async fn a_holder_that_never_appends_again_still_learns_of_its_end() {
    let world = world().await;
    let mut old = world.open("a").await;
    let _new = world.open("b").await;
    let lost = old
        .claim
        .checkpoint(|s| {
            s.base = Some(1);
            Ok(())
        })
        .await
        .map(drop);
    assert_eq!(lost.expect_err("replaced").kind(), ErrorKind::Fenced);
    assert_eq!(old.claim.fenced_by(), Some(Epoch(2)));
    let refused = old
        .log
        .prepare(b"x".to_vec(), Seq(9))
        .expect_err("the log knows it too");
    assert_eq!(refused.kind(), ErrorKind::Fenced);
}

#[tokio::test]
async fn a_holder_that_slept_through_many_changes_is_fenced_all_the_same() {
    let world = world().await;
    let mut old = world.open("a").await;
    for n in 0..40 {
        world.open(&n.to_string()).await;
    }
    let lost = old.claim.checkpoint(|_| Ok(())).await.map(drop);
    assert_eq!(lost.expect_err("replaced").kind(), ErrorKind::Fenced);
}

#[tokio::test]
async fn a_checkpoint_moves_the_start_of_the_tail() {
    let world = world().await;
    let mut held = world.open("a").await;
    append_ok(&mut held.log, &["one", "two", "three"]).await;
    checkpoint(&mut held.claim, 2).await;
    let next = world.open("b").await;
    assert_eq!(next.claim.state().applied, Slot(2));
    assert_eq!(next.claim.state().base, Some(1));
    assert_eq!(bodies(next.tail).await, ["three"]);
}

#[tokio::test]
async fn a_checkpoint_cannot_break_the_rules() {
    let world = world().await;
    let mut held = world.open("a").await;
    append_ok(&mut held.log, &["one", "two"]).await;
    checkpoint(&mut held.claim, 2).await;
    let beyond = held
        .claim
        .checkpoint(|s| {
            s.applied = Slot(3);
            Ok(())
        })
        .await
        .map(drop);
    assert_eq!(beyond.expect_err("never logged").kind(), ErrorKind::Bug);
    let back = held
        .claim
        .checkpoint(|s| {
            s.applied = Slot(1);
            Ok(())
        })
        .await
        .map(drop);
    assert_eq!(back.expect_err("backwards").kind(), ErrorKind::Bug);
    let sneaky = |s: &mut State| {
        (s.epoch, s.collected, s.holder) = (Epoch(9), Slot(2), "z".into());
        Ok(())
    };
    let state = held
        .claim
        .checkpoint(sneaky)
        .await
        .expect("what is not its own is put back")
        .clone();
    assert_eq!(
        (state.epoch, state.collected, state.holder.as_str()),
        (Epoch(1), Slot(0), "a")
    );
}

#[tokio::test]
async fn handing_back_saves_the_next_holder_the_fence() {
    let world = world().await;
    let mut held = world.open("a").await;
    append_ok(&mut held.log, &["one", "two"]).await;
    checkpoint(&mut held.claim, 1).await;
    held.claim.release(held.log).await.expect("handed back");
    let mut next = world.open("b").await;
    assert_eq!(world.slots().await, [1, 2], "no fence");
    assert_eq!((next.log.tip(), next.log.next_seq()), (Slot(2), Seq(3)));
    assert_eq!(bodies(next.tail).await, ["two"]);
    append_ok(&mut next.log, &["three"]).await;

    // This one did not hand back, so the next one fences again.
    world.open("c").await;
    assert_eq!(world.slots().await, [1, 2, 3, 4]);
    assert_eq!(
        append(&mut next.log, "late").await.expect_err("fenced").kind(),
        ErrorKind::Fenced
    );
}

#[tokio::test]
async fn a_log_with_a_record_on_its_way_is_not_handed_back() {
    let world = world().await;
    let mut held = world.open("a").await;
    let pending = held.log.prepare(b"one".to_vec(), Seq(2)).expect("prepared");
    assert!(
        held.log.prepare(b"two".to_vec(), Seq(3)).is_err(),
        "one at a time"
    );
    assert!(!pending.in_doubt());
    assert!(held.claim.release(held.log).await.is_err());
    assert_eq!(world.open("b").await.claim.state().released, None);
    assert!(world.has(1).await, "so the next one put a fence");
}

#[tokio::test]
async fn a_record_that_was_never_sent_can_be_taken_back() {
    let world = world().await;
    let mut held = world.open("a").await;
    let pending = held.log.prepare(b"one".to_vec(), Seq(2)).expect("prepared");
    held.log.take_back(pending).expect("nothing was sent");
    append_ok(&mut held.log, &["two"]).await;
    assert_eq!(bodies(world.open("b").await.tail).await, ["two"]);
}

#[tokio::test]
async fn versions_are_not_handed_out_twice_across_holders() {
    let world = world().await;
    let mut held = world.open("a").await;
    let mut pending = held.log.prepare(b"one".to_vec(), Seq(50)).expect("prepared");
    held.log.put(&mut pending).await.expect("landed");
    assert!(held.log.prepare(b"two".to_vec(), Seq(49)).is_err());
    let mut next = world.open("b").await;
    assert_eq!(next.log.next_seq(), Seq(50));
    let edit = |s: &mut State| {
        s.applied = Slot(1);
        s.next_seq = Seq(70);
        Ok(())
    };
    next.claim.checkpoint(edit).await.expect("the claim holds");
    assert_eq!(world.open("c").await.log.next_seq(), Seq(70));
}

#[tokio::test]
async fn a_sealed_partition_refuses_every_claim_and_every_reader_of_its_holder() {
    let world = world().await;
    let mut old = world.open("a").await;
    let held = world.open("b").await;
    held.claim.seal(held.log).await.expect("sealed");
    assert!(matches!(world.open_err().await, StoreError::Sealed { .. }));
    assert!(matches!(
        held.barrier.check().await,
        Err(StoreError::Sealed { .. })
    ));
    assert_eq!(
        append(&mut old.log, "late").await.expect_err("fenced").kind(),
        ErrorKind::Fenced
    );
}

#[tokio::test]
async fn a_hole_in_the_log_is_corrupt_and_no_fence_hides_it() {
    let world = world().await;
    let mut held = world.open("a").await;
    append_ok(&mut held.log, &["one", "two", "three"]).await;
    world.delete(2).await;
    let refused = world.open_err().await;
    assert_eq!(refused.kind(), ErrorKind::Corrupt, "{refused}");
    assert_eq!(world.slots().await, [1, 3]);
    let read = read_verified(&world.folder).await.map(drop);
    assert_eq!(read.expect_err("a hole").kind(), ErrorKind::Corrupt);
}

#[tokio::test]
async fn a_lost_state_is_corrupt_and_not_a_new_partition() {
    let world = world().await;
    let mut held = world.open("a").await;
    append_ok(&mut held.log, &["one"]).await;
    held.claim.release(held.log).await.expect("handed back");
    let state = world.folder.state_path();
    world.store.delete(&state).await.expect("deleted");
    let refused = world.open_err().await;
    assert_eq!(refused.kind(), ErrorKind::Corrupt, "{refused}");
    let read = read_verified(&world.folder).await.map(drop);
    assert_eq!(read.expect_err("no state").kind(), ErrorKind::Corrupt);
    assert!(world.store.head(&state).await.is_err(), "none was made");
}

#[tokio::test]
async fn a_missing_record_below_a_hand_back_is_corrupt() {
    let world = world().await;
    let mut held = world.open("a").await;
    append_ok(&mut held.log, &["one", "two"]).await;
    held.claim.release(held.log).await.expect("handed back");
    world.delete(2).await;
    assert_eq!(world.open_err().await.kind(), ErrorKind::Corrupt);
}

#[tokio::test]
async fn a_damaged_or_strayed_record_stops_the_takeover() {
    for damage in [
        Damage::Flip(0),
        Damage::Flip(40),
        Damage::Cut(3),
        Damage::Cut(108),
        Damage::Stray,
    ] {
        let world = world().await;
        let mut held = world.open("a").await;
        append_ok(&mut held.log, &["four", "five"]).await;
        let path = world.folder.slot_path(Slot(2));
        let from = if matches!(damage, Damage::Stray) {
            world.folder.slot_path(Slot(1))
        } else {
            path.clone()
        };
        let mut bytes = world
            .store
            .get(&from)
            .await
            .expect("there")
            .bytes()
            .await
            .expect("read")
            .to_vec();
        match damage {
            Damage::Flip(at) => bytes[at] ^= 4,
            Damage::Cut(by) => bytes.truncate(bytes.len() - by),
            Damage::Stray => {}
        }
        world
            .store
            .put(&path, PutPayload::from(bytes))
            .await
            .expect("written");
        let refused = world.open_err().await;
        assert_eq!(refused.kind(), ErrorKind::Corrupt, "{damage:?}: {refused}");
    }
}

#[derive(Clone, Copy, Debug)]
enum Damage {
    Flip(usize),
    Cut(usize),
    Stray,
}

#[tokio::test]
async fn another_logs_record_does_not_fit_into_the_chain() {
    let world = world().await;
    let mut held = world.open("a").await;
    append_ok(&mut held.log, &["one"]).await;
    // The same slot, epoch and partition, but a history that did not happen.
    let path = world.folder.slot_path(Slot(2));
    append_ok(&mut held.log, &["two"]).await;
    let bytes = world
        .store
        .get(&path)
        .await
        .expect("there")
        .bytes()
        .await
        .expect("read");
    let mut record = Record::decode(&path, &bytes, world.folder.id(), Slot(2)).expect("whole");
    record.trailer.prev = crate::state::Link(42);
    world
        .store
        .put(&path, record.encode().into())
        .await
        .expect("written");
    let refused = world.open_err().await;
    assert!(refused.to_string().contains("does not link"), "{refused}");
}

/// Puts a record that nobody should have written into the slot after `like`.
async fn plant(world: &World, like: u64, epoch: u64) {
    let path = world.folder.slot_path(Slot(like));
    let object = world
        .store
        .get(&path)
        .await
        .expect("there")
        .bytes()
        .await
        .expect("read");
    let mut record = Record::decode(&path, &object, world.folder.id(), Slot(like)).expect("whole");
    record.trailer.prev = record.trailer.link();
    record.trailer.slot = Slot(like + 1);
    record.trailer.epoch = Epoch(epoch);
    record.trailer.put_id = world.folder.bucket().mint_put_id();
    let planted = world.folder.slot_path(record.trailer.slot);
    world
        .store
        .put(&planted, record.encode().into())
        .await
        .expect("written");
}

#[tokio::test]
async fn a_foreign_record_of_our_own_or_a_lower_epoch_in_our_slot_halts_the_log() {
    for epoch in [1, 2] {
        let world = world().await;
        let mut first = world.open("a").await;
        append_ok(&mut first.log, &["one"]).await;
        let mut held = world.open("b").await;
        append_ok(&mut held.log, &["three"]).await;
        plant(&world, 3, epoch).await;
        let broken = append(&mut held.log, "four").await.expect_err("slot 4 is taken");
        assert!(matches!(broken, AppendError::Broken { .. }), "{broken}");
        let still = append(&mut held.log, "five").await.expect_err("halted");
        assert!(
            matches!(still, AppendError::Broken { .. }),
            "never past it: {still}"
        );
        assert_eq!(world.slots().await, [1, 2, 3, 4]);
        assert!(held.claim.release(held.log).await.is_err());
    }
}

#[tokio::test]
async fn a_record_of_the_future_fences_whoever_meets_it() {
    let world = world().await;
    let mut held = world.open("a").await;
    append_ok(&mut held.log, &["one"]).await;
    plant(&world, 1, 9).await;
    let fenced = append(&mut held.log, "two").await.expect_err("slot 2 is taken");
    assert!(matches!(fenced, AppendError::Fenced { by: Epoch(9) }));
    assert_eq!(held.claim.fenced_by(), Some(Epoch(9)));
    assert_eq!(world.open_err().await.kind(), ErrorKind::Fenced);
}

#[tokio::test]
async fn an_impostor_under_the_epoch_just_claimed_stops_the_takeover() {
    let world = world().await;
    let mut held = world.open("a").await;
    append_ok(&mut held.log, &["one"]).await;
    plant(&world, 1, 2).await;
    assert_eq!(world.open_err().await.kind(), ErrorKind::Bug);
}

#[tokio::test]
async fn a_record_of_an_ended_epoch_in_the_tail_is_not_replayed() {
    let world = world().await;
    let mut held = world.open("a").await;
    append_ok(&mut held.log, &["one"]).await;
    let mut held = world.open("b").await;
    append_ok(&mut held.log, &["three"]).await;
    plant(&world, 3, 1).await;
    let next = world.open("c").await;
    assert_eq!((next.tail_slots, next.log.tip()), (5, Slot(5)));
    assert_eq!(bodies(next.tail).await, ["one", "three"], "slot 4 is void");
    let reading = read_verified(&world.folder)
        .await
        .expect("readable")
        .expect("there");
    assert_eq!(reading.tail.len(), 2);
}

#[tokio::test]
async fn the_list_of_fences_stays_bounded_when_nothing_can_be_collected() {
    let world = world().await;
    let mut held = world.open("0").await;
    append_ok(&mut held.log, &["one"]).await;
    let most = crate::state::MAX_FENCES as u64;
    for n in 0..most + 20 {
        held = world.open(&n.to_string()).await;
        if n % 200 == 0 {
            checkpoint(&mut held.claim, held.log.tip().0).await;
        }
    }
    checkpoint(&mut held.claim, held.log.tip().0).await;
    let state = held.claim.state();
    assert_eq!(state.fences.len() as u64, most);
    // Slot 1 is DATA, the fences follow; the twenty oldest are not named any more.
    assert_eq!(state.collected, Slot(21));
    assert_eq!(
        world.slots().await.len() as u64,
        most + 21,
        "and none was deleted"
    );
}

#[tokio::test]
async fn collecting_spares_fences_and_what_is_not_applied() {
    let world = world().await;
    let mut held = world.open("a").await;
    append_ok(&mut held.log, &["1", "2", "3"]).await;
    let mut held = world.open("b").await;
    append_ok(&mut held.log, &["5", "6", "7", "8", "9", "10", "11", "12"]).await;
    assert_eq!(held.claim.collect(100).await.expect("nothing yet"), 0);
    checkpoint(&mut held.claim, 10).await;
    assert_eq!(held.claim.state().fences, [Slot(4)]);
    assert_eq!(held.claim.collectable(), 6);
    assert_eq!(held.claim.collect(2).await.expect("deleted"), 2);
    assert_eq!(held.claim.collect(100).await.expect("deleted"), 3);
    assert_eq!(world.slots().await, [4, 7, 8, 9, 10, 11, 12]);

    // Progress reaches the state with the next checkpoint, and the fence leaves its list.
    checkpoint(&mut held.claim, 11).await;
    assert_eq!(
        (held.claim.state().collected, held.claim.state().fences.len()),
        (Slot(6), 0)
    );
    let next = world.open("c").await;
    assert_eq!(bodies(next.tail).await, ["12"]);
    assert_eq!(world.slots().await, [4, 7, 8, 9, 10, 11, 12, 13]);
}

#[tokio::test]
async fn collecting_again_after_a_crash_deletes_what_is_left() {
    let world = world().await;
    let mut held = world.open("a").await;
    append_ok(&mut held.log, &["1", "2", "3", "4", "5", "6", "7", "8"]).await;
    checkpoint(&mut held.claim, 8).await;
    held.claim.collect(2).await.expect("deleted");
    let mut next = world.open("b").await;
    assert_eq!(
        next.claim.collectable(),
        4,
        "what was deleted is not known any more"
    );
    next.claim.collect(100).await.expect("deleted");
    assert_eq!(world.slots().await, [5, 6, 7, 8, 9]);
}

#[tokio::test]
async fn an_erasure_leaves_fences_alone_and_the_log_goes_on() {
    let world = world().await;
    let mut held = world.open("a").await;
    append_ok(&mut held.log, &["1", "2", "3", "4"]).await;
    let mut held = world.open("b").await;
    append_ok(&mut held.log, &["6", "7"]).await;
    let late = world.read(2).await;
    checkpoint(&mut held.claim, 7).await;
    assert_eq!(held.claim.collect_all().await.expect("deleted"), 6);
    assert_eq!(world.slots().await, [5], "not even the last slot stays");
    world.put(2, late).await;
    assert_eq!(held.claim.collect_all().await.expect("swept"), 1);
    append_ok(&mut held.log, &["8", "9"]).await;
    let next = world.open("c").await;
    assert_eq!(bodies(next.tail).await, ["8", "9"]);
    assert_eq!(world.slots().await, [5, 8, 9, 10]);
}

#[tokio::test]
async fn the_sweep_finds_what_a_late_put_brought_back() {
    let world = world().await;
    let mut held = world.open("a").await;
    append_ok(&mut held.log, &["1", "2", "3", "4", "5", "6", "7", "8"]).await;
    let mut held = world.open("b").await;
    let late = world.read(2).await;
    append_ok(&mut held.log, &["10", "11", "12", "13"]).await;
    checkpoint(&mut held.claim, 13).await;
    held.claim.collect(100).await.expect("deleted");
    checkpoint(&mut held.claim, 13).await;
    world.put(2, late).await;
    assert_eq!(world.slots().await, [2, 9, 10, 11, 12, 13]);
    assert_eq!(held.claim.sweep(1_000).await.expect("swept"), 1);
    assert_eq!(world.slots().await, [9, 10, 11, 12, 13], "fences stay");
}

#[tokio::test]
async fn a_reader_sees_the_tail_without_claiming_anything() {
    let world = world().await;
    assert!(read_verified(&world.folder).await.expect("readable").is_none());
    let mut held = world.open("a").await;
    append_ok(&mut held.log, &["one", "two"]).await;
    checkpoint(&mut held.claim, 1).await;
    let reading = read_verified(&world.folder)
        .await
        .expect("readable")
        .expect("there");
    assert_eq!(reading.state.epoch, Epoch(1));
    assert_eq!(
        reading.tail.iter().map(|r| &r.body[..]).collect::<Vec<_>>(),
        [b"two"]
    );
    assert_eq!(reading.follower.next(), Slot(3));
    held.barrier.check().await.expect("nothing was claimed");
}

#[tokio::test]
async fn a_follower_polls_for_the_next_slot() {
    let world = world().await;
    let mut held = world.open("a").await;
    append_ok(&mut held.log, &["one"]).await;
    let mut tail = Tail::read_from(&world.folder, Slot(1));
    assert!(tail.next().await.expect("readable").is_some());
    assert!(tail.next().await.expect("readable").is_none());
    append_ok(&mut held.log, &["two", "three"]).await;
    assert_eq!(
        tail.next().await.expect("readable").expect("there").trailer.slot,
        Slot(2)
    );
    assert_eq!(
        tail.next().await.expect("readable").expect("there").trailer.slot,
        Slot(3)
    );
    assert!(tail.next().await.expect("readable").is_none());
    assert_eq!(tail.position(), Slot(4));
}

#[tokio::test]
async fn large_bodies_are_fetched_when_their_turn_comes() {
    let world = world().await;
    let mut held = world.open("a").await;
    let large = "x".repeat(300 << 10);
    append_ok(&mut held.log, &["small", &large, "small too", &large]).await;
    let next = world.open("b").await;
    assert_eq!((next.tail.len(), next.tail.bytes()), (4, 2 * (300 << 10) + 14));
    let read = bodies(next.tail).await;
    assert_eq!(
        read.iter().map(String::len).collect::<Vec<_>>(),
        [5, 300 << 10, 9, 300 << 10]
    );
}

#[tokio::test]
async fn a_long_tail_is_read_ahead_and_complete() {
    let world = world().await;
    let mut held = world.open("a").await;
    let all: Vec<String> = (0..400).map(|n| n.to_string()).collect();
    for body in &all {
        append_ok(&mut held.log, &[body]).await;
    }
    assert_eq!(bodies(world.open("b").await.tail).await, all);
}

#[tokio::test]
async fn racing_takeovers_leave_one_holder() {
    let world = world().await;
    let mut old = world.open("old").await;
    append_ok(&mut old.log, &["one"]).await;
    let races = (0..6).map(|n| {
        let folder = world.folder.clone();
        async move { takeover(&folder, &format!("racer {n}")).await }
    });
    let mut held: Vec<_> = futures::future::join_all(races)
        .await
        .into_iter()
        .filter_map(std::result::Result::ok)
        .collect();
    let mut acked = 0;
    for holder in &mut held {
        acked += usize::from(append(&mut holder.log, "after").await.is_ok());
    }
    assert!(acked <= 1, "{acked} holders could write");
    let read = bodies(world.open("last").await.tail).await;
    assert_eq!(read.len(), 1 + acked);
}

#[test]
fn slots_are_named_by_twenty_digits_and_nothing_else() {
    let slot_of = |text: &str| PartitionFolder::slot_of(&Path::from(text));
    assert_eq!(slot_of("c/X/p0/wal/00000000000000000042.arrow"), Some(Slot(42)));
    for bad in [
        "wal/42.arrow",
        "wal/00000000000000000042",
        "wal/99999999999999999999.arrow",
        "wal/+0000000000000000042.arrow",
    ] {
        assert_eq!(slot_of(bad), None, "{bad}");
    }
}

#[tokio::test]
async fn who_may_only_take_what_is_free_takes_nothing_from_anybody() {
    let world = world().await;
    let held = world.open("a").await;
    let refused = takeover_if_free(&world.folder, "b").await.expect_err("a has it");
    assert!(matches!(refused, StoreError::Superseded { .. }), "{refused}");
    assert_eq!(refused.kind(), ErrorKind::Retry);
    // Nothing was claimed: `a` goes on.
    held.barrier.check().await.expect("still its own");
    // What it held itself, it may take again; what was handed back, too.
    let again = takeover_if_free(&world.folder, "a").await.expect("its own");
    again.claim.release(again.log).await.expect("handed back");
    takeover_if_free(&world.folder, "b").await.expect("free");
}
