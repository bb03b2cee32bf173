//! Waiting on conditions.  Nothing here sleeps for any other reason.

use std::fmt::Debug;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

const POLL: Duration = Duration::from_millis(100);

/// Looks until there is something; panics with the last thing that was in the way.
pub async fn wait_for<T>(what: &str, patience: Duration, mut look: impl AsyncFnMut() -> Result<T>) -> T {
    match until(patience, &mut look).await {
        Ok(found) => found,
        Err(last) => panic!("{what}: not after {patience:?}: {last:#}"),
    }
}

/// The same as a result.  A look that hangs counts as one that failed.
pub async fn until<T>(patience: Duration, mut look: impl AsyncFnMut() -> Result<T>) -> Result<T> {
    let begin = Instant::now();
    loop {
        let left = patience.saturating_sub(begin.elapsed());
        let last = match tokio::time::timeout(left.max(POLL), look()).await {
            Ok(Ok(found)) => return Ok(found),
            Ok(Err(error)) => error,
            Err(_) => anyhow::anyhow!("the last look hung"),
        };
        if begin.elapsed() > patience {
            return Err(last);
        }
        tokio::time::sleep(POLL).await;
    }
}

/// For looks: an error that shows what was found instead.
pub fn expect_eq<T: PartialEq + Debug>(found: T, wanted: T) -> Result<()> {
    if found == wanted {
        return Ok(());
    }
    bail!("found {found:?}, wanted {wanted:?}")
}
