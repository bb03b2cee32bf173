use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rhumb_seams::{OnExit, Tasks};

use super::*;
use rhumb_fake_api::FakeApi;

fn elector(api: &FakeApi, me: &str) -> Elector {
    let rand = Rand::from_seed(me.len() as u64);
    Elector::new(
        api.client(),
        "ops",
        "rhumb-operator",
        me.into(),
        TIMING,
        Clock::starting_at(0),
        rand,
    )
}

fn held(holder: &str, seconds: i32) -> Lease {
    Lease {
        spec: Some(LeaseSpec {
            holder_identity: Some(holder.into()),
            lease_duration_seconds: Some(seconds),
            lease_transitions: Some(3),
            ..LeaseSpec::default()
        }),
        ..Lease::default()
    }
}

#[test]
fn a_record_is_waited_out_for_its_own_duration() {
    let other = held("other", 15);
    assert_eq!(step(None, "me", Duration::ZERO), Step::Create);
    assert_eq!(
        step(Some(&other), "me", Duration::from_secs(5)),
        Step::Wait(Duration::from_secs(10))
    );
    assert_eq!(
        step(Some(&other), "me", Duration::from_secs(15)),
        Step::Take { transitions: 4 }
    );
    assert_eq!(
        step(Some(&held("me", 15)), "me", Duration::from_secs(60)),
        Step::Renew
    );
    assert_eq!(
        step(Some(&held("", 1)), "me", Duration::ZERO),
        Step::Take { transitions: 4 }
    );
}

#[tokio::test(start_paused = true)]
async fn a_dead_leader_is_replaced_after_the_duration_and_not_before() {
    let api = FakeApi::default();
    elector(&api, "first").acquire().await;
    let died = Instant::now();
    elector(&api, "second").acquire().await;
    let waited = died.elapsed();
    assert!(waited >= TIMING.duration, "{waited:?}");
    assert!(
        waited <= TIMING.duration + TIMING.retry.mul_f64(1.2),
        "{waited:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_renews_is_not_replaced() {
    let api = FakeApi::default();
    let tasks = Tasks::new();
    let mut first = elector(&api, "first");
    first.acquire().await;
    let stop = CancellationToken::new();
    let stopped = stop.clone();
    let renewing = tasks.spawn("first", OnExit::Fine, async move {
        first.keep(&stopped).await;
        first
    });
    let mut second = elector(&api, "second");
    assert!(timeout(Duration::from_secs(300), second.acquire()).await.is_err());
    // Released, it is taken at the next look.
    stop.cancel();
    let mut first = renewing.await.expect("it ends");
    first.release().await;
    let released = Instant::now();
    second.acquire().await;
    assert!(released.elapsed() <= TIMING.retry.mul_f64(1.2));
}

#[tokio::test(start_paused = true)]
async fn a_leader_cut_off_gives_up_before_anybody_can_follow() {
    let api = FakeApi::default();
    let mut first = elector(&api, "first");
    first.acquire().await;
    let last = Instant::now();
    api.hang(true);
    first.keep(&CancellationToken::new()).await;
    let gave_up = last.elapsed();
    assert!(
        gave_up <= TIMING.renew_deadline + Duration::from_millis(10),
        "{gave_up:?}"
    );
    assert!(gave_up < TIMING.duration);
}

#[tokio::test(start_paused = true)]
async fn a_leader_whose_lease_another_holds_stops_at_once() {
    let api = FakeApi::default();
    let mut first = elector(&api, "first");
    first.acquire().await;
    api.edit(
        "/apis/coordination.k8s.io/v1/namespaces/ops/leases/rhumb-operator",
        |lease| {
            lease["spec"]["holderIdentity"] = "second".into();
        },
    );
    let before = Instant::now();
    first.keep(&CancellationToken::new()).await;
    assert!(before.elapsed() <= TIMING.retry);
}

#[tokio::test(start_paused = true)]
async fn of_many_who_see_the_same_dead_leader_exactly_one_follows() {
    let api = FakeApi::default();
    elector(&api, "dead").acquire().await;
    let tasks = Tasks::new();
    let two_lead = Arc::new(AtomicBool::new(false));
    let leads = Arc::new(AtomicBool::new(false));
    for n in 0..5 {
        let mut candidate = elector(&api, &"x".repeat(n + 1));
        let (leads, two_lead) = (leads.clone(), two_lead.clone());
        tasks.spawn("candidate", OnExit::Fine, async move {
            candidate.acquire().await;
            two_lead.fetch_or(leads.swap(true, Ordering::SeqCst), Ordering::SeqCst);
            candidate.keep(&CancellationToken::new()).await;
        });
    }
    sleep(Duration::from_secs(120)).await;
    assert!(leads.load(Ordering::SeqCst));
    assert!(!two_lead.load(Ordering::SeqCst));
}
