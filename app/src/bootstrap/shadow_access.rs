//! How locks are reached: where their shadows are, and how their reports come.

use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;

#[cfg(feature = "mqtt")]
use keywright_adapters::reports::MqttReports;
use keywright_adapters::reports::{HttpReports, PollingReports};
use keywright_adapters::shadow::InMemoryShadow;
#[cfg(feature = "aws")]
use keywright_adapters::shadow::{AwsError, AwsSettings, AwsShadow};
#[cfg(feature = "mqtt")]
use keywright_adapters::shadow::{MqttShadow, shard_names};
use keywright_adapters::time::SystemClock;
use keywright_domain::ports::{Clock, DeviceReports, ShadowPort};
#[cfg(feature = "mqtt")]
use keywright_mqtt::Broker;
#[cfg(feature = "mqtt")]
use keywright_shadow::mqtt::ClientLimits;
use keywright_shadow::{Limits, OpenError, ServiceConfig, ShadowName, ShadowService};
use tokio::sync::watch;
#[cfg(feature = "mqtt")]
use tokio::time::Instant;

use super::Error;
use crate::app::Ingest;
#[cfg(feature = "aws")]
use crate::settings::Aws;
#[cfg(feature = "mqtt")]
use crate::settings::{Mqtt, Settings, ShadowChoice, UnusableSettings};

/// The file of shadows that are in this process.
const SHADOWS: &str = "shadows.sqlite";

/// An adapter gives up a little before the protocol does, so that it is heard why.
#[cfg(any(feature = "aws", feature = "mqtt"))]
fn call_timeout(settings: &Settings) -> std::time::Duration {
    settings.protocol.shadow_timeout.mul_f64(0.95)
}

/// What the settings choose.
pub(super) struct ShadowAccess {
    pub(super) shadow: Arc<dyn ShadowPort>,
    pub(super) reports: Vec<Arc<dyn DeviceReports>>,
    /// How many reports were omitted because too many waited, where that can happen.
    pub(super) omitted_reports: Option<watch::Receiver<u64>>,
    /// Whether each connection that is needed is there.
    pub(super) connected: Vec<watch::Receiver<bool>>,
    /// Where reports over HTTP go, if they are taken.
    pub(super) ingest: Option<Ingest>,
    /// The shadows, where they are in this process.
    pub(super) service: Option<ShadowService>,
    /// What watches over it, for as long as the program runs.
    pub(super) watching: Option<Watching>,
}

pub(crate) type Watching = Pin<Box<dyn Future<Output = ()> + Send>>;

/// How many questions may stay without an answer.
#[cfg(feature = "mqtt")]
const MAX_UNANSWERED: u32 = 2;

/// How often it is looked whether shadows are answered for: while nobody does, and while somebody did.
#[cfg(feature = "mqtt")]
const ASK_AGAIN: std::time::Duration = std::time::Duration::from_millis(250);
#[cfg(feature = "mqtt")]
const LOOK_AGAIN: std::time::Duration = std::time::Duration::from_secs(10);

/// The time in epoch seconds.
pub(crate) fn seconds() -> Arc<dyn Fn() -> u64 + Send + Sync> {
    Arc::new(|| SystemClock.now().as_secs())
}

/// The durable shadows of a folder.
///
/// # Errors
/// Their file cannot be used.
pub(crate) async fn open_shadows(data: &Path) -> Result<ShadowService, OpenError> {
    ShadowService::open(&data.join(SHADOWS), config()).await
}

fn config() -> ServiceConfig {
    ServiceConfig {
        clock: seconds(),
        limits: Limits::default(),
    }
}

/// Reads the files that the choice names, without using them.
///
/// # Errors
/// One cannot be used; the text names it.
pub(super) fn check(settings: &Settings) -> Result<(), Error> {
    #[cfg(feature = "mqtt")]
    for mqtt in settings.mqtt() {
        Broker::new(mqtt.url.clone(), &mqtt.files)?;
    }
    if let Some(secret) = &settings.reports.http {
        Ingest::read(secret, HttpReports::new())?;
    }
    Ok(())
}

/// Checks what only the environment says: the region of AWS, for which the machine's metadata service may be asked.
///
/// # Errors
/// No region is known.
pub(super) async fn check_environment(settings: &Settings) -> Result<(), UnusableSettings> {
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

/// # Errors
/// A file or AWS cannot be used. A broker that cannot be reached is waited for.
pub(super) async fn connect(settings: &Settings) -> Result<ShadowAccess, Error> {
    let mut path = match &settings.shadow {
        ShadowChoice::InProcess { kept } => {
            let service = match kept {
                true => open_shadows(&settings.data).await?,
                false => ShadowService::in_memory(config()),
            };
            let name = ShadowName::Named(settings.shadow_name.clone());
            let shadow = InMemoryShadow::new(service.clone(), name);
            let mut path = ShadowAccess::over(Arc::new(shadow.clone()));
            if settings.reports.in_process {
                path.reports.push(Arc::new(shadow.reports()));
            }
            path.service = Some(service);
            path
        }
        #[cfg(feature = "aws")]
        ShadowChoice::Aws(aws) => {
            let shadow = AwsShadow::connect(aws_settings(settings, aws))
                .await
                .map_err(|error| match error {
                    AwsError::NoRegion => Error::from(UnusableSettings::new(error)),
                    error => error.into(),
                });
            ShadowAccess::over(Arc::new(shadow?))
        }
        #[cfg(feature = "mqtt")]
        ShadowChoice::Mqtt(mqtt) => {
            let broker = Broker::new(mqtt.url.clone(), &mqtt.files)?;
            let limits = if mqtt.aws_limits {
                ClientLimits::AWS
            } else {
                ClientLimits::SELF_HOSTED
            };
            let (id, shards) = (&mqtt.client_id, shards(settings, mqtt));
            let shadow = MqttShadow::start(&broker, id, &shards, limits, call_timeout(settings));
            let shadow = Arc::new(shadow);
            let (tell, answered) = watch::channel(false);
            let mut path = ShadowAccess::over(shadow.clone());
            path.connected = shadow.up();
            path.connected.push(answered);
            path.watching = Some(Box::pin(watch_answers(shadow, tell, mqtt.url.to_string())));
            path
        }
    };
    #[cfg(feature = "mqtt")]
    if let Some(mqtt) = &settings.reports.mqtt {
        let broker = Broker::new(mqtt.url.clone(), &mqtt.files)?;
        let id = format!("{}:reports", mqtt.client_id);
        let reports = MqttReports::start(&broker, &id, &shards(settings, mqtt));
        path.omitted_reports = Some(reports.omitted());
        path.reports.push(Arc::new(reports));
    }
    if let Some(secret) = &settings.reports.http {
        let ingest = Ingest::read(secret, HttpReports::new())?;
        path.reports.push(ingest.reports.clone());
        path.ingest = Some(ingest);
    }
    if let Some(every) = settings.reports.poll {
        path.reports.push(Arc::new(PollingReports::new(every)));
    }
    Ok(path)
}

/// Tells whether somebody answers for shadows on the broker, after each connection and now and then: a broker alone
/// does not.
#[cfg(feature = "mqtt")]
async fn watch_answers(shadow: Arc<MqttShadow>, tell: watch::Sender<bool>, broker: String) {
    let connected = || shadow.up().iter().all(|up| *up.borrow());
    let (mut answered, mut silences) = (false, 0);
    loop {
        match shadow.is_answered().await {
            _ if !connected() => (answered, silences) = (false, 0),
            Some(true) => (answered, silences) = (true, 0),
            Some(false) => silences += 1,
            // A connection that has too much to do says nothing of who answers.
            None => {}
        }
        // One answer may get lost.
        if silences >= MAX_UNANSWERED {
            answered = false;
        }
        tell.send_replace(answered);
        if silences == MAX_UNANSWERED {
            tracing::warn!(
                broker,
                "nobody answers for shadows there: is a shadow service running (keywright shadow), and may \
                 this user publish and subscribe to $aws/things/#?"
            );
        }
        let rest = Instant::now()
            + if silences == 0 && answered {
                LOOK_AGAIN
            } else {
                ASK_AGAIN
            };
        // A connection that is new has to show it again.
        while Instant::now() < rest && (!answered || connected()) {
            tokio::time::sleep(ASK_AGAIN).await;
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
            ingest: None,
            service: None,
            watching: None,
        }
    }
}

#[cfg(feature = "mqtt")]
fn shards(settings: &Settings, mqtt: &Mqtt) -> Vec<String> {
    shard_names(&settings.shadow_name, mqtt.shards)
}
