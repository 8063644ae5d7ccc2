//! Options of the shadows of locks and of the reports that locks send. Each choice accepts only its own options.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{bail, ensure};
use clap::{Args, ValueEnum};
#[cfg(feature = "mqtt")]
use keywright_mqtt::{BrokerUrl, TlsFiles};

#[cfg(feature = "aws")]
use super::aws_options::Aws;
#[cfg(feature = "mqtt")]
use super::values::Switch;
use super::values::{TimeSpan, help_with_default, shadow_name};
#[cfg(feature = "mqtt")]
use crate::settings::Mqtt;
use crate::settings::{Reports, ShadowChoice};

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ShadowKind {
    /// In this process, in the data folder.
    Memory,
    /// In this process, and lost when it ends; for measurements.
    Volatile,
    /// In AWS IoT, through its API. Credentials come from the standard chain of the AWS SDK.
    #[cfg(feature = "aws")]
    Aws,
    /// On an MQTT broker: AWS IoT Core, or your own broker with `keywright shadow`.
    #[cfg(feature = "mqtt")]
    Mqtt,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ReportKind {
    /// From the shadows in this process.
    Memory,
    /// Over the broker.
    #[cfg(feature = "mqtt")]
    Mqtt,
    /// At POST /device-reports, for example from an AWS IoT rule.
    Http,
    /// By reading the shadows of open writes at intervals.
    Poll,
}

/// The default shadow name.
pub(crate) const SHADOW_NAME: &str = "keys";

/// The default interval at which shadows are read.
const POLL_EVERY: TimeSpan = TimeSpan(Duration::from_secs(30));

#[derive(Args)]
#[command(next_help_heading = "Shadows and reports")]
pub(super) struct ShadowArgs {
    /// Where the shadows of locks are.
    #[arg(long, value_enum, default_value = "memory")]
    shadow: ShadowKind,
    /// The named shadow to which keys are written.
    #[arg(long, value_name = "NAME", default_value = SHADOW_NAME, value_parser = shadow_name)]
    pub(super) shadow_name: String,
    /// How the reports of locks arrive; several ways are separated by commas, as in http,poll: memory, from the shadows in this
    /// process; mqtt, over the broker; http, at POST /device-reports; poll, by reading the shadows of open writes at
    /// intervals [default: memory for shadows in this process, mqtt for a broker, poll for AWS].
    #[arg(
        long,
        value_enum,
        value_name = "WAY",
        value_delimiter = ',',
        hide_possible_values = true
    )]
    reports: Vec<ReportKind>,
    /// The file with the secret that clients of POST /device-reports must send (Authorization: Bearer …).
    #[arg(long, value_name = "FILE")]
    reports_secret: Option<PathBuf>,
    #[arg(
        long,
        value_name = "TIME",
        help = help_with_default("How often the shadows of open writes are read", POLL_EVERY)
    )]
    poll_every: Option<TimeSpan>,
    #[cfg(feature = "aws")]
    #[command(flatten)]
    aws: Aws,
    #[cfg(feature = "mqtt")]
    #[command(flatten)]
    mqtt: MqttArgs,
}

/// The default client id.
#[cfg(feature = "mqtt")]
const CLIENT_ID: &str = "keywright";

/// The default number of shadows for each thing.
#[cfg(feature = "mqtt")]
const SHARDS: usize = 1;

#[cfg(feature = "mqtt")]
#[derive(Args)]
struct MqttArgs {
    /// The URL of the broker: mqtt://HOST:PORT, or mqtts://HOST:PORT for TLS.
    #[arg(long, value_name = "URL")]
    mqtt_broker: Option<BrokerUrl>,
    /// The file with the certificate authorities of the broker, in PEM [default: those of the system].
    #[arg(long, value_name = "FILE")]
    mqtt_ca: Option<PathBuf>,
    /// The file with the client certificate for the broker, in PEM.
    #[arg(long, value_name = "FILE")]
    mqtt_certificate: Option<PathBuf>,
    /// The file with the private key of the client certificate, in PEM.
    #[arg(long, value_name = "FILE")]
    mqtt_key: Option<PathBuf>,
    /// The user name at the broker.
    #[arg(long, value_name = "NAME")]
    mqtt_user: Option<String>,
    /// The file with the password of that user.
    #[arg(long, value_name = "FILE")]
    mqtt_password_file: Option<PathBuf>,
    #[arg(
        long,
        value_name = "ID",
        value_parser = client_id,
        help = help_with_default(
            "The client id at the broker. Each process that uses the broker needs a different one",
            CLIENT_ID,
        )
    )]
    mqtt_client_id: Option<String>,
    #[arg(
        long,
        value_name = "N",
        value_parser = shards,
        help = help_with_default(
            "The number of shadows among which things are distributed, each with a connection of its own. More than one are \
             called keys-0, keys-1 and so on",
            SHARDS,
        )
    )]
    mqtt_shards: Option<usize>,
    /// Whether requests stay within the limits of AWS IoT for one connection: 10 in flight, 30 a second [default: on for
    /// hosts of AWS, off for others].
    #[arg(long, value_enum)]
    mqtt_aws_limits: Option<Switch>,
}

impl ShadowArgs {
    /// # Errors
    /// An option does not belong to the choice, or one that the choice needs is missing; the text names both.
    pub(super) fn choose(self) -> anyhow::Result<(ShadowChoice, Reports)> {
        let shadow_kind = self.shadow;
        let mut ways = self.reports.clone();
        if ways.is_empty() {
            ways.push(match shadow_kind {
                ShadowKind::Memory | ShadowKind::Volatile => ReportKind::Memory,
                #[cfg(feature = "aws")]
                ShadowKind::Aws => ReportKind::Poll,
                #[cfg(feature = "mqtt")]
                ShadowKind::Mqtt => ReportKind::Mqtt,
            });
        }
        let by = |kind| ways.contains(&kind);
        let in_process = matches!(shadow_kind, ShadowKind::Memory | ShadowKind::Volatile);
        if by(ReportKind::Memory) && !in_process {
            bail!("--reports memory needs shadows in this process: --shadow memory");
        }
        let http = match (by(ReportKind::Http), self.reports_secret.clone()) {
            (true, None) => bail!("--reports http needs --reports-secret"),
            (false, Some(_)) => bail!("--reports-secret needs --reports http"),
            (_, secret) => secret,
        };
        let poll = match (by(ReportKind::Poll), self.poll_every) {
            (false, Some(_)) => bail!("--poll-every needs --reports poll"),
            (true, every) => Some(every.unwrap_or(POLL_EVERY).0),
            (false, None) => None,
        };
        let is_zero = poll.is_some_and(|every| every.is_zero());
        ensure!(!is_zero, "--poll-every must be more than zero");
        #[cfg(feature = "mqtt")]
        if by(ReportKind::Mqtt) && in_process {
            bail!("--reports mqtt needs shadows outside of this process: --shadow mqtt or aws");
        }
        #[cfg(feature = "mqtt")]
        if shadow_kind != ShadowKind::Mqtt
            && (self.mqtt.mqtt_shards.is_some() || self.mqtt.mqtt_aws_limits.is_some())
        {
            bail!("--mqtt-shards and --mqtt-aws-limits need --shadow mqtt");
        }
        #[cfg(feature = "mqtt")]
        let mqtt = {
            let is_wanted = shadow_kind == ShadowKind::Mqtt || by(ReportKind::Mqtt);
            self.mqtt.choose(is_wanted)?
        };
        #[cfg(feature = "aws")]
        if shadow_kind != ShadowKind::Aws
            && (self.aws.endpoint.is_some() || self.aws.region.is_some())
        {
            bail!("--aws-endpoint and --aws-region need --shadow aws");
        }
        let reports = Reports {
            in_process: by(ReportKind::Memory),
            #[cfg(feature = "mqtt")]
            mqtt: mqtt.clone().filter(|_| by(ReportKind::Mqtt)),
            http,
            poll,
        };
        let shadow = match shadow_kind {
            ShadowKind::Memory => ShadowChoice::InProcess { kept: true },
            ShadowKind::Volatile => ShadowChoice::InProcess { kept: false },
            #[cfg(feature = "aws")]
            ShadowKind::Aws => ShadowChoice::Aws(self.aws),
            #[cfg(feature = "mqtt")]
            ShadowKind::Mqtt => match mqtt {
                Some(mqtt) => ShadowChoice::Mqtt(mqtt),
                None => bail!(NO_BROKER),
            },
        };
        Ok((shadow, reports))
    }
}

#[cfg(feature = "mqtt")]
const SHADOW_SERVICE: &str = keywright_shadow::mqtt::MqttFrontend::CLIENT_ID;

#[cfg(feature = "mqtt")]
const NO_BROKER: &str = "--shadow mqtt and --reports mqtt need --mqtt-broker";

#[cfg(feature = "mqtt")]
impl MqttArgs {
    fn choose(self, is_wanted: bool) -> anyhow::Result<Option<Mqtt>> {
        let Some(url) = self.mqtt_broker else {
            let others = self.mqtt_ca.is_some()
                || self.mqtt_certificate.is_some()
                || self.mqtt_key.is_some()
                || self.mqtt_user.is_some()
                || self.mqtt_password_file.is_some()
                || self.mqtt_client_id.is_some();
            return match (is_wanted, others) {
                (true, _) => bail!(NO_BROKER),
                (false, true) => bail!("the settings of mqtt-… need --mqtt-broker"),
                (false, false) => Ok(None),
            };
        };
        if self.mqtt_user.is_some() != self.mqtt_password_file.is_some() {
            bail!("--mqtt-user and --mqtt-password-file go together");
        }
        if !is_wanted {
            bail!("--mqtt-broker needs --shadow mqtt or --reports mqtt");
        }
        let host = url.host();
        let aws = host.ends_with(".amazonaws.com") || host.ends_with(".amazonaws.com.cn");
        let limits = self.mqtt_aws_limits.map(Switch::is_on);
        Ok(Some(Mqtt {
            url,
            files: TlsFiles {
                ca: self.mqtt_ca,
                certificate: self.mqtt_certificate,
                key: self.mqtt_key,
                login: self.mqtt_user.zip(self.mqtt_password_file),
            },
            client_id: self.mqtt_client_id.unwrap_or_else(|| CLIENT_ID.into()),
            shards: self.mqtt_shards.unwrap_or(SHARDS),
            aws_limits: limits.unwrap_or(aws),
        }))
    }
}

#[cfg(feature = "mqtt")]
fn client_id(text: &str) -> Result<String, &'static str> {
    // A colon separates it from the suffixes for further connections of this process.
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    match (1..=100).contains(&text.len()) && text.bytes().all(allowed) {
        true if text == SHADOW_SERVICE => {
            Err("this is the client id of the shadow service; choose another")
        }
        true => Ok(text.to_owned()),
        false => Err("it is 1 to 100 characters of a-z, A-Z, 0-9, -, _ and ."),
    }
}

#[cfg(feature = "mqtt")]
fn shards(text: &str) -> Result<usize, &'static str> {
    let number = text.parse().ok().filter(|n| (1..=64).contains(n));
    number.ok_or("it is a number from 1 to 64")
}
