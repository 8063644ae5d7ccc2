//! Recovery of intents whose lease has ended (step 8).

use std::sync::Arc;

use crate::context::Context;
use crate::event::RunnerEvent;

/// Recovers one intent after another. Several of these loops recover several intents at once.
pub(crate) async fn recover(context: Arc<Context>) {
    while !context.is_stopping() {
        match context.writes.recover_next().await {
            Ok(Some(write)) => {
                context.observe(&RunnerEvent::Recovered(write));
                continue;
            }
            Ok(None) => {}
            Err(error) => context.observe(&RunnerEvent::RecoveryFailed(&error)),
        }
        context.pause(context.pacing.period).await;
    }
}
