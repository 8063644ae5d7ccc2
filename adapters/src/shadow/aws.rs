//! Shadows of AWS IoT over HTTPS, through the AWS SDK.

use std::error::Error;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use async_trait::async_trait;
use aws_config::retry::RetryConfig;
use aws_config::stalled_stream_protection::StalledStreamProtectionConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::Credentials;
use aws_credential_types::provider::future::ProvideCredentials as ProvideCredentialsFuture;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider};
use aws_sdk_iotdataplane::Client;
use aws_sdk_iotdataplane::config::http::HttpResponse;
use aws_sdk_iotdataplane::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_iotdataplane::primitives::Blob;
use keywright_domain::model::{
    ClientToken, FailureReason, ShadowChange, ShadowSnapshot, ShadowVersion, ThingName,
};
use keywright_domain::ports::{Clock, ShadowError, ShadowPort};
use serde_json::Value;

use super::throttle_backoff::ThrottleBackoff;
use super::{document_json, status_code};
use crate::time::SystemClock;

/// The time for finding credentials. Those of a machine's role are requested over the network.
const CREDENTIALS_TIMEOUT: Duration = Duration::from_secs(10);

/// A call may be delayed for this fraction of its timeout after throttled calls.
const BACKOFF_FRACTION: u32 = 5;

/// How to reach the shadows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AwsSettings {
    /// The endpoint of the account (`https://…-ats.iot.eu-west-1.amazonaws.com`) or of another service; `None`: the SDK's
    /// default.
    pub endpoint: Option<String>,
    /// The region; `None`: the standard chain determines it.
    pub region: Option<String>,
    /// The name of the shadow.
    pub shadow: String,
    /// The timeout of a call.
    pub timeout: Duration,
}

/// Why AWS cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AwsError {
    /// No region is configured.
    #[error("no AWS region is known; set --aws-region, AWS_REGION or a profile")]
    NoRegion,
    /// The standard chain finds no credentials.
    #[error(
        "no AWS credentials were found (variables, profile, web identity, role of the machine): {0}"
    )]
    NoCredentials(String),
}

/// One named shadow of each thing, with one client and its connection pool.
pub struct AwsShadow {
    client: Client,
    shadow: String,
    timeout: Duration,
    throttle_backoff: ThrottleBackoff,
}

/// Provides credentials that were found before the first call, so that this call does not have to search for them. The client
/// caches them until they expire and then requests new ones.
#[derive(Debug)]
struct PrefetchedCredentials {
    first: Mutex<Option<Credentials>>,
    provider: SharedCredentialsProvider,
}

/// The minimum remaining validity of prefetched credentials.
const MIN_VALIDITY: Duration = Duration::from_secs(60);

fn is_valid(credentials: &Credentials) -> bool {
    let now = Duration::from_secs(SystemClock.now().as_secs());
    credentials
        .expiry()
        .is_none_or(|end| end > UNIX_EPOCH + now + MIN_VALIDITY)
}

impl ProvideCredentials for PrefetchedCredentials {
    fn provide_credentials<'a>(&'a self) -> ProvideCredentialsFuture<'a>
    where
        Self: 'a,
    {
        let first = self
            .first
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        match first.filter(is_valid) {
            Some(found) => ProvideCredentialsFuture::ready(Ok(found)),
            None => self.provider.provide_credentials(),
        }
    }
}

/// The SDK's configuration. If neither the settings nor a variable nor a profile name a region, the machine's metadata service is
/// asked for it.
async fn load_config(settings: &AwsSettings) -> Result<SdkConfig, AwsError> {
    let mut loader = aws_config::defaults(BehaviorVersion::latest());
    if let Some(region) = &settings.region {
        loader = loader.region(Region::new(region.clone()));
    }
    let config = loader.load().await;
    match config.region() {
        Some(_) => Ok(config),
        None => Err(AwsError::NoRegion),
    }
}

impl AwsShadow {
    /// Checks that a region is configured, without searching for credentials.
    ///
    /// # Errors
    /// [`AwsError::NoRegion`].
    pub async fn check_region(settings: &AwsSettings) -> Result<(), AwsError> {
        load_config(settings).await.map(drop)
    }

    /// Finds region and credentials through the standard chain. The first call connects.
    ///
    /// # Errors
    /// See [`AwsError`].
    pub async fn connect(settings: AwsSettings) -> Result<Self, AwsError> {
        let config = load_config(&settings).await?;
        let none = |why: &str| AwsError::NoCredentials(why.to_owned());
        let provider = config.credentials_provider();
        let provider = provider.ok_or_else(|| none("no provider is set"))?;
        let search = tokio::time::timeout(CREDENTIALS_TIMEOUT, provider.provide_credentials());
        let found = search
            .await
            .map_err(|_| none("the search took too long"))?
            .map_err(|e| none(&root_cause(&e)))?;
        let credentials = PrefetchedCredentials {
            first: Mutex::new(Some(found)),
            provider,
        };
        let credentials = SharedCredentialsProvider::new(credentials);
        let config = config
            .into_builder()
            .credentials_provider(credentials)
            .build();
        Ok(Self::new(&config, settings))
    }

    /// Uses an SDK configuration, with the adapter's own retries and timeouts.
    pub fn new(config: &SdkConfig, settings: AwsSettings) -> Self {
        let call = settings.timeout;
        let timeouts = TimeoutConfig::builder()
            .connect_timeout((call * 2 / 5).min(Duration::from_secs(1)))
            .operation_attempt_timeout(call * 3 / 4)
            .operation_timeout(call - call / BACKOFF_FRACTION)
            .build();
        // A hidden retry of an applied update would return a conflict and hide the success.
        let mut config = aws_sdk_iotdataplane::config::Builder::from(config)
            .retry_config(RetryConfig::standard().with_max_attempts(1))
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
            .timeout_config(timeouts);
        if let Some(endpoint) = settings.endpoint {
            config = config.endpoint_url(endpoint);
        }
        Self {
            client: Client::from_conf(config.build()),
            shadow: settings.shadow,
            timeout: settings.timeout,
            throttle_backoff: ThrottleBackoff::new(),
        }
    }

    /// Delays a call after throttled ones.
    async fn wait_for_backoff(&self) -> Result<(), ShadowError> {
        let timeout = self.timeout / BACKOFF_FRACTION;
        match self.throttle_backoff.wait(timeout).await {
            true => Ok(()),
            false => Err(status_code::throttled()),
        }
    }

    /// Classifies an error, and records throttling.
    fn error<E>(&self, thing: &ThingName, error: SdkError<E, HttpResponse>) -> ShadowError
    where
        E: ProvideErrorMetadata + Error + Send + Sync + 'static,
    {
        let classified = classify(&error);
        if let ShadowError::Refused {
            reason: FailureReason::Throttled,
            ..
        } = classified
        {
            let header = error
                .raw_response()
                .and_then(|raw| raw.headers().get("retry-after"));
            let seconds = header.and_then(|value| value.parse().ok());
            self.throttle_backoff
                .throttled(thing.as_str(), seconds.map(Duration::from_secs));
        }
        classified
    }
}

fn classify<E>(error: &SdkError<E, HttpResponse>) -> ShadowError
where
    E: ProvideErrorMetadata + Error + Send + Sync + 'static,
{
    match error {
        SdkError::ConstructionFailure(_) => {
            status_code::not_sent(FailureReason::Unavailable, root_cause(error))
        }
        SdkError::DispatchFailure(failure) => {
            let why = root_cause(error);
            let connector = failure.as_connector_error();
            match connector.is_some_and(|e| never_connected(e)) {
                true => status_code::not_sent(FailureReason::Unavailable, why),
                // A pooled connection that breaks may have transmitted the request.
                false => ShadowError::Unknown(why),
            }
        }
        SdkError::ServiceError(answer) => {
            let (status, code) = (answer.raw().status().as_u16(), answer.err().code());
            let detail = format!("{status} {}", code.unwrap_or("without a code"));
            match code {
                Some("ThrottlingException") => status_code::of_code(429, detail),
                _ => status_code::of_code(status, detail),
            }
        }
        _ => ShadowError::Unknown(root_cause(error)),
    }
}

/// Whether the client failed before it had a connection to send the request on.
fn never_connected(error: &(dyn Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(client) = error.downcast_ref::<hyper_util::client::legacy::Error>() {
            return client.is_connect();
        }
        cause = error.source();
    }
    false
}

/// The text of the innermost source of an error. The texts of the outer layers are generic.
fn root_cause(error: &(dyn Error + 'static)) -> String {
    let mut innermost = error;
    while let Some(cause) = innermost.source() {
        innermost = cause;
    }
    innermost.to_string()
}

fn json(payload: Option<&Blob>) -> Result<Value, ShadowError> {
    let read = payload.and_then(|blob| serde_json::from_slice(blob.as_ref()).ok());
    read.ok_or_else(status_code::unreadable)
}

#[async_trait]
impl ShadowPort for AwsShadow {
    async fn update(
        &self,
        thing: &ThingName,
        change: ShadowChange,
    ) -> Result<ShadowVersion, ShadowError> {
        self.wait_for_backoff().await?;
        let body = document_json::update_body(&change).to_string();
        let call = self
            .client
            .update_thing_shadow()
            .thing_name(thing.as_str())
            .shadow_name(&self.shadow)
            .payload(Blob::new(body));
        let answer = call.send().await.map_err(|e| self.error(thing, e))?;
        self.throttle_backoff.accepted();
        document_json::version(&json(answer.payload())?).ok_or_else(status_code::unreadable)
    }

    async fn read(
        &self,
        thing: &ThingName,
        _: ClientToken,
    ) -> Result<Option<ShadowSnapshot>, ShadowError> {
        self.wait_for_backoff().await?;
        let call = self
            .client
            .get_thing_shadow()
            .thing_name(thing.as_str())
            .shadow_name(&self.shadow);
        match call.send().await {
            Ok(answer) => document_json::snapshot(&json(answer.payload())?)
                .map(Some)
                .ok_or_else(status_code::unreadable),
            Err(error)
                if error
                    .raw_response()
                    .is_some_and(|raw| raw.status().as_u16() == 404) =>
            {
                Ok(None)
            }
            Err(error) => Err(self.error(thing, error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_that_expire_soon_are_not_used() {
        let now = UNIX_EPOCH + Duration::from_secs(SystemClock.now().as_secs());
        let until = |end| Credentials::new("a", "b", None, end, "test");
        assert!(is_valid(&until(None)));
        assert!(is_valid(&until(Some(now + Duration::from_secs(600)))));
        assert!(!is_valid(&until(Some(now + Duration::from_secs(30)))));
        assert!(!is_valid(&until(Some(now - Duration::from_secs(30)))));
    }
}
