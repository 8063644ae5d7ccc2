//! Reports over MQTT: the accepted updates of all shadows.
//!
//! Sessions are not persistent, so the broker queues nothing for a disconnected server. After each connect the shadows of open
//! writes are read, so a queue on the broker would add nothing, and the queue of a server that never returns under its client
//! id would grow.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use keywright_domain::model::{DeviceReport, ThingName};
use keywright_domain::ports::{Acknowledge, DeviceReports, ReportStreamItem, ReportsClosed};
use keywright_mqtt::{Broker, Handler, Message, Session, SessionOptions};
use keywright_shadow::ShadowName;
use keywright_shadow::mqtt::Topic;
use serde_json::Value;
use tokio::sync::{Mutex, Notify, mpsc, watch};
use tracing::warn;

use crate::shadow::document_json;

/// The maximum number of reports that wait to be settled. Further ones are dropped, and shadows are read instead.
const MAX_WAITING: usize = 4096;

/// The shortest time between two warnings about omitted reports. Reports are omitted under overload, which warnings must not add to.
const WARNING_INTERVAL: Duration = Duration::from_secs(10);

/// The reports on some named shadows, each over its own connection.
pub struct MqttReports {
    reports: Mutex<mpsc::Receiver<DeviceReport>>,
    resumed: Arc<Notify>,
    omitted: watch::Receiver<u64>,
    _sessions: Vec<Session>,
}

impl MqttReports {
    /// Subscribes to the accepted updates. `client_id` must be unique on the broker. With several shadows, the client ids of
    /// the second and further connections have the number of the shadow as a suffix.
    pub fn start(broker: &Broker, client_id: &str, shadows: &[String]) -> Self {
        let (tx, reports) = mpsc::channel(MAX_WAITING);
        let resumed = Arc::new(Notify::new());
        let (count_omitted, omitted) = watch::channel(0);
        // It ends with the sessions, which hold the other end of the channel.
        tokio::spawn(warn_of_omitted(omitted.clone(), |count| {
            warn!(
                count,
                "reports of locks were left out because too many wait to be settled; the shadows of open writes are read instead"
            );
        }));
        let start = |(n, name): (usize, &String)| {
            let shadow = ShadowName::Named(name.clone());
            let options = SessionOptions {
                client_id: match n {
                    0 => client_id.to_owned(),
                    n => format!("{client_id}:{n}"),
                },
                filters: vec![Topic::text("+", &shadow, "update/accepted")],
                persistent_session: false,
                manual_acks: false,
            };
            let handler = ReportForwarder {
                reports: tx.clone(),
                resumed: resumed.clone(),
                omitted: count_omitted.clone(),
            };
            Session::start(broker.clone(), options, handler)
        };
        let sessions = shadows.iter().enumerate().map(start).collect();
        Self {
            reports: Mutex::new(reports),
            resumed,
            omitted,
            _sessions: sessions,
        }
    }

    /// The number of reports that were omitted so far because too many others waited. The shadows of open writes are read
    /// instead.
    pub fn omitted(&self) -> watch::Receiver<u64> {
        self.omitted.clone()
    }
}

/// Calls `warn` with the number of reports that were omitted since the call before, at most once in [`WARNING_INTERVAL`], until
/// nothing counts any more.
async fn warn_of_omitted(mut omitted: watch::Receiver<u64>, mut warn: impl FnMut(u64)) {
    let mut warned_of = 0;
    while omitted.changed().await.is_ok() {
        let count = *omitted.borrow_and_update();
        warn(count - warned_of);
        warned_of = count;
        tokio::time::sleep(WARNING_INTERVAL).await;
    }
}

/// Forwards the reports among the messages.
struct ReportForwarder {
    reports: mpsc::Sender<DeviceReport>,
    resumed: Arc<Notify>,
    omitted: watch::Sender<u64>,
}

impl Handler for ReportForwarder {
    fn connected(&mut self, _: u64) {
        self.resumed.notify_one();
    }

    fn disconnected(&mut self, _: u64, _: &str) {}

    fn message_received(&mut self, message: Message) {
        if !message.retained()
            && let Some(report) = report(&message)
            && self.reports.try_send(report).is_err()
        {
            self.omitted.send_modify(|count| *count += 1);
            self.resumed.notify_one();
        }
    }
}

/// The report of an accepted update; `None`: it has no results.
fn report(message: &Message) -> Option<DeviceReport> {
    let topic = Topic::parse(message.topic())?;
    let body: Value = serde_json::from_slice(message.payload()).ok()?;
    let results = document_json::results(&body);
    if results.is_empty() {
        return None;
    }
    Some(DeviceReport {
        thing: ThingName::new(topic.thing).ok()?,
        shadow_version: document_json::version(&body),
        results,
        entries: document_json::entries(&body),
    })
}

#[async_trait]
impl DeviceReports for MqttReports {
    async fn next(&self) -> Result<ReportStreamItem, ReportsClosed> {
        let mut reports = self.reports.lock().await;
        tokio::select! {
            biased;
            () = self.resumed.notified() => Ok(ReportStreamItem::Resumed),
            report = reports.recv() => {
                let report = report.ok_or(ReportsClosed)?;
                // The broker no longer has the report. If it is not settled, it is found on the shadow.
                let acknowledge: Acknowledge = Box::new(|| ());
                Ok(ReportStreamItem::Report(report, acknowledge))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_burst_of_omitted_reports_makes_one_warning_at_once_and_one_with_the_rest() {
        let (count_omitted, omitted) = watch::channel(0);
        let (start, warnings) = (Instant::now(), Arc::new(Mutex::new(Vec::new())));
        let seen = warnings.clone();
        let warning = tokio::spawn(warn_of_omitted(omitted, move |count| {
            let second = start.elapsed().as_secs();
            seen.lock().expect("no panic").push((second, count));
        }));
        for pause in [0, 1, 1, 1, 30] {
            tokio::time::sleep(Duration::from_secs(pause)).await;
            for _ in 0..100 {
                count_omitted.send_modify(|count| *count += 1);
            }
        }
        drop(count_omitted);
        warning.await.expect("it ends with the count");
        let warnings = warnings.lock().expect("no panic").clone();
        assert_eq!(warnings, [(0, 100), (10, 300), (33, 100)]);
    }
}
