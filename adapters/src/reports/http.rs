//! Reports that somebody brings over HTTP: an AWS IoT rule, say, that posts each `update/documents` message.

use async_trait::async_trait;
use keywright_domain::model::{DeviceReport, ThingName};
use keywright_domain::ports::{Acknowledge, DeviceReports, ReportStreamItem, ReportsClosed};
use serde_json::Value;
use tokio::sync::{Mutex, mpsc, oneshot};

use crate::shadow::document;

/// Reports that may wait to be settled; whoever brings another one has to come again.
const WAITING: usize = 256;

/// A report that was not settled. Whoever brings it should do so again, but for one that is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeliveryError {
    /// It is none.
    #[error("{0}")]
    Malformed(&'static str),
    /// Too many are waiting.
    #[error("too many reports are waiting")]
    Busy,
    /// Nobody settles reports any more, or not this one.
    #[error("the report was not settled")]
    NotSettled,
}

type Delivery = (DeviceReport, oneshot::Sender<()>);

/// A stream of what is delivered.
pub struct HttpReports {
    deliver: mpsc::Sender<Delivery>,
    deliveries: Mutex<mpsc::Receiver<Delivery>>,
}

impl Default for HttpReports {
    fn default() -> Self {
        Self::new()
    }
}

impl HttpReports {
    /// Nothing is delivered yet.
    pub fn new() -> Self {
        let (deliver, deliveries) = mpsc::channel(WAITING);
        Self {
            deliver,
            deliveries: Mutex::new(deliveries),
        }
    }

    /// Takes in the body of one delivery, an `update/documents` message with its thing's name in `thing`, and answers
    /// when what it reports is settled durably.
    ///
    /// # Errors
    /// See [`DeliveryError`].
    pub async fn deliver(&self, body: &[u8]) -> Result<(), DeliveryError> {
        let report = read(body)?;
        if report.results.is_empty() {
            return Ok(());
        }
        let (settle, settled) = oneshot::channel();
        self.deliver
            .try_send((report, settle))
            .map_err(|e| match e {
                mpsc::error::TrySendError::Full(_) => DeliveryError::Busy,
                mpsc::error::TrySendError::Closed(_) => DeliveryError::NotSettled,
            })?;
        settled.await.map_err(|_| DeliveryError::NotSettled)
    }
}

fn read(body: &[u8]) -> Result<DeviceReport, DeliveryError> {
    let malformed = DeliveryError::Malformed;
    let body: Value =
        serde_json::from_slice(body).map_err(|_| malformed("the body must be JSON"))?;
    let thing = body.get("thing").and_then(Value::as_str);
    let thing = thing.and_then(|name| ThingName::new(name).ok());
    let thing = thing.ok_or(malformed("the body must name its thing in `thing`"))?;
    let news = document::news(&body);
    let news = news.ok_or(malformed(
        "the body must be an update/documents message: previous, and current with its version",
    ))?;
    Ok(DeviceReport {
        thing,
        shadow_version: Some(news.version),
        results: news.results,
        entries: news.entries,
    })
}

#[async_trait]
impl DeviceReports for HttpReports {
    async fn next(&self) -> Result<ReportStreamItem, ReportsClosed> {
        // The stream holds a sender itself, so that it never ends.
        let delivery = self.deliveries.lock().await.recv().await;
        let (report, settle) = delivery.ok_or(ReportsClosed)?;
        // Whoever brought it may have hung up.
        let acknowledge: Acknowledge = Box::new(|| {
            let _ = settle.send(());
        });
        Ok(ReportStreamItem::Report(report, acknowledge))
    }
}
