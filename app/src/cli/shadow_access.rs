//! The settings of how locks are reached. Each choice has exactly its own.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
#[cfg(feature = "mqtt")]
use keywright_mqtt::{BrokerUrl, TlsFiles};
use keywright_shadow::ShadowName;

#[cfg(feature = "mqtt")]
use super::values::Switch;
use super::values::time;
#[cfg(feature = "aws")]
use crate::settings::Aws;
#[cfg(feature = "mqtt")]
use crate::settings::{Mqtt, Reports, ShadowChoice};

const HEADING: &str = "Shadows and reports";

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ShadowKind {
    /// In this process, in the folder of data.
    Memory,
    /// In this process, and gone with it: for measuring.
    Volatile,
    /// In AWS IoT, by its API. Credentials come from the standard chain.
    #[cfg(feature = "aws")]
    Aws,
    /// Behind an MQTT broker: AWS IoT Core's, or one of your own beside `keywright shadow`.
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
    /// At POST /device-reports, from an AWS IoT rule for instance.
    Http,
    /// By reading the shadows of open writes now and then.
    Poll,
}

/// How often shadows are read where reports come by nothing else.
const POLL_EVERY: Duration = Duration::from_secs(30);

#[derive(Args)]
pub(super) struct ShadowAccess {
    /// Where the shadows of locks are.
    #[arg(long, value_enum, default_value = "memory", help_heading = HEADING)]
    shadow: ShadowKind,
    /// The named shadow that keys are written to.
    #[arg(long, value_name = "NAME", default_value = "keys", value_parser = shadow_name, help_heading = HEADING)]
    pub(super) shadow_name: String,
    /// How the reports of locks come, one or several (http,poll): memory goes with shadows in memory, mqtt with a broker, http
    /// takes them at POST /device-reports, poll reads the shadows of open writes [default: memory and mqtt for
    /// shadows of that name, poll for AWS].
    #[arg(long, value_enum, value_name = "WAY", value_delimiter = ',', hide_possible_values = true, help_heading = HEADING)]
    reports: Vec<ReportKind>,
    /// The file with the secret that who posts reports must send (Authorization: Bearer …).
    #[arg(long, value_name = "FILE", help_heading = HEADING)]
    reports_secret: Option<PathBuf>,
    /// How often the shadows of open writes are read [default: 30s].
    #[arg(long, value_name = "TIME", value_parser = time, help_heading = HEADING)]
    poll_every: Option<Duration>,
    #[cfg(feature = "aws")]
    #[command(flatten)]
    aws: AwsArgs,
    #[cfg(feature = "mqtt")]
    #[command(flatten)]
    mqtt: MqttArgs,
}

#[cfg(feature = "aws")]
#[derive(Args)]
struct AwsArgs {
    /// The endpoint of AWS IoT's data plane (the account's is https://…-ats.iot.REGION.amazonaws.com), or of
    /// another service that speaks like it.
    #[arg(long, value_name = "URL", value_parser = http_url, help_heading = HEADING)]
    aws_endpoint: Option<String>,
    /// The region [default: by the standard chain].
    #[arg(long, value_name = "NAME", help_heading = HEADING)]
    aws_region: Option<String>,
}

#[cfg(feature = "mqtt")]
#[derive(Args)]
struct MqttArgs {
    /// The broker: mqtt://HOST:PORT, or mqtts://HOST:PORT for TLS.
    #[arg(long, value_name = "URL", help_heading = HEADING)]
    mqtt_broker: Option<BrokerUrl>,
    /// The certificates that the broker's is traced back to [default: the system's].
    #[arg(long, value_name = "FILE", help_heading = HEADING)]
    mqtt_ca: Option<PathBuf>,
    /// The certificate that the broker is shown.
    #[arg(long, value_name = "FILE", help_heading = HEADING)]
    mqtt_certificate: Option<PathBuf>,
    /// Its key.
    #[arg(long, value_name = "FILE", help_heading = HEADING)]
    mqtt_key: Option<PathBuf>,
    /// The user of the broker.
    #[arg(long, value_name = "NAME", help_heading = HEADING)]
    mqtt_user: Option<String>,
    /// The file with the user's password.
    #[arg(long, value_name = "FILE", help_heading = HEADING)]
    mqtt_password_file: Option<PathBuf>,
    /// What this process is called at the broker; another one needs another name [default: keywright].
    #[arg(long, value_name = "ID", value_parser = client_id, help_heading = HEADING)]
    mqtt_client_id: Option<String>,
    /// Among how many shadows (keys-0, keys-1 …) things are shared out, each with a connection of its own
    /// [default: 1, named as --shadow-name says].
    #[arg(long, value_name = "N", value_parser = shards, help_heading = HEADING)]
    mqtt_shards: Option<usize>,
    /// Whether requests keep to what AWS IoT takes of one connection: 10 in flight, 30 a second [default: as the
    /// broker's name is one of AWS].
    #[arg(long, value_enum, help_heading = HEADING)]
    mqtt_aws_limits: Option<Switch>,
}

impl ShadowAccess {
    /// # Errors
    /// Something is said that the choice does not have, or something that it needs is not.
    pub(super) fn choose(self) -> Result<(ShadowChoice, Reports), String> {
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
        let here = matches!(shadow_kind, ShadowKind::Memory | ShadowKind::Volatile);
        if by(ReportKind::Memory) && !here {
            return Err(
                "--reports memory is about shadows in this process: it needs --shadow memory"
                    .into(),
            );
        }
        let http = match (by(ReportKind::Http), self.reports_secret.clone()) {
            (true, None) => return Err("--reports http needs --reports-secret".into()),
            (false, Some(_)) => return Err("--reports-secret needs --reports http".into()),
            (_, secret) => secret,
        };
        let poll = match (by(ReportKind::Poll), self.poll_every) {
            (false, Some(_)) => return Err("--poll-every needs --reports poll".into()),
            (true, every) => Some(every.unwrap_or(POLL_EVERY)),
            (false, None) => None,
        };
        if poll.is_some_and(|every| every.is_zero()) {
            return Err("--poll-every must be more than zero".into());
        }
        #[cfg(feature = "mqtt")]
        if by(ReportKind::Mqtt) && here {
            return Err(
                "--reports mqtt is about shadows elsewhere: it needs --shadow mqtt or aws".into(),
            );
        }
        #[cfg(feature = "mqtt")]
        if shadow_kind != ShadowKind::Mqtt
            && (self.mqtt.mqtt_shards.is_some() || self.mqtt.mqtt_aws_limits.is_some())
        {
            return Err("--mqtt-shards and --mqtt-aws-limits need --shadow mqtt".into());
        }
        #[cfg(feature = "mqtt")]
        let mqtt = {
            let wanted = shadow_kind == ShadowKind::Mqtt || by(ReportKind::Mqtt);
            self.mqtt.choose(wanted)?
        };
        #[cfg(feature = "aws")]
        let aws = self.aws.choose(shadow_kind == ShadowKind::Aws)?;
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
            ShadowKind::Aws => ShadowChoice::Aws(aws),
            #[cfg(feature = "mqtt")]
            ShadowKind::Mqtt => match mqtt {
                Some(mqtt) => ShadowChoice::Mqtt(mqtt),
                None => return Err(NO_BROKER.into()),
            },
        };
        Ok((shadow, reports))
    }
}

#[cfg(feature = "mqtt")]
const SHADOW_SERVICE: &str = keywright_shadow::mqtt::MqttFrontend::CLIENT_ID;

#[cfg(feature = "mqtt")]
const NO_BROKER: &str = "--shadow mqtt and --reports mqtt need --mqtt-broker";

#[cfg(feature = "aws")]
impl AwsArgs {
    fn choose(self, wanted: bool) -> Result<Aws, String> {
        if !wanted && (self.aws_endpoint.is_some() || self.aws_region.is_some()) {
            return Err("--aws-endpoint and --aws-region need --shadow aws".into());
        }
        Ok(Aws {
            endpoint: self.aws_endpoint,
            region: self.aws_region,
        })
    }
}

#[cfg(feature = "mqtt")]
impl MqttArgs {
    fn choose(self, wanted: bool) -> Result<Option<Mqtt>, String> {
        let Some(url) = self.mqtt_broker else {
            let others = self.mqtt_ca.is_some()
                || self.mqtt_certificate.is_some()
                || self.mqtt_key.is_some()
                || self.mqtt_user.is_some()
                || self.mqtt_password_file.is_some()
                || self.mqtt_client_id.is_some();
            return match (wanted, others) {
                (true, _) => Err(NO_BROKER.into()),
                (false, true) => Err("the settings of mqtt-… need --mqtt-broker".into()),
                (false, false) => Ok(None),
            };
        };
        if self.mqtt_user.is_some() != self.mqtt_password_file.is_some() {
            return Err("--mqtt-user and --mqtt-password-file go together".into());
        }
        if !wanted {
            return Err("--mqtt-broker needs --shadow mqtt or --reports mqtt".into());
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
            client_id: self.mqtt_client_id.unwrap_or_else(|| "keywright".into()),
            shards: self.mqtt_shards.unwrap_or(1),
            aws_limits: limits.unwrap_or(aws),
        }))
    }
}

pub(crate) fn shadow_name(name: &str) -> Result<String, String> {
    let named = ShadowName::named(name).map_err(|e| e.to_string());
    named.map(|_| name.to_owned())
}

#[cfg(feature = "aws")]
fn http_url(text: &str) -> Result<String, &'static str> {
    let host = text
        .strip_prefix("https://")
        .or_else(|| text.strip_prefix("http://"));
    match host {
        Some(host) if !host.is_empty() => Ok(text.to_owned()),
        _ => Err("write it as https://HOST"),
    }
}

#[cfg(feature = "mqtt")]
fn client_id(text: &str) -> Result<String, &'static str> {
    // A colon parts it from the names of this process's other connections.
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    match (1..=100).contains(&text.len()) && text.bytes().all(allowed) {
        true if text == SHADOW_SERVICE => Err("that is the shadow service's; choose another"),
        true => Ok(text.to_owned()),
        false => Err("it is 1 to 100 characters of a-z, A-Z, 0-9, -, _ and ."),
    }
}

#[cfg(feature = "mqtt")]
fn shards(text: &str) -> Result<usize, &'static str> {
    let number = text.parse().ok().filter(|n| (1..=64).contains(n));
    number.ok_or("it is a number from 1 to 64")
}
