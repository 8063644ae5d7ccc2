//! The stream that keeps the overview up to date.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;

use super::overview;
use super::page_error::PageError;
use crate::app::App;
use crate::connection::ConnectionState;
use crate::http::api_error::ApiError;
use crate::http::event_stream_body::EventStreamBody;
use crate::http::feed_handler;
use crate::http::response::HttpResponse;

/// How often the overview is sent.
const PERIOD: Duration = Duration::from_secs(2);

/// Server-sent events with the overview, until the browser goes away, the session ends or the service stops.
pub(super) fn stream(
    app: &Arc<App>,
    connection: &Arc<ConnectionState>,
    cookie: &str,
) -> Result<HttpResponse, PageError> {
    let admin = app.admin.as_ref().ok_or(PageError::NotFound)?;
    let permit = admin.live.clone().try_acquire_owned();
    let permit = permit.map_err(|_| ApiError::TooManyStreams)?;
    // A browser that does not read gets the next overview when it does.
    let (sender, frames) = mpsc::channel(1);
    let (app, cookie) = (app.clone(), cookie.to_owned());
    let body = EventStreamBody::new(frames, connection.clone());
    tokio::spawn(async move {
        let _permit = permit;
        while let Some(frame) = frame(&app, &cookie).await {
            if sender.send(frame).await.is_err() {
                return;
            }
            tokio::select! {
                () = tokio::time::sleep(PERIOD) => {}
                () = sender.closed() => return,
                () = app.work.draining.cancelled() => return,
            }
        }
    });
    Ok(feed_handler::stream(body))
}

/// `None`: the session has ended, or the operator was removed. The stream itself does not keep the session alive.
async fn frame(app: &App, cookie: &str) -> Option<Bytes> {
    let admin = app.admin.as_ref()?;
    let session = admin.sessions.peek(cookie, app.timer.tick())?;
    let (operator, credential) = (&session.operator, session.credential);
    let is_current = admin.is_current(operator, credential, app.clock.now());
    if !is_current.await {
        return None;
    }
    let html = overview::figures(app, admin).into_string();
    let data = serde_json::to_string(&html).unwrap_or_default();
    Some(format!("data: {data}\n\n").into())
}
