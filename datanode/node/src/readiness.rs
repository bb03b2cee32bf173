//! Whether the store answers, asked once for all who want to know.

use std::time::Duration;

use rhumb_store::Bucket;
use tokio::time::Instant;

/// Probes come every second or so from several sides.
const AGE: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(3);

/// What the last look at the store said.
#[derive(Default)]
pub struct Readiness(tokio::sync::Mutex<Option<(Instant, Result<(), String>)>>);

impl Readiness {
    pub async fn of(&self, bucket: &Bucket) -> Result<(), String> {
        // Those who wait here get the answer of the one who asks.
        let mut last = self.0.lock().await;
        if let Some((at, answer)) = &*last
            && at.elapsed() < AGE
        {
            return answer.clone();
        }
        let path = bucket.path("identity.json");
        let answer = match tokio::time::timeout(PATIENCE, bucket.head(&path)).await {
            Ok(Ok(Some(_))) => Ok(()),
            Ok(Ok(None)) => Err("the database is gone from the store".to_owned()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("the store does not answer".to_owned()),
        };
        *last = Some((Instant::now(), answer.clone()));
        answer
    }
}
