//! Options of webhooks. Their defaults are those of the domain and of the envelope.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{bail, ensure};
use clap::Args;
use keywright_adapters::webhooks::EnvelopeSettings;
use keywright_domain::model::Network;
use keywright_domain::policy::{AddressRules, WebhookLimits};

use super::values::{TimeSpan, help_with_default, positive};
use crate::settings::WebhookSettings;

/// The shortest pause before another attempt.
const MIN_PAUSE: Duration = Duration::from_millis(100);

fn limits() -> WebhookLimits {
    WebhookLimits::default()
}

const RETRIES_HELP: &str = "The pauses before each further attempt to deliver an event, separated by commas. After the last one, the event is \
     given up. A tenth is added or subtracted at random";

fn retries_help() -> String {
    let pauses = limits().retries;
    let pauses: Vec<String> = pauses.iter().map(|p| TimeSpan(*p).to_string()).collect();
    help_with_default(RETRIES_HELP, pauses.join(","))
}

#[derive(Args)]
#[command(next_help_heading = "Webhooks")]
pub(super) struct WebhookArgs {
    /// The file with the key that encrypts the secrets of webhooks, 32 random bytes in Base64, as `openssl rand -base64 32`
    /// prints them. Further lines are earlier keys, which only decrypt. Replicas need the same file. Without it, webhooks are
    /// off [default: with the sandbox, a file in the data folder that it creates].
    #[arg(long, value_name = "FILE")]
    webhook_key: Option<PathBuf>,
    /// Networks to which webhooks may lead although they are not public, separated by commas, such as 10.1.0.0/16
    /// [default: with the sandbox, this machine].
    #[arg(long, value_name = "NETWORKS", value_parser = networks)]
    webhook_allow: Option<Networks>,
    /// The file with the certificate authorities of the receivers, in PEM [default: those of the system].
    #[arg(long, value_name = "FILE")]
    webhook_ca: Option<PathBuf>,
    /// How long one attempt may take.
    #[arg(long, value_name = "TIME", default_value_t = limits().timeout.into())]
    webhook_timeout: TimeSpan,
    /// How many deliveries of one webhook are in progress at once, each of another lock.
    #[arg(long, value_name = "N", default_value_t = limits().parallel, value_parser = positive)]
    webhook_parallel: usize,
    #[arg(long, value_name = "TIMES", value_parser = pauses, help = retries_help())]
    webhook_retries: Option<Pauses>,
    /// The `source` of the envelope of deliveries.
    #[arg(long, value_name = "TEXT", default_value_t = EnvelopeSettings::default().source)]
    webhook_source: String,
    /// The `region` of the envelope of deliveries.
    #[arg(long, value_name = "TEXT", default_value_t = EnvelopeSettings::default().region)]
    webhook_region: String,
    /// The `account` of the envelope of deliveries.
    #[arg(long, value_name = "TEXT", default_value_t = EnvelopeSettings::default().account)]
    webhook_account: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Networks(Vec<Network>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Pauses(Vec<Duration>);

fn networks(text: &str) -> Result<Networks, String> {
    let networks = text.split(',').map(|network| network.trim().parse());
    let networks: Result<Vec<Network>, _> = networks.collect();
    networks.map(Networks).map_err(|e| e.to_string())
}

fn pauses(text: &str) -> Result<Pauses, String> {
    let pauses = text.split(',').map(|pause| pause.trim().parse());
    let pauses: Result<Vec<TimeSpan>, String> = pauses.collect();
    let pauses: Vec<Duration> = pauses?.into_iter().map(|pause| pause.0).collect();
    match pauses.iter().all(|pause| *pause >= MIN_PAUSE) {
        true => Ok(Pauses(pauses)),
        false => Err("each pause must be at least 100ms".into()),
    }
}

impl WebhookArgs {
    /// How webhooks are delivered. `None`: they are off. `sandbox`: whether the sandbox is on.
    ///
    /// # Errors
    /// The options contradict each other; the text names them.
    pub(super) fn choose(self, sandbox: bool) -> anyhow::Result<Option<WebhookSettings>> {
        if cfg!(not(feature = "webhooks")) {
            ensure!(
                self.webhook_key.is_none(),
                "--webhook-key: this program was built without the feature webhooks"
            );
            return Ok(None);
        }
        if self.webhook_key.is_none() && !sandbox {
            return self.refuse_without_key();
        }
        let timeout = self.webhook_timeout.0;
        ensure!(
            !timeout.is_zero(),
            "--webhook-timeout must be more than zero"
        );
        let mut limits = limits();
        limits.timeout = timeout;
        limits.parallel = self.webhook_parallel;
        if let Some(Pauses(retries)) = self.webhook_retries {
            limits.retries = retries;
        }
        let loopback = || match sandbox {
            true => AddressRules::loopback().to_vec(),
            false => Vec::new(),
        };
        let allowed = self.webhook_allow.map(|Networks(allowed)| allowed);
        Ok(Some(WebhookSettings {
            key: self.webhook_key,
            ca: self.webhook_ca,
            rules: AddressRules {
                allowed: allowed.unwrap_or_else(loopback),
                allows_http_on_loopback: sandbox,
            },
            envelope: EnvelopeSettings {
                source: self.webhook_source,
                region: self.webhook_region,
                account: self.webhook_account,
            },
            limits,
        }))
    }

    fn refuse_without_key(&self) -> anyhow::Result<Option<WebhookSettings>> {
        let options = [
            ("--webhook-allow", self.webhook_allow.is_some()),
            ("--webhook-ca", self.webhook_ca.is_some()),
            ("--webhook-retries", self.webhook_retries.is_some()),
        ];
        match options.iter().find(|(_, is_set)| *is_set) {
            None => Ok(None),
            Some((name, _)) => bail!("{name} has no effect without --webhook-key"),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::{Command, FromArgMatches};

    use super::*;

    fn choose(arguments: &[&str], sandbox: bool) -> anyhow::Result<Option<WebhookSettings>> {
        let command = WebhookArgs::augment_args(Command::new("serve").no_binary_name(true));
        let matches = command.try_get_matches_from(arguments)?;
        WebhookArgs::from_arg_matches(&matches)?.choose(sandbox)
    }

    #[cfg(feature = "webhooks")]
    #[test]
    fn webhooks_need_a_key_or_the_sandbox() {
        assert!(choose(&[], false).expect("off").is_none());
        let refused = choose(&["--webhook-allow", "10.0.0.0/8"], false).expect_err("no effect");
        assert!(refused.to_string().contains("--webhook-key"), "{refused}");
        let production = choose(&["--webhook-key", "k"], false)
            .expect("on")
            .expect("on");
        assert_eq!(production.rules, AddressRules::default());
        assert_eq!(
            (production.limits, production.envelope),
            (limits(), <_>::default())
        );
        let sandbox = choose(&[], true).expect("on").expect("on");
        assert_eq!(sandbox.rules.allowed, AddressRules::loopback());
        let changed = [
            "--webhook-retries",
            "1s, 2s",
            "--webhook-allow",
            "10.0.0.0/8,::1",
        ];
        let changed = choose(&changed, true).expect("on").expect("on");
        assert_eq!(changed.limits.retries, [1, 2].map(Duration::from_secs));
        assert_eq!(changed.rules.allowed.len(), 2);
        for wrong in [
            ["--webhook-allow", "10.0.0.1/8"],
            ["--webhook-retries", "soon"],
            ["--webhook-retries", "5s,0s"],
        ] {
            assert!(choose(&wrong, true).is_err(), "{wrong:?}");
        }
    }
}
