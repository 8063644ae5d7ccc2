//! Publishing of all recorded events.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use keywright_domain::model::{LoggedEvent, Position};
use tokio::sync::watch;

use crate::context::Context;
use crate::event::RunnerEvent;

/// Why events were not published.
pub type PublishError = Box<dyn Error + Send + Sync>;

/// Passes all recorded events on, for instance to a message bus.
///
/// Each event is passed at least once, and the events of each lock are passed in the order of their versions. An event may be passed again
/// after a crash or an error; its lock and version identify it. If several processes publish to one bus, each of them passes all events, and
/// the order of a lock's events is lost.
#[async_trait]
pub trait EventPublisher: Send + Sync {
    /// The position that [`EventPublisher::publish`] has stored last; [`Position::START`] at first. It is asked for at the start and after
    /// each error. A position is valid only for the store that it comes from: after a backup of that store was restored, begin again at a
    /// position that the backup has.
    ///
    /// # Errors
    /// The position is unknown. It is asked for again after a pause.
    async fn position(&self) -> Result<Position, PublishError>;

    /// Publishes events, in this order, and then stores the position of the last one durably. There are 1 to
    /// [`Pacing::page`](crate::Pacing::page) events, and calls do not overlap. It may take as long as it needs; a stop of the runner drops the
    /// future, and the events are passed again after the next start.
    ///
    /// # Errors
    /// Not all events are known to be published. [`EventPublisher::position`] then says where to continue, after a pause.
    async fn publish(&self, events: &[LoggedEvent]) -> Result<(), PublishError>;
}

/// Hints that there are new events, so that they are published at once and not after
/// [`Pacing::period`](crate::Pacing::period). Clones hint at the same tasks. A hint that is lost only costs time.
#[derive(Clone, Debug, Default)]
pub struct EventHint(watch::Sender<()>);

impl EventHint {
    /// Wakes the tasks that publish.
    pub fn notify(&self) {
        self.0.send_replace(());
    }
}

/// The first pause after an error.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

pub(crate) async fn publish_events(
    context: Arc<Context>,
    publisher: Arc<dyn EventPublisher>,
    hint: EventHint,
) {
    let mut hints = hint.0.subscribe();
    let (mut position, mut pause) = (None, FIRST_PAUSE);
    while !context.is_stopping() {
        hints.mark_unchanged();
        let published = tokio::select! {
            () = context.stopping() => return,
            published = publish_page(&context, &*publisher, position) => published,
        };
        match published {
            Ok((last, is_full)) => {
                (position, pause) = (Some(last), FIRST_PAUSE);
                if !is_full {
                    tokio::select! {
                        _ = context.pause(context.pacing.period) => {}
                        // `hint` is a sender, so the channel is open.
                        _ = hints.changed() => {}
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

/// Publishes the events after `position`, or after that of the publisher. Returns the new position, and whether there may be more events.
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
