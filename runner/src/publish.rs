//! Publishing of all recorded events.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use keywright_domain::model::{LoggedEvent, Position};
use tokio::sync::Notify;

use crate::context::Context;
use crate::event::RunnerEvent;

/// Why events were not published.
pub type PublishError = Box<dyn Error + Send + Sync>;

/// Passes all recorded events on, for instance to a message bus.
///
/// Each event is passed at least once, and the events of each lock are passed in the order of their versions. After a crash, an error, or
/// if several processes publish to the same bus, an event may be passed again; its lock and version identify it.
#[async_trait]
pub trait EventPublisher: Send + Sync {
    /// The position up to which all events are published: [`Position::START`] at first, later the last one for which
    /// [`EventPublisher::publish`] has returned `Ok`. It is called at the start and after each error.
    ///
    /// # Errors
    /// The position is unknown. It is asked for again after a pause.
    async fn position(&self) -> Result<Position, PublishError>;

    /// Publishes events, in this order, and then stores the position of the last one durably.
    ///
    /// # Errors
    /// Not all events are known to be published. [`EventPublisher::position`] then says where to continue, after a pause.
    async fn publish(&self, events: &[LoggedEvent]) -> Result<(), PublishError>;
}

/// Hints that there are new events, so that they are published at once and not after
/// [`Pacing::period`](crate::Pacing::period). Clones hint at the same task. A hint that is lost only costs time.
#[derive(Clone, Debug, Default)]
pub struct EventHint(Arc<Notify>);

impl EventHint {
    /// Wakes the task that publishes.
    pub fn notify(&self) {
        self.0.notify_one();
    }
}

/// The first pause after an error.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

pub(crate) async fn publish_events(
    context: Arc<Context>,
    publisher: Arc<dyn EventPublisher>,
    hint: EventHint,
) {
    let (mut position, mut pause) = (None, FIRST_PAUSE);
    while !context.is_stopping() {
        match publish_page(&context, &*publisher, position).await {
            Ok((last, is_full)) => {
                (position, pause) = (Some(last), FIRST_PAUSE);
                if !is_full {
                    tokio::select! {
                        _ = context.pause(context.pacing.period) => {}
                        () = hint.0.notified() => {}
                    }
                }
            }
            Err(error) => {
                context.observe(&RunnerEvent::PublishFailed(&*error));
                // Events may have been published without their position.
                position = None;
                context.pause(pause).await;
                pause = context.longer(pause);
            }
        }
    }
}

/// Publishes the events behind `position`, or behind that of the publisher. Returns the new position, and whether there may be more.
async fn publish_page(
    context: &Context,
    publisher: &dyn EventPublisher,
    position: Option<Position>,
) -> Result<(Position, bool), PublishError> {
    let position = match position {
        Some(position) => position,
        None => publisher.position().await?,
    };
    let limit = context.pacing.page;
    let events = context.writes.events_after(position, limit).await?;
    let Some(last) = events.last() else {
        return Ok((position, false));
    };
    publisher.publish(&events).await?;
    Ok((last.position, events.len() == limit))
}
