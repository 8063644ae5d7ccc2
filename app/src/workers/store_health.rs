//! Whether the store of locks answers.

use std::sync::Arc;
use std::time::Duration;

use keywright_domain::model::WriteId;
use keywright_domain::ports::LockHistory;
use tokio::sync::watch;
use tracing::{info, warn};

const PROBE_EVERY: Duration = Duration::from_millis(500);
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

/// Asks the store for a write that does not exist, twice a second, and sends whether it answers.
pub(crate) async fn watch_store(history: Arc<dyn LockHistory>, tx: watch::Sender<bool>) {
    loop {
        let probe = history.write(WriteId::from_u128(0));
        let answers = matches!(tokio::time::timeout(PROBE_TIMEOUT, probe).await, Ok(Ok(_)));
        if tx.send_replace(answers) != answers {
            match answers {
                true => info!("the store of locks answers again"),
                false => warn!("the store of locks does not answer"),
            }
        }
        tokio::time::sleep(PROBE_EVERY).await;
    }
}
