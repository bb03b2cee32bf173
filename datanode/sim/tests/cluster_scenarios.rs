//! Stories of leaders and Leases, written out: what was found once, and what is promised.

use std::time::Duration;

use rhumb_sim::cluster::{ApiWeather, ClusterPlan, ClusterSim, Kind, Pod, TIMING, play};

const SECOND: Duration = Duration::from_secs(1);

/// A cluster of one slot that has settled; who leads it, and the others.  No operator.
async fn settled(seed: u64, pods: u32, clients: u32) -> (ClusterSim, String, Vec<String>) {
    let sim = ClusterSim::new(seed, 1, ClusterPlan::default());
    sim.start(pods, clients);
    assert!(sim.settles(40 * SECOND).await, "never settled");
    *sim.operator_is_up.lock() = false;
    let leader = sim.leader(0).expect("settled");
    let others = sim.pods_where(|pod| pod.name != leader);
    (sim, leader, others)
}

fn is_certain(sim: &ClusterSim, name: &str) -> bool {
    sim.with_pod(name, |pod| pod.term(0).is_some_and(|term| term.is_certain())) == Some(true)
}

fn cut(sim: &ClusterSim, name: &str, cut: bool) {
    sim.with_pod(name, |pod| pod.line.cut(cut));
}

async fn becomes_certain(sim: &ClusterSim, name: &str, within: Duration) -> Option<Duration> {
    sim.until(within, |sim| is_certain(sim, name)).await
}

async fn must_be_explained(sim: &ClusterSim, seed: u64) {
    let wrong = sim.judge().await;
    assert!(wrong.is_empty(), "seed {seed}: {wrong:#?}");
}

/// Serves both kinds, so that it has the slot open.
async fn serves(sim: &ClusterSim, name: &str) {
    assert!(sim.call(name, 0, Kind::Write).await, "{name} does not write");
    assert!(sim.call(name, 0, Kind::Read).await, "{name} does not read");
}

#[test]
fn a_leader_that_was_cut_off_does_not_take_up_its_term_after_others_have_led_and_left() {
    play(async {
        let (sim, a, others) = settled(1, 2, 0).await;
        let b = others[0].clone();
        serves(&sim, &a).await;
        cut(&sim, &a, true);
        sim.prefer(0, &[b.clone(), a.clone()]);
        assert!(becomes_certain(&sim, &b, 8 * SECOND).await.is_some());
        serves(&sim, &b).await;
        sim.with_pod(&b, Pod::drain);
        assert!(
            sim.until(10 * SECOND, |sim| sim.with_pod(&b, |b| b.is_drained())
                == Some(true))
                .await
                .is_some()
        );
        cut(&sim, &a, false);
        // What it had open is out of date: it has to claim anew.
        assert!(becomes_certain(&sim, &a, 60 * SECOND).await.is_some());
        assert!(sim.call(&a, 0, Kind::Read).await);
        must_be_explained(&sim, 1).await;
    });
}

#[test]
fn a_leader_that_was_cut_off_does_not_put_itself_back_into_a_lease_that_was_blanked() {
    for deletes in [false, true] {
        play(async {
            let (sim, a, others) = settled(2, 2, 0).await;
            let b = others[0].clone();
            serves(&sim, &a).await;
            cut(&sim, &a, true);
            sim.prefer(0, &[b.clone(), a.clone()]);
            assert!(becomes_certain(&sim, &b, 8 * SECOND).await.is_some());
            // The rightful leader learns late what somebody did to its Lease.
            sim.with_pod(&b, |pod| {
                pod.line.set(ApiWeather {
                    latency: SECOND,
                    late_event: 1.0,
                    ..ApiWeather::calm()
                });
            });
            cut(&sim, &a, false);
            match deletes {
                true => sim.delete_lease(0),
                false => sim.edit_lease(0, |lease| lease["spec"]["holderIdentity"] = "".into()),
            }
            tokio::time::sleep(10 * SECOND).await;
            must_be_explained(&sim, 2).await;
        });
    }
}

#[test]
fn a_lease_that_was_missing_once_is_not_made_by_who_missed_that_it_came_back() {
    for seed in 1..=30 {
        play(async {
            let (sim, a, others) = settled(seed, 2, 0).await;
            let b = others[0].clone();
            sim.delete_lease(0);
            // It sees that the Lease is gone, and then nothing.
            tokio::time::sleep(Duration::from_millis(5)).await;
            cut(&sim, &b, true);
            tokio::time::sleep(8 * SECOND).await;
            sim.with_pod(&a, |pod| {
                pod.line.set(ApiWeather {
                    latency: Duration::from_millis(600),
                    late_event: 1.0,
                    ..ApiWeather::calm()
                });
            });
            sim.delete_lease(0);
            cut(&sim, &b, false);
            tokio::time::sleep(10 * SECOND).await;
            must_be_explained(&sim, seed).await;
        });
    }
}

#[test]
fn a_follower_whom_somebody_wrote_into_the_lease_waits_it_out() {
    for seed in 1..=5 {
        play(async {
            let (sim, a, others) = settled(seed, 2, 0).await;
            sim.with_pod(&a, |pod| {
                pod.line.set(ApiWeather {
                    latency: Duration::from_millis(500),
                    late_event: 1.0,
                    ..ApiWeather::calm()
                });
            });
            let b = sim.with_pod(&others[0], |pod| pod.identity()).expect("there");
            sim.edit_lease(0, |lease| lease["spec"]["holderIdentity"] = b.as_str().into());
            tokio::time::sleep(10 * SECOND).await;
            must_be_explained(&sim, seed).await;
        });
    }
}

#[test]
fn nobody_hands_over_to_a_pod_that_is_gone() {
    play(async {
        let (sim, a, others) = settled(3, 2, 2).await;
        sim.with_pod(&a, Pod::kill);
        let b = &others[0];
        // The dead pod is first in the placement, and says that it is warm.
        assert!(becomes_certain(&sim, b, TIMING.duration + SECOND).await.is_some());
        for _ in 0..6_000 {
            tokio::time::sleep(Duration::from_millis(10)).await;
            assert!(is_certain(&sim, b), "its term ended");
        }
    });
}

#[test]
fn a_pod_that_is_back_leads_again_where_it_is_first() {
    play(async {
        let (sim, a, others) = settled(4, 2, 2).await;
        sim.with_pod(&a, Pod::kill);
        let b = &others[0];
        assert!(becomes_certain(&sim, b, TIMING.duration + SECOND).await.is_some());
        sim.with_pod(&a, |pod| pod.start(&sim));
        assert!(becomes_certain(&sim, &a, 60 * SECOND).await.is_some());
        sim.watch_calm(60 * SECOND).await;
        must_be_explained(&sim, 4).await;
    });
}

#[test]
fn a_restarted_container_takes_its_lease_back_at_once() {
    play(async {
        let (sim, a, _) = settled(5, 3, 2).await;
        sim.with_pod(&a, |pod| pod.start(&sim));
        let took = becomes_certain(&sim, &a, 10 * SECOND)
            .await
            .expect("it leads again");
        assert!(took < SECOND, "{took:?}");
        must_be_explained(&sim, 5).await;
    });
}

#[test]
fn the_api_server_may_be_away_for_an_hour_and_the_leader_goes_on() {
    play(async {
        let (sim, a, _) = settled(6, 3, 1).await;
        let before = sim.with_pod(&a, |pod| pod.term(0)).flatten().expect("it leads");
        sim.pods.lock().iter().for_each(|pod| pod.line.cut(true));
        tokio::time::sleep(3_600 * SECOND).await;
        assert!(!before.is_certain() && !before.has_ended());
        serves(&sim, &a).await;
        sim.pods.lock().iter().for_each(|pod| pod.line.cut(false));
        assert!(becomes_certain(&sim, &a, 5 * SECOND).await.is_some());
        assert!(before.is_certain(), "it is the same term");
        sim.watch_calm(20 * SECOND).await;
        must_be_explained(&sim, 6).await;
    });
}

#[test]
fn a_drained_pod_leaves_no_gap_longer_than_its_flush() {
    play(async {
        let (sim, a, _) = settled(7, 3, 2).await;
        sim.with_pod(&a, Pod::drain);
        let taken = |sim: &ClusterSim| sim.leader(0).is_some_and(|leader| leader != a);
        let took = sim.until(5 * SECOND, taken).await.expect("somebody takes over");
        assert!(took < SECOND, "{took:?}");
        must_be_explained(&sim, 7).await;
    });
}

#[test]
fn what_others_take_away_from_the_status_of_a_shard_is_said_again() {
    play(async {
        let (sim, a, others) = settled(8, 2, 1).await;
        sim.edit_shard(0, |shard| shard["status"] = serde_json::json!({}));
        let is_said = |sim: &ClusterSim| {
            let status = sim.shard(0).and_then(|shard| shard.status).unwrap_or_default();
            let leads = status.leader.is_some_and(|leader| leader.pod == a);
            leads && status.nodes.iter().any(|node| node.pod == others[0])
        };
        assert!(sim.until(15 * SECOND, is_said).await.is_some());
    });
}

#[test]
fn a_stopped_leader_that_wakes_up_reads_nothing_stale() {
    for seed in 1..=10 {
        play(async {
            let (sim, a, others) = settled(seed, 2, 3).await;
            sim.with_pod(&a, Pod::pause);
            assert!(becomes_certain(&sim, &others[0], 8 * SECOND).await.is_some());
            tokio::time::sleep(5 * SECOND).await;
            sim.with_pod(&a, Pod::resume);
            tokio::time::sleep(10 * SECOND).await;
            must_be_explained(&sim, seed).await;
        });
    }
}
