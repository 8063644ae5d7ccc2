//! Reports that are posted over HTTP, for instance by an AWS IoT rule that posts each `update/documents` message.

use async_trait::async_trait;
use keywright_domain::model::{DeviceReport, ThingName};
use keywright_domain::ports::{Acknowledge, DeviceReports, ReportStreamItem, ReportsClosed};
use serde_json::Value;
use tokio::sync::{Mutex, mpsc, oneshot};

use crate::shadow::document_json;

/// The maximum number of reports that wait to be settled. Further ones are refused, and the sender has to retry.
const MAX_WAITING: usize = 256;

/// Why a delivered report was not settled. The sender should retry, except after [`DeliveryError::Malformed`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeliveryError {
    /// The body is not a report.
    #[error("{0}")]
    Malformed(&'static str),
    /// Too many reports are waiting.
    #[error("too many reports are waiting")]
    Busy,
    /// The report was dropped before it was settled.
    #[error("the report was not settled")]
    NotSettled,
}

type Delivery = (DeviceReport, oneshot::Sender<()>);

/// A stream of the delivered reports.
pub struct HttpReports {
    tx: mpsc::Sender<Delivery>,
    deliveries: Mutex<mpsc::Receiver<Delivery>>,
}

impl Default for HttpReports {
    fn default() -> Self {
        Self::new()
    }
}

impl HttpReports {
    /// A stream without reports.
    pub fn new() -> Self {
        let (tx, deliveries) = mpsc::channel(MAX_WAITING);
        Self {
            tx,
            deliveries: Mutex::new(deliveries),
        }
    }

    /// Adds a report to the stream and waits until it is settled durably. `body` is an `update/documents` message with the name
    /// of the thing in the member `thing`.
    ///
    /// # Errors
    /// See [`DeliveryError`].
    pub async fn deliver(&self, body: &[u8]) -> Result<(), DeliveryError> {
        let report = read(body)?;
        if report.results.is_empty() {
            return Ok(());
        }
        let (tx, settled) = oneshot::channel();
        self.tx.try_send((report, tx)).map_err(|e| match e {
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
    let current = document_json::with_new_results(&body);
    let current = current.ok_or(malformed(
        "the body must be an update/documents message: previous, and current with its version",
    ))?;
    Ok(DeviceReport {
        thing,
        shadow_version: Some(current.version),
        results: current.results,
        entries: current.entries,
    })
}

#[async_trait]
impl DeviceReports for HttpReports {
    async fn next(&self) -> Result<ReportStreamItem, ReportsClosed> {
        // The stream has a sender itself, so it never ends.
        let delivery = self.deliveries.lock().await.recv().await;
        let (report, tx) = delivery.ok_or(ReportsClosed)?;
        let acknowledge: Acknowledge = Box::new(|| {
            // `send` fails only if the caller of `deliver` no longer waits.
            let _ = tx.send(());
        });
        Ok(ReportStreamItem::Report(report, acknowledge))
    }
}
