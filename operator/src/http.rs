//! Health and metrics.  Ready does not mean leading: a standby is as healthy as a leader.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::routing::get;
use rhumb_seams::CancellationToken;
use tokio::net::TcpListener;

use crate::context::Context;

pub async fn serve(
    listener: TcpListener,
    context: Arc<Context>,
    stop: CancellationToken,
) -> std::io::Result<()> {
    axum::serve(listener, router(context))
        .with_graceful_shutdown(stop.cancelled_owned())
        .await
}

fn router(context: Arc<Context>) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok" }))
        .route("/readyz", get(|| async { "ok" }))
        .route(
            "/metrics",
            get(|State(context): State<Arc<Context>>| async move { context.metrics.render() }),
        )
        .with_state(context)
}
