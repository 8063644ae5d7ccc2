//! Follows the feed of a running server, and connects again when the connection is lost.

use std::time::Duration;

use anyhow::bail;
use hyper::Method;
use hyper::header::ACCEPT;
use keywright_client::{EventStream, StreamAnswer};
use serde_json::Value;

use super::api_list::ApiList;
use super::server_access::{Refused, ServerAccess, body_of};

/// The pause before a stream that has ended is opened again.
const PAUSE: Duration = Duration::from_secs(2);

pub(super) struct EventFollower<'a> {
    server: &'a ServerAccess,
    events: ApiList,
    after: String,
    stream: EventStream,
}

impl<'a> EventFollower<'a> {
    /// Opens the stream of the events after `after`.
    ///
    /// # Errors
    /// The server cannot be reached, or refuses the request.
    pub(super) async fn open(
        server: &'a ServerAccess,
        events: ApiList,
        after: String,
    ) -> anyhow::Result<Self> {
        let stream = open(server, &events.page_path(Some(&after))).await?;
        Ok(Self {
            server,
            events,
            after,
            stream,
        })
    }

    /// Waits for the next event.
    ///
    /// # Errors
    /// The server refuses the request. A lost connection is no error.
    pub(super) async fn next(&mut self) -> anyhow::Result<Value> {
        loop {
            let ended = match self.stream.next().await {
                Ok(Some(event)) => return Ok(serde_json::from_str(&event.data)?),
                Ok(None) => "the server has ended the stream".to_owned(),
                Err(error) => error.to_string(),
            };
            if let Some(last) = self.stream.last_id() {
                last.clone_into(&mut self.after);
            }
            eprintln!("{ended}; connecting again");
            self.connect_again().await?;
        }
    }

    async fn connect_again(&mut self) -> anyhow::Result<()> {
        let path = self.events.page_path(Some(&self.after));
        loop {
            tokio::time::sleep(PAUSE).await;
            match open(self.server, &path).await {
                Ok(stream) => {
                    self.stream = stream;
                    return Ok(());
                }
                Err(error) if error.is::<Refused>() => return Err(error),
                Err(error) => eprintln!("{error:#}"),
            }
        }
    }
}

async fn open(server: &ServerAccess, path: &str) -> anyhow::Result<EventStream> {
    let connection = server.connect().await?;
    let request = server.request(Method::GET, path)?;
    let request = request.header(ACCEPT, "text/event-stream");
    match connection.stream(request.body(<_>::default())?).await? {
        StreamAnswer::Stream(stream) => Ok(stream),
        StreamAnswer::Other(answer) => {
            body_of(&answer)?;
            bail!("the server did not answer with a stream of events")
        }
    }
}
