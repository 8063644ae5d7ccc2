//! The adapters for shadows and reports that the settings choose.

use std::path::Path;
use std::sync::Arc;

#[cfg(feature = "mqtt")]
use keywright_adapters::reports::MqttReports;
use keywright_adapters::reports::{HttpReports, PollingReports};
use keywright_adapters::shadow::InMemoryShadow;
#[cfg(feature = "aws")]
use keywright_adapters::shadow::{AwsError, AwsSettings, AwsShadow};
#[cfg(feature = "mqtt")]
use keywright_adapters::shadow::{MqttShadow, shard_names};
use keywright_domain::ports::{DeviceReports, ShadowPort};
#[cfg(feature = "mqtt")]
use keywright_mqtt::Broker;
#[cfg(feature = "mqtt")]
use keywright_shadow::mqtt::ClientLimits;
use keywright_shadow::{Limits, OpenError, ServiceConfig, ShadowName, ShadowService};
use tokio::sync::watch;
use tokio::task::JoinSet;
#[cfg(feature = "mqtt")]
use tokio::time::Instant;

use super::clock::epoch_seconds;
use crate::device_report_endpoint::DeviceReportEndpoint;
#[cfg(feature = "aws")]
use crate::error::UnusableSettings;
#[cfg(feature = "mqtt")]
use crate::settings::Mqtt;
#[cfg(feature = "aws")]
use crate::settings::aws_options::Aws;
use crate::settings::{Settings, ShadowChoice};

/// The file of the shadows in this process, in the data folder.
const SHADOWS: &str = "shadows.sqlite";

/// The timeout of an adapter. It is a little shorter than that of the protocol, so that the adapter's own error is reported.
#[cfg(any(feature = "aws", feature = "mqtt"))]
fn call_timeout(settings: &Settings) -> std::time::Duration {
    settings.protocol.shadow_timeout.mul_f64(0.95)
}

/// Access to the shadows and reports of locks.
pub(super) struct ShadowAccess {
    pub(super) shadow: Arc<dyn ShadowPort>,
    pub(super) reports: Vec<Arc<dyn DeviceReports>>,
    /// How many reports were omitted because too many waited, if that can happen.
    pub(super) omitted_reports: Option<watch::Receiver<u64>>,
    /// Whether each connection that is needed is up.
    pub(super) connected: Vec<watch::Receiver<bool>>,
    /// Set if reports over HTTP are accepted.
    pub(super) device_reports: Option<DeviceReportEndpoint>,
    /// The shadow service, if it is in this process.
    pub(super) service: Option<ShadowService>,
}

/// How many probes in a row may stay without an answer. One answer may get lost.
#[cfg(feature = "mqtt")]
const MAX_UNANSWERED: u32 = 2;

/// The interval of probes while no shadow service answers, and while one answers.
#[cfg(feature = "mqtt")]
const PROBE_UNANSWERED_EVERY: std::time::Duration = std::time::Duration::from_millis(250);
#[cfg(feature = "mqtt")]
const PROBE_ANSWERED_EVERY: std::time::Duration = std::time::Duration::from_secs(10);

/// Opens the durable shadow service of a data folder.
///
/// # Errors
/// Its file cannot be used.
pub(crate) async fn open_shadows(data: &Path) -> Result<ShadowService, OpenError> {
    ShadowService::open(&data.join(SHADOWS), config()).await
}

fn config() -> ServiceConfig {
    ServiceConfig {
        clock: epoch_seconds(),
        limits: Limits::default(),
    }
}

/// Reads the files that the settings name. Makes no connections.
///
/// # Errors
/// A file cannot be used; the text names it.
pub(super) fn check(settings: &Settings) -> anyhow::Result<()> {
    #[cfg(feature = "mqtt")]
    for mqtt in settings.mqtt() {
        Broker::new(mqtt.url.clone(), &mqtt.files)?;
    }
    if let Some(secret) = &settings.reports.http {
        DeviceReportEndpoint::read(secret, HttpReports::new())?;
    }
    Ok(())
}

/// Checks what depends on the environment of this machine: that the region of AWS is known. The AWS SDK may ask the metadata
/// service of the machine for it.
///
/// # Errors
/// It is not known.
pub(crate) async fn check_environment(
    #[cfg_attr(
        not(feature = "aws"),
        expect(unused_variables, reason = "only the AWS SDK reads the environment")
    )]
    settings: &Settings,
) -> anyhow::Result<()> {
    #[cfg(feature = "aws")]
    if let ShadowChoice::Aws(aws) = &settings.shadow {
        let aws = aws_settings(settings, aws);
        let known = AwsShadow::check_region(&aws).await;
        known.map_err(UnusableSettings::new)?;
    }
    Ok(())
}

#[cfg(feature = "aws")]
fn aws_settings(settings: &Settings, aws: &Aws) -> AwsSettings {
    AwsSettings {
        endpoint: aws.endpoint.clone(),
        region: aws.region.clone(),
        shadow: settings.shadow_name.clone(),
        timeout: call_timeout(settings),
    }
}

/// Connects to the shadows, and subscribes to the reports. Adds a task to `tasks` that must run as long as the shadows are used.
///
/// # Errors
/// A file or AWS cannot be used. A broker that cannot be reached is no error: the connection is tried again.
pub(super) async fn connect(
    settings: &Settings,
    #[cfg_attr(
        not(feature = "mqtt"),
        expect(unused_variables, reason = "only shadows on a broker need a task")
    )]
    tasks: &mut JoinSet<()>,
) -> anyhow::Result<ShadowAccess> {
    let mut access = match &settings.shadow {
        ShadowChoice::InProcess { kept } => {
            let service = match kept {
                true => open_shadows(&settings.data).await?,
                false => ShadowService::in_memory(config()),
            };
            let name = ShadowName::Named(settings.shadow_name.clone());
            let shadow = InMemoryShadow::new(service.clone(), name);
            let mut access = ShadowAccess::over(Arc::new(shadow.clone()));
            if settings.reports.in_process {
                access.reports.push(Arc::new(shadow.reports()));
            }
            access.service = Some(service);
            access
        }
        #[cfg(feature = "aws")]
        ShadowChoice::Aws(aws) => {
            let shadow = AwsShadow::connect(aws_settings(settings, aws))
                .await
                .map_err(|error| match error {
                    AwsError::NoRegion => anyhow::Error::from(UnusableSettings::new(error)),
                    error => error.into(),
                });
            ShadowAccess::over(Arc::new(shadow?))
        }
        #[cfg(feature = "mqtt")]
        ShadowChoice::Mqtt(mqtt) => {
            let broker = Broker::new(mqtt.url.clone(), &mqtt.files)?;
            let limits = match mqtt.aws_limits {
                true => ClientLimits::AWS,
                false => ClientLimits::SELF_HOSTED,
            };
            let (id, shards) = (&mqtt.client_id, shards(settings, mqtt));
            let shadow = MqttShadow::start(&broker, id, &shards, limits, call_timeout(settings));
            let shadow = Arc::new(shadow);
            let (tx, answered) = watch::channel(false);
            let mut access = ShadowAccess::over(shadow.clone());
            access.connected = shadow.up();
            access.connected.push(answered);
            tasks.spawn(watch_answers(shadow, tx, mqtt.url.to_string()));
            access
        }
    };
    #[cfg(feature = "mqtt")]
    if let Some(mqtt) = &settings.reports.mqtt {
        let broker = Broker::new(mqtt.url.clone(), &mqtt.files)?;
        let id = format!("{}:reports", mqtt.client_id);
        let reports = MqttReports::start(&broker, &id, &shards(settings, mqtt));
        access.omitted_reports = Some(reports.omitted());
        access.reports.push(Arc::new(reports));
    }
    if let Some(secret) = &settings.reports.http {
        let device_reports = DeviceReportEndpoint::read(secret, HttpReports::new())?;
        access.reports.push(device_reports.reports.clone());
        access.device_reports = Some(device_reports);
    }
    if let Some(every) = settings.reports.poll {
        access.reports.push(Arc::new(PollingReports::new(every)));
    }
    Ok(access)
}

/// Probes whether a shadow service answers on the broker, because a broker accepts connections without one. Each new connection is
/// probed again.
#[cfg(feature = "mqtt")]
async fn watch_answers(shadow: Arc<MqttShadow>, tx: watch::Sender<bool>, broker: String) {
    let is_connected = || shadow.up().iter().all(|up| *up.borrow());
    let (mut is_answered, mut unanswered) = (false, 0);
    loop {
        match shadow.is_answered().await {
            _ if !is_connected() => (is_answered, unanswered) = (false, 0),
            Some(true) => (is_answered, unanswered) = (true, 0),
            Some(false) => unanswered += 1,
            // The connection was too busy for the probe.
            None => {}
        }
        if unanswered >= MAX_UNANSWERED {
            is_answered = false;
        }
        tx.send_replace(is_answered);
        if unanswered == MAX_UNANSWERED {
            tracing::warn!(
                broker,
                "no shadow service answers on this broker: is one running (keywright shadow), and may \
                 this user publish and subscribe to $aws/things/#?"
            );
        }
        let pause = match unanswered == 0 && is_answered {
            true => PROBE_ANSWERED_EVERY,
            false => PROBE_UNANSWERED_EVERY,
        };
        let next_probe = Instant::now() + pause;
        while Instant::now() < next_probe && (!is_answered || is_connected()) {
            tokio::time::sleep(PROBE_UNANSWERED_EVERY).await;
        }
    }
}

impl ShadowAccess {
    fn over(shadow: Arc<dyn ShadowPort>) -> Self {
        Self {
            shadow,
            reports: Vec::new(),
            omitted_reports: None,
            connected: Vec::new(),
            device_reports: None,
            service: None,
        }
    }
}

#[cfg(feature = "mqtt")]
fn shards(settings: &Settings, mqtt: &Mqtt) -> Vec<String> {
    shard_names(&settings.shadow_name, mqtt.shards)
}
