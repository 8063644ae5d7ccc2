//! Deletion of old records, in small batches.

use std::sync::Arc;
use std::time::Duration;

use crate::context::Context;
use crate::event::RunnerEvent;

/// The pause after a full batch, so that requests can use the store.
const PAUSE_AFTER_FULL_BATCH: Duration = Duration::from_millis(100);

pub(crate) async fn purge(context: Arc<Context>) {
    let batch = context.pacing.page;
    while !context.is_stopping() {
        let pause = match context.writes.purge(batch).await {
            Ok(purged) if purged >= batch => PAUSE_AFTER_FULL_BATCH,
            Ok(_) => context.pacing.purge_period,
            Err(error) => {
                context.observe(&RunnerEvent::PurgeFailed(&error));
                context.pacing.purge_period
            }
        };
        context.pause(pause).await;
    }
}
