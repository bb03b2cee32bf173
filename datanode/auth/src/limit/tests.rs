use proptest::prelude::*;

use super::*;

const MS: fn(u64) -> Duration = Duration::from_millis;

fn per_second(requests: u32) -> Pace {
    Pace {
        requests_per_s: Some(requests),
        ..Pace::default()
    }
}

fn rows(most: u64) -> Pace {
    Pace {
        rows_per_s: Some(most),
        ..Pace::default()
    }
}

/// A thousand a second of each cost that shows only while a request runs.
fn spent_later() -> [(Bound, Pace); 3] {
    let bytes = Pace {
        bytes_per_s: Some(1_000),
        ..Pace::default()
    };
    let server = Pace {
        server_ms_per_s: Some(1_000),
        ..Pace::default()
    };
    [
        (Bound::Bytes, bytes),
        (Bound::Rows, rows(1_000)),
        (Bound::ServerMs, server),
    ]
}

fn told(bound: Bound, most: u64, wait: Duration) -> Over {
    Over { bound, most, wait }
}

#[test]
fn a_burst_is_let_in_and_then_one_at_a_time() {
    let (mut buckets, ada) = (Buckets::new(8), Subject::user("ada"));
    let pace = per_second(10);
    for _ in 0..10 {
        assert_eq!(buckets.admit(&ada, &pace, MS(0)), Ok(()));
    }
    let Err(over) = buckets.admit(&ada, &pace, MS(0)) else {
        panic!("the bucket is empty")
    };
    assert_eq!(over, told(Bound::Requests, 10, MS(100)));
    assert_eq!(buckets.admit(&Subject::user("bob"), &pace, MS(0)), Ok(()));
    assert_eq!(buckets.admit(&ada, &pace, MS(101)), Ok(()));
    assert!(buckets.admit(&ada, &pace, MS(101)).is_err());
}

#[test]
fn no_more_run_at_once_than_may() {
    let (mut buckets, ada) = (Buckets::new(8), Subject::user("ada"));
    let pace = Pace {
        concurrent: Some(1),
        ..Pace::default()
    };
    assert_eq!(buckets.admit(&ada, &pace, MS(0)), Ok(()));
    assert_eq!(
        buckets.admit(&ada, &pace, MS(0)),
        Err(told(Bound::Concurrent, 1, RUNNING_WAIT))
    );
    buckets.release(&ada);
    assert_eq!(buckets.admit(&ada, &pace, MS(0)), Ok(()));
}

#[test]
fn what_shows_only_later_is_paid_for_before_the_next_request() {
    for (bound, pace) in spent_later() {
        let (mut buckets, ada) = (Buckets::new(8), Subject::user("ada"));
        assert_eq!(buckets.admit(&ada, &pace, MS(0)), Ok(()), "{bound}");
        assert_eq!(buckets.admit(&ada, &pace, MS(0)), Ok(()), "{bound}");
        buckets.spend(&ada, bound, 3_000.0);
        assert_eq!(
            buckets.admit(&ada, &pace, MS(0)),
            Err(told(bound, 1_000, MS(2_000)))
        );
        assert_eq!(buckets.admit(&ada, &pace, MS(2_000)), Ok(()), "{bound}");
    }
}

#[test]
fn who_serves_for_another_node_judges_what_is_spent_there_alone() {
    for (bound, pace) in spent_later() {
        let (mut buckets, ada) = (Buckets::new(8), Subject::user("ada"));
        let pace = Pace {
            requests_per_s: Some(1),
            concurrent: Some(1),
            ..pace
        };
        for _ in 0..3 {
            assert_eq!(buckets.admit_passed_on(&ada, &pace, MS(0)), Ok(()), "{bound}");
        }
        buckets.spend(&ada, bound, 3_000.0);
        let told = Err(told(bound, 1_000, MS(2_000)));
        let judged = buckets.admit_passed_on(&ada, &pace, MS(0));
        assert_eq!(judged, if bound == Bound::Bytes { Ok(()) } else { told });
    }
}

#[test]
fn no_debt_is_run_up_under_a_bound_that_is_set_later() {
    let (mut buckets, ada) = (Buckets::new(8), Subject::user("ada"));
    for n in 0..100 {
        assert_eq!(buckets.admit(&ada, &rows(1_000), MS(n)), Ok(()));
        buckets.spend(&ada, Bound::ServerMs, 1e6);
    }
    for (_, pace) in spent_later() {
        assert_eq!(buckets.admit(&ada, &pace.or(per_second(1)), MS(200)), Ok(()));
        buckets.release(&ada);
        // A bucket without a bound is not kept either: the next pace begins full.
        assert_eq!(buckets.admit(&ada, &rows(1_000), MS(200)), Ok(()));
    }
}

#[test]
fn a_pace_tells_when_a_bound_of_it_lets_nothing_through() {
    assert!(!Pace::default().is_shut() && !rows(1).is_shut());
    assert!(rows(0).is_shut() && per_second(0).is_shut());
    assert!(rows(1).counts_where_served() && !per_second(1).counts_where_served());
    let other = Pace {
        server_ms_per_s: Some(5),
        ..rows(9)
    };
    let merged = rows(2).or(other);
    assert_eq!((merged.rows_per_s, merged.server_ms_per_s), (Some(2), Some(5)));
}

#[test]
fn whoever_is_unbounded_is_not_even_remembered() {
    let mut buckets = Buckets::new(2);
    assert_eq!(
        buckets.admit(&Subject::user("x"), &Pace::default(), MS(0)),
        Ok(())
    );
    assert!(buckets.of.is_empty());
    for n in 0..10 {
        let subject = Subject::user(&n.to_string());
        assert_eq!(buckets.admit(&subject, &per_second(1), MS(n)), Ok(()));
        buckets.release(&subject);
    }
    assert_eq!(buckets.of.len(), 2);
}

proptest! {
    #[test]
    fn over_any_time_no_more_than_a_burst_and_the_rate_is_let_in(
        steps in prop::collection::vec(0u64..400, 1..200), rate in 1u32..20,
    ) {
        let (mut buckets, ada) = (Buckets::new(8), Subject::user("ada"));
        let (mut now, mut admitted) = (0, 0u64);
        for step in steps {
            now += step;
            admitted += u64::from(buckets.admit(&ada, &per_second(rate), MS(now)).is_ok());
            let most = u64::from(rate) + now * u64::from(rate) / 1_000 + 1;
            prop_assert!(admitted <= most, "{admitted} within {now} ms at {rate}/s");
        }
    }
}
