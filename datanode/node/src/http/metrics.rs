//! Counts and times of requests, and the text that Prometheus reads.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use rhumb_api::ROUTES;

/// Upper bounds in seconds.
const BUCKETS: [f64; 14] = [
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0,
];
/// The statuses we ever answer with; others (there are none) count as 0.
const STATUSES: [u16; 22] = [
    200, 201, 202, 204, 304, 400, 401, 403, 404, 405, 408, 409, 410, 412, 413, 415, 422, 429, 500, 503, 504,
    0,
];

/// One per route, in the order of `ROUTES`, and a last one for requests that met none.
pub struct Metrics {
    routes: Vec<RouteMetrics>,
    pub in_flight: AtomicU64,
    pub connections: AtomicU64,
    pub body_bytes: AtomicU64,
    pub recalls: Recalls,
}

/// Measurements of recall that are shown; the oldest goes first.
const MOST_RECALLS: usize = 1_024;

/// The last recall measured of a collection, for each class of filters.
#[derive(Default)]
pub struct Recalls(Mutex<VecDeque<Recall>>);

struct Recall {
    collection: String,
    class: &'static str,
    value: f64,
}

impl Recalls {
    pub fn measured(&self, collection: &str, class: &'static str, value: f64) {
        let mut recalls = self.0.lock();
        recalls.retain(|recall| recall.collection != collection || recall.class != class);
        recalls.push_back(Recall {
            collection: collection.to_owned(),
            class,
            value,
        });
        if recalls.len() > MOST_RECALLS {
            recalls.pop_front();
        }
    }

    fn render(&self, out: &mut Text) {
        out.family(
            "rhumb_recall",
            "gauge",
            "The recall that /recall measured last, by collection and how much the filter lets through",
        );
        // A collection's name needs no escaping.
        for Recall {
            collection,
            class,
            value,
        } in self.0.lock().iter()
        {
            let labels = format!("collection=\"{collection}\",filter=\"{class}\"");
            out.sample("rhumb_recall", &labels, *value);
        }
    }
}

#[derive(Default)]
struct RouteMetrics {
    by_status: [AtomicU64; STATUSES.len()],
    /// One more than bounds: the last is everything above.
    by_time: [AtomicU64; BUCKETS.len() + 1],
    total_ns: AtomicU64,
}

impl Metrics {
    pub fn new() -> Self {
        let routes = (0..=ROUTES.len()).map(|_| RouteMetrics::default()).collect();
        Self {
            routes,
            in_flight: 0.into(),
            connections: 0.into(),
            body_bytes: 0.into(),
            recalls: Recalls::default(),
        }
    }

    /// `route` is its number in `ROUTES`, `None` for none of them.
    pub fn answered(&self, route: Option<usize>, status: u16, took: Duration) {
        let Some(metrics) = self.routes.get(route.unwrap_or(ROUTES.len())) else {
            return;
        };
        let status = STATUSES
            .iter()
            .position(|s| *s == status)
            .unwrap_or(STATUSES.len() - 1);
        metrics.by_status[status].fetch_add(1, Ordering::Relaxed);
        let seconds = took.as_secs_f64();
        let bucket = BUCKETS
            .iter()
            .position(|bound| seconds <= *bound)
            .unwrap_or(BUCKETS.len());
        metrics.by_time[bucket].fetch_add(1, Ordering::Relaxed);
        metrics.total_ns.fetch_add(
            took.as_nanos().min(u128::from(u64::MAX)) as u64,
            Ordering::Relaxed,
        );
    }

    pub fn render(&self, out: &mut Text) {
        out.family(
            "rhumb_http_requests_total",
            "counter",
            "Requests answered, by route and status",
        );
        for (name, metrics) in self.named() {
            for (status, count) in STATUSES.iter().zip(&metrics.by_status) {
                let count = count.load(Ordering::Relaxed);
                if count > 0 {
                    let labels = format!("route=\"{name}\",status=\"{status}\"");
                    out.sample("rhumb_http_requests_total", &labels, count as f64);
                }
            }
        }
        out.family(
            "rhumb_http_request_seconds",
            "histogram",
            "From the head of a request to the head of its answer",
        );
        for (name, metrics) in self.named() {
            metrics.histogram(name, out);
        }
        for (name, what, value) in [
            ("rhumb_http_in_flight", "Requests being answered", &self.in_flight),
            ("rhumb_http_connections", "Open connections", &self.connections),
        ] {
            out.family(name, "gauge", what);
            out.sample(name, "", value.load(Ordering::Relaxed) as f64);
        }
        out.family(
            "rhumb_http_body_bytes_total",
            "counter",
            "Decoded bytes of request bodies",
        );
        out.sample(
            "rhumb_http_body_bytes_total",
            "",
            self.body_bytes.load(Ordering::Relaxed) as f64,
        );
        self.recalls.render(out);
    }

    fn named(&self) -> impl Iterator<Item = (&'static str, &RouteMetrics)> {
        let names = ROUTES.iter().map(|route| route.op.name()).chain(["none"]);
        names.zip(&self.routes)
    }
}

impl RouteMetrics {
    fn histogram(&self, route: &str, out: &mut Text) {
        let counts: Vec<u64> = self
            .by_time
            .iter()
            .map(|count| count.load(Ordering::Relaxed))
            .collect();
        let total: u64 = counts.iter().sum();
        if total == 0 {
            return;
        }
        let mut below = 0;
        for (bound, count) in BUCKETS.iter().zip(&counts) {
            below += count;
            let labels = format!("route=\"{route}\",le=\"{bound}\"");
            out.sample("rhumb_http_request_seconds_bucket", &labels, below as f64);
        }
        out.sample(
            "rhumb_http_request_seconds_bucket",
            &format!("route=\"{route}\",le=\"+Inf\""),
            total as f64,
        );
        let seconds = self.total_ns.load(Ordering::Relaxed) as f64 / 1e9;
        out.sample(
            "rhumb_http_request_seconds_sum",
            &format!("route=\"{route}\""),
            seconds,
        );
        out.sample(
            "rhumb_http_request_seconds_count",
            &format!("route=\"{route}\""),
            total as f64,
        );
    }
}

/// The Prometheus text format, version 0.0.4.
#[derive(Default)]
pub struct Text(String);

impl Text {
    pub fn family(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    pub fn sample(&mut self, name: &str, labels: &str, value: f64) {
        let _ = match labels {
            "" => writeln!(self.0, "{name} {value}"),
            labels => writeln!(self.0, "{name}{{{labels}}} {value}"),
        };
    }

    pub fn into_string(self) -> String {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_by_route_and_status_and_their_times_add_up() {
        let metrics = Metrics::new();
        metrics.answered(Some(0), 200, Duration::from_micros(200));
        metrics.answered(Some(0), 200, Duration::from_secs(100));
        metrics.answered(None, 404, Duration::ZERO);
        let mut text = Text::default();
        metrics.render(&mut text);
        let text = text.into_string();
        let route = ROUTES[0].op.name();
        for line in [
            format!("rhumb_http_requests_total{{route=\"{route}\",status=\"200\"}} 2"),
            "rhumb_http_requests_total{route=\"none\",status=\"404\"} 1".to_owned(),
            format!("rhumb_http_request_seconds_bucket{{route=\"{route}\",le=\"0.0001\"}} 0"),
            format!("rhumb_http_request_seconds_bucket{{route=\"{route}\",le=\"0.00025\"}} 1"),
            format!("rhumb_http_request_seconds_bucket{{route=\"{route}\",le=\"+Inf\"}} 2"),
            format!("rhumb_http_request_seconds_count{{route=\"{route}\"}} 2"),
            format!("rhumb_http_request_seconds_sum{{route=\"{route}\"}} 100.0002"),
        ] {
            assert!(text.lines().any(|l| l == line), "{line}\n{text}");
        }
    }

    #[test]
    fn the_last_recall_of_each_kind_is_shown_and_old_ones_are_forgotten() {
        let recalls = Recalls::default();
        recalls.measured("a", "none", 0.5);
        recalls.measured("a", "none", 0.97);
        recalls.measured("a", "above_50_percent", 1.0);
        let text = |recalls: &Recalls| {
            let mut text = Text::default();
            recalls.render(&mut text);
            text.into_string()
        };
        let shown = text(&recalls);
        assert!(shown.contains("rhumb_recall{collection=\"a\",filter=\"none\"} 0.97\n"));
        assert!(shown.contains("filter=\"above_50_percent\"} 1\n") && !shown.contains("0.5"));
        for n in 0..MOST_RECALLS {
            recalls.measured(&format!("c{n}"), "none", 1.0);
        }
        assert_eq!(text(&recalls).lines().count(), 2 + MOST_RECALLS);
        assert!(!text(&recalls).contains("\"a\""));
    }

    #[test]
    fn every_status_of_a_problem_has_its_own_counter() {
        for code in rhumb_api::CODES {
            assert!(STATUSES.contains(&rhumb_api::status(code)), "{code:?}");
        }
    }
}
