//! The process: is it alive, can it serve, what does it do.

use axum::http::StatusCode;
use rhumb_core::{Code, Problem, time};

use super::App;
use super::answer::{self, Answer};
use super::call::Call;
use super::metrics::Text;
use super::problem::Refused;

pub async fn healthz() -> Refused<Answer> {
    Ok(health("alive"))
}

pub async fn readyz(call: &mut Call) -> Refused<Answer> {
    let app = &call.app;
    let unready = |why: &str| Problem::new(Code::Unavailable, why.to_owned()).into();
    if app.db.fenced().is_cancelled() {
        return Err(unready("another server took over"));
    }
    if app.leaving.is_cancelled() || app.tasks.stopping().is_cancelled() {
        return Err(unready("the server is stopping"));
    }
    app.readiness.of(&app.bucket).await.map_err(|why| unready(&why))?;
    Ok(health("ready"))
}

fn health(status: &str) -> Answer {
    answer::json(
        StatusCode::OK,
        &rhumb_api::Health {
            status: status.to_owned(),
        },
    )
}

pub async fn openapi(call: &mut Call) -> Refused<Answer> {
    Ok(answer::bytes_of(
        StatusCode::OK,
        "application/json",
        call.app.openapi.clone(),
    ))
}

pub async fn status(call: &mut Call) -> Refused<Answer> {
    let app = &call.app;
    let limits = match serde_json::to_value(app.limits.as_ref()) {
        Ok(serde_json::Value::Object(map)) => map
            .into_iter()
            .filter_map(|(name, value)| Some((name, value.as_u64()?)))
            .collect(),
        Ok(_) | Err(_) => rhumb_api::Limits::new(),
    };
    let started_ms = app.started_unix_ms;
    let status = rhumb_api::Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        holder: app.holder.clone(),
        store: app.settings.store.to_string(),
        database: app.bucket.uid().to_owned(),
        started_at: time::format(started_ms),
        uptime_s: (app.clock.unix_ms() - started_ms).max(0) as u64 / 1000,
        memory_limit_bytes: app.settings.memory_limit.0,
        resident_bytes: crate::memory::resident(),
        limits,
        engine: app
            .db
            .gauges()
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value))
            .collect(),
    };
    Ok(answer::json(StatusCode::OK, &status))
}

pub async fn metrics(call: &mut Call) -> Refused<Answer> {
    let app = &call.app;
    let mut text = Text::default();
    app.metrics.render(&mut text);
    store(app, &mut text);
    for (name, value) in app.db.gauges() {
        text.family(name, "gauge", "Of the engine");
        text.sample(name, "", value);
    }
    if let Some(member) = &app.member {
        text.family("rhumb_led_shards", "gauge", "Shards that this node leads");
        text.sample("rhumb_led_shards", "", f64::from(member.cluster.board.led()));
    }
    if let Some(expires) = app.tls.as_ref().and_then(|tls| tls.expires_s()) {
        let about = "When the certificate in use is no longer valid";
        text.family("rhumb_certificate_expiry_timestamp_seconds", "gauge", about);
        text.sample("rhumb_certificate_expiry_timestamp_seconds", "", expires);
    }
    text.family("rhumb_open_cursors", "gauge", "Scans between two pages");
    text.sample("rhumb_open_cursors", "", app.cursors.len() as f64);
    text.family("rhumb_resident_bytes", "gauge", "Resident memory of the process");
    text.sample("rhumb_resident_bytes", "", crate::memory::resident() as f64);
    text.family(
        "rhumb_start_time_seconds",
        "gauge",
        "When the process began to serve",
    );
    text.sample("rhumb_start_time_seconds", "", app.started_unix_ms as f64 / 1e3);
    text.family("rhumb_info", "gauge", "The version of the server");
    text.sample(
        "rhumb_info",
        concat!("version=\"", env!("CARGO_PKG_VERSION"), "\""),
        1.0,
    );
    Ok(answer::bytes_of(
        StatusCode::OK,
        "text/plain; version=0.0.4",
        text.into_string(),
    ))
}

fn store(app: &App, text: &mut Text) {
    let snapshot = app.bucket.metrics().snapshot();
    text.family(
        "rhumb_store_requests_total",
        "counter",
        "Requests to the store, repetitions included",
    );
    for (op, counts) in &snapshot.ops {
        text.sample(
            "rhumb_store_requests_total",
            &format!("op=\"{op}\""),
            counts.requests as f64,
        );
    }
    text.family(
        "rhumb_store_failures_total",
        "counter",
        "Requests that the store failed",
    );
    for (op, counts) in &snapshot.ops {
        text.sample(
            "rhumb_store_failures_total",
            &format!("op=\"{op}\""),
            counts.failures as f64,
        );
    }
    text.family("rhumb_store_seconds", "summary", "How long the store took");
    for (op, counts) in &snapshot.ops {
        for q in [0.5, 0.99] {
            let labels = format!("op=\"{op}\",quantile=\"{q}\"");
            text.sample("rhumb_store_seconds", &labels, counts.quantile(q).as_secs_f64());
        }
        text.sample(
            "rhumb_store_seconds_sum",
            &format!("op=\"{op}\""),
            counts.total.as_secs_f64(),
        );
        text.sample(
            "rhumb_store_seconds_count",
            &format!("op=\"{op}\""),
            counts.requests as f64,
        );
    }
    for (event, count) in &snapshot.events {
        let name = format!("rhumb_store_{event}_total");
        text.family(&name, "counter", "What happens above the requests to the store");
        text.sample(&name, "", *count as f64);
    }
    for (name, bytes) in [
        ("rhumb_store_read_bytes_total", snapshot.bytes_read),
        ("rhumb_store_written_bytes_total", snapshot.bytes_written),
    ] {
        text.family(name, "counter", "Bytes between us and the store");
        text.sample(name, "", bytes as f64);
    }
}
