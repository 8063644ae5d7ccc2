//! Reports from an in-process shadow service.

use std::sync::Arc;

use async_trait::async_trait;
use keywright_domain::model::{DeviceReport, ShadowVersion, ThingName};
use keywright_domain::ports::{DeviceReports, ReportStreamItem, ReportsClosed};
use keywright_shadow::{Announcement, MessageKind, ShadowName, ShadowService};
use tokio::sync::Mutex;
use tokio::sync::broadcast::{Receiver, error::RecvError};

use crate::shadow::document_json;

/// The accepted updates of one named shadow that have results. Acknowledgements do nothing: results stay on the shadow, and a
/// stream that lags yields [`ReportStreamItem::Resumed`].
pub struct InMemoryReports {
    announcements: Mutex<Receiver<Arc<Announcement>>>,
    name: ShadowName,
}

impl InMemoryReports {
    /// The reports on the shadow `name` of each thing, from now on.
    pub fn new(service: &ShadowService, name: ShadowName) -> Self {
        Self {
            announcements: Mutex::new(service.subscribe_all()),
            name,
        }
    }

    fn report(&self, announcement: &Announcement) -> Option<DeviceReport> {
        if announcement.shadow != self.name || !announcement.has_reported() {
            return None;
        }
        let accepted = announcement.message(MessageKind::UpdateAccepted)?;
        let body = accepted.body();
        let results = document_json::results(&body);
        let thing = ThingName::new(&announcement.thing).ok()?;
        let shadow_version = Some(ShadowVersion(announcement.version));
        (!results.is_empty()).then_some(DeviceReport {
            thing,
            shadow_version,
            results,
            entries: document_json::entries(&body),
        })
    }
}

#[async_trait]
impl DeviceReports for InMemoryReports {
    async fn next(&self) -> Result<ReportStreamItem, ReportsClosed> {
        let mut announcements = self.announcements.lock().await;
        loop {
            match announcements.recv().await {
                Ok(announcement) => {
                    if let Some(report) = self.report(&announcement) {
                        return Ok(ReportStreamItem::Report(report, Box::new(|| {})));
                    }
                }
                Err(RecvError::Lagged(_)) => return Ok(ReportStreamItem::Resumed),
                Err(RecvError::Closed) => return Err(ReportsClosed),
            }
        }
    }
}
