//! Reports from the shadow service in this process.

use std::sync::Arc;

use async_trait::async_trait;
use keywright_domain::ports::{DeviceReport, DeviceReports, ReportStreamItem, ReportsClosed};
use keywright_domain::values::{ShadowVersion, ThingName};
use keywright_shadow::{Message, MessageKind, ShadowName, ShadowService};
use tokio::sync::Mutex;
use tokio::sync::broadcast::{Receiver, error::RecvError};

use crate::shadow::document;

/// The accepted updates of one named shadow that carry results. There is nothing to acknowledge: what
/// is missed stands on the shadow, and a subscriber that lags is told to read there.
pub struct InMemoryReports {
    messages: Mutex<Receiver<Arc<Message>>>,
    name: ShadowName,
}

impl InMemoryReports {
    /// Reports from now on.
    pub fn new(service: &ShadowService, name: ShadowName) -> Self {
        Self {
            messages: Mutex::new(service.subscribe_all()),
            name,
        }
    }

    fn report(&self, message: &Message) -> Option<DeviceReport> {
        let accepted = message.kind == MessageKind::UpdateAccepted;
        if !accepted || message.shadow != self.name || !message.has_reported() {
            return None;
        }
        let results = document::results(&message.body());
        let thing = ThingName::new(&message.thing).ok()?;
        let shadow_version = Some(ShadowVersion(message.version));
        (!results.is_empty()).then_some(DeviceReport {
            thing,
            shadow_version,
            results,
        })
    }
}

#[async_trait]
impl DeviceReports for InMemoryReports {
    async fn next(&self) -> Result<ReportStreamItem, ReportsClosed> {
        let mut messages = self.messages.lock().await;
        loop {
            match messages.recv().await {
                Ok(message) => {
                    if let Some(report) = self.report(&message) {
                        return Ok(ReportStreamItem::Report(report, Box::new(|| {})));
                    }
                }
                Err(RecvError::Lagged(_)) => return Ok(ReportStreamItem::Resumed),
                Err(RecvError::Closed) => return Err(ReportsClosed),
            }
        }
    }
}
