//! A stream of server-sent events (HTML standard, "Server-sent events"): each event of the feed when it is recorded.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use keywright_domain::model::{Position, Principal};
use keywright_domain::ports::{AuthError, Credentials};
use keywright_domain::{FeedEvent, FeedFilter};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tracing::{Instrument, Span, info, warn};

use super::cursor;
use super::event_stream_body::EventStreamBody;
use super::response::to_json;
use super::response_body::FeedItem;
use crate::app::App;
use crate::connection::ConnectionState;
use crate::recent_events::{BATCH, Follower};
use crate::request_admission::StreamPermit;

/// How many frames wait for a client. A client that does not read them in time is disconnected. It resumes after the last frame that it
/// read.
const QUEUED_FRAMES: usize = 64;

/// How long a client may take to make room for a frame.
const SEND_TIMEOUT: Duration = Duration::from_secs(3);

/// How often the credentials of an open stream are verified again.
const VERIFY_EVERY: Duration = Duration::from_secs(2);

/// How often a frame without an event is sent while there are no events, so that proxies keep the connection open.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// How long clients wait before they connect again: after a failure, and when the service stops.
const RETRY: &str = "retry: 2000";

/// A reader of the feed.
pub(super) struct Reader {
    pub(super) principal: Principal,
    pub(super) credentials: Credentials,
    pub(super) filter: FeedFilter,
    /// The events after this position are sent.
    pub(super) after: Position,
    /// Held as long as the stream is open.
    pub(super) _permit: StreamPermit,
}

/// Starts a stream. It ends when the client disconnects or does not read, when its credentials are no longer valid, when the store
/// fails while the stream is behind, and when the service stops.
pub(super) fn start(
    app: &Arc<App>,
    connection: &Arc<ConnectionState>,
    reader: Reader,
) -> EventStreamBody {
    let (sender, frames) = mpsc::channel(QUEUED_FRAMES);
    let open = app.metrics.open_stream();
    let stream = EventStream {
        app: app.clone(),
        connection: connection.clone(),
        reader,
        sender,
        verify_at: Instant::now() + VERIFY_EVERY,
        last_sent: Instant::now(),
    };
    let run = async move {
        let why = stream.run().await;
        drop(open);
        info!(why, "a stream of events has ended");
    };
    tokio::spawn(run.instrument(Span::current()));
    EventStreamBody::new(frames, connection.clone())
}

/// The bytes of an event on a stream.
pub(crate) fn frame(event: &FeedEvent) -> Bytes {
    let item = FeedItem::of(event);
    let mut frame = format!("id: {}\ndata: ", item.cursor()).into_bytes();
    // The JSON has no line breaks.
    frame.extend(to_json(&item));
    frame.extend(b"\n\n");
    frame.into()
}

struct EventStream {
    app: Arc<App>,
    connection: Arc<ConnectionState>,
    reader: Reader,
    sender: mpsc::Sender<Bytes>,
    verify_at: Instant,
    last_sent: Instant,
}

/// Why a stream ends, for the log.
type End = &'static str;

impl EventStream {
    async fn run(mut self) -> End {
        let (app, sender) = (self.app.clone(), self.sender.clone());
        tokio::select! {
            Err(end) = self.send_all() => end,
            () = sender.closed() => "the client has disconnected",
            () = app.work.draining.cancelled() => {
                // There may be no room for it.
                let _ = sender.try_send(format!("{RETRY}\n\n").into());
                "the service stops"
            }
        }
    }

    async fn send_all(&mut self) -> Result<Infallible, End> {
        let mut follower = self.app.recent_events.follow();
        // Clients know from the beginning where to continue.
        self.send_without_event(RETRY).await?;
        let connection = self.connection.clone();
        let mut is_half_closed = false;
        loop {
            if !self.send_new(&mut follower).await? {
                tokio::select! {
                    _ = tokio::time::timeout(VERIFY_EVERY, follower.added()) => {}
                    // If the client is gone and has not only closed its sending side, its answer to a frame ends the connection.
                    () = connection.half_closed(), if !is_half_closed => {
                        is_half_closed = true;
                        self.send_without_event(":").await?;
                    }
                }
            }
            if self.last_sent.elapsed() >= KEEP_ALIVE {
                self.send_without_event(":").await?;
            }
            self.verify_in_time().await?;
        }
    }

    /// Sends some events after the last one. Returns whether there may be more.
    async fn send_new(&mut self, follower: &mut Follower) -> Result<bool, End> {
        let (app, after) = (self.app.clone(), self.reader.after);
        if let Some(recent) = follower.events_after(after) {
            for (recent, lock) in &recent {
                let (principal, filter) = (&self.reader.principal, &self.reader.filter);
                if app.writes.shows(&recent.event, lock, principal, filter) {
                    self.send(recent.frame.clone()).await?;
                }
                self.reader.after = recent.position;
            }
            return Ok(recent.len() == BATCH);
        }
        let recent = follower.recent();
        let permit = recent.catch_up().await;
        let (principal, filter) = (&self.reader.principal, &self.reader.filter);
        let page = app.writes.read_feed(principal, filter, after, BATCH);
        let page = page.await.map_err(|error| {
            warn!(%error, "the feed cannot be read");
            "the store has failed"
        })?;
        drop(permit);
        for event in &page.events {
            self.send(frame(event)).await?;
            self.reader.after = event.logged.position;
        }
        self.reader.after = page.next;
        Ok(!page.is_end)
    }

    /// Sends a frame without an event, from which the client knows the current cursor.
    async fn send_without_event(&mut self, line: &str) -> Result<(), End> {
        let cursor = cursor::text(self.reader.after);
        self.send(format!("{line}\nid: {cursor}\n\n").into()).await
    }

    async fn send(&mut self, frame: Bytes) -> Result<(), End> {
        self.verify_in_time().await?;
        let sent = tokio::time::timeout(SEND_TIMEOUT, self.sender.send(frame)).await;
        let sent = sent.map_err(|_| "the client does not read")?;
        sent.map_err(|_| "the client has disconnected")?;
        self.last_sent = Instant::now();
        Ok(())
    }

    async fn verify_in_time(&mut self) -> Result<(), End> {
        match Instant::now() >= self.verify_at {
            true => self.verify().await,
            false => Ok(()),
        }
    }

    async fn verify(&mut self) -> Result<(), End> {
        match self.app.auth.authenticate(&self.reader.credentials).await {
            Ok(principal) => self.reader.principal = principal,
            Err(AuthError::Refused(_)) => return Err("its credentials are no longer valid"),
            // They were valid a moment ago.
            Err(AuthError::Unavailable(_)) => {}
        }
        self.verify_at = Instant::now() + VERIFY_EVERY;
        Ok(())
    }
}
