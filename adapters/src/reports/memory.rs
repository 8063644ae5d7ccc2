//! Reports from the shadow service in this process.

use std::sync::Arc;

use async_trait::async_trait;
use keywright_domain::model::{DeviceReport, ShadowVersion, ThingName};
use keywright_domain::ports::{DeviceReports, ReportStreamItem, ReportsClosed};
use keywright_shadow::{Announcement, MessageKind, ShadowName, ShadowService};
use tokio::sync::Mutex;
use tokio::sync::broadcast::{Receiver, error::RecvError};

use crate::shadow::document;

/// The accepted updates of one named shadow that carry results. There is nothing to acknowledge: what
/// is missed stands on the shadow, and a subscriber that lags is told to read there.
pub struct InMemoryReports {
    announcements: Mutex<Receiver<Arc<Announcement>>>,
    name: ShadowName,
}

impl InMemoryReports {
    /// Reports from now on.
    pub fn new(service: &ShadowService, name: ShadowName) -> Self {
        Self {
            announcements: Mutex::new(service.subscribe_all()),
            name,
        }
    }

    fn report(&self, told: &Announcement) -> Option<DeviceReport> {
        if told.shadow != self.name || !told.has_reported() {
            return None;
        }
        let accepted = told.message(MessageKind::UpdateAccepted)?;
        let body = accepted.body();
        let results = document::results(&body);
        let thing = ThingName::new(&told.thing).ok()?;
        let shadow_version = Some(ShadowVersion(told.version));
        (!results.is_empty()).then_some(DeviceReport {
            thing,
            shadow_version,
            results,
            entries: document::entries(&body),
        })
    }
}

#[async_trait]
impl DeviceReports for InMemoryReports {
    async fn next(&self) -> Result<ReportStreamItem, ReportsClosed> {
        let mut announcements = self.announcements.lock().await;
        loop {
            match announcements.recv().await {
                Ok(told) => {
                    if let Some(report) = self.report(&told) {
                        return Ok(ReportStreamItem::Report(report, Box::new(|| {})));
                    }
                }
                Err(RecvError::Lagged(_)) => return Ok(ReportStreamItem::Resumed),
                Err(RecvError::Closed) => return Err(ReportsClosed),
            }
        }
    }
}
