//! Shadows of AWS IoT, by the AWS SDK.

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
use super::{document, outcome};
use crate::time::SystemClock;

/// How long credentials may take to be found: those of a machine's role come over its network.
const CREDENTIALS_PATIENCE: Duration = Duration::from_secs(10);

/// The part of a call's time that it may be held back for; the rest is the call's.
const THROTTLE_BACKOFF_SHARE: u32 = 5;

/// Where the shadows are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AwsSettings {
    /// The account's own endpoint (`https://…-ats.iot.eu-west-1.amazonaws.com`), or another service's.
    pub endpoint: Option<String>,
    /// The region, where the standard chain does not say it.
    pub region: Option<String>,
    /// The name of the shadow of each thing.
    pub shadow: String,
    /// How long one call may take.
    pub timeout: Duration,
}

/// Why AWS cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AwsError {
    /// Nothing says which region.
    #[error("no AWS region is known; set --aws-region, AWS_REGION or a profile")]
    NoRegion,
    /// The standard chain has none.
    #[error(
        "no AWS credentials were found (variables, profile, web identity, role of the machine): {0}"
    )]
    NoCredentials(String),
}

/// One named shadow of every thing. One client, whose connections are used again and again.
pub struct AwsShadow {
    client: Client,
    shadow: String,
    timeout: Duration,
    throttle_backoff: ThrottleBackoff,
}

/// Credentials that were found before the first call, which therefore does not have to search for them. The client
/// keeps them as long as they are good, and then asks again.
#[derive(Debug)]
struct Found {
    first: Mutex<Option<Credentials>>,
    rest: SharedCredentialsProvider,
}

/// The time that credentials must still be good for.
const GOOD_FOR: Duration = Duration::from_secs(60);

fn is_good(credentials: &Credentials) -> bool {
    let now = Duration::from_secs(SystemClock.now().as_secs());
    credentials
        .expiry()
        .is_none_or(|end| end > UNIX_EPOCH + now + GOOD_FOR)
}

impl ProvideCredentials for Found {
    fn provide_credentials<'a>(&'a self) -> ProvideCredentialsFuture<'a>
    where
        Self: 'a,
    {
        let first = self
            .first
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        match first.filter(is_good) {
            Some(found) => ProvideCredentialsFuture::ready(Ok(found)),
            None => self.rest.provide_credentials(),
        }
    }
}

/// The SDK's configuration. Its region may be asked of the machine's metadata service, where neither the settings, nor a variable, nor a
/// profile name one.
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
    /// Checks that a region is known, without searching for credentials.
    ///
    /// # Errors
    /// [`AwsError::NoRegion`].
    pub async fn check_region(settings: &AwsSettings) -> Result<(), AwsError> {
        load_config(settings).await.map(drop)
    }

    /// Finds region and credentials by the standard chain. A connection is made with the first call.
    ///
    /// # Errors
    /// There are none.
    pub async fn connect(settings: AwsSettings) -> Result<Self, AwsError> {
        let config = load_config(&settings).await?;
        let none = |why: &str| AwsError::NoCredentials(why.to_owned());
        let provider = config.credentials_provider();
        let provider = provider.ok_or_else(|| none("nothing is set"))?;
        let finding = tokio::time::timeout(CREDENTIALS_PATIENCE, provider.provide_credentials());
        let found = finding
            .await
            .map_err(|_| none("the search took too long"))?
            .map_err(|e| none(&bottom(&e)))?;
        let found = Found {
            first: Mutex::new(Some(found)),
            rest: provider,
        };
        let found = SharedCredentialsProvider::new(found);
        let config = config.into_builder().credentials_provider(found).build();
        Ok(Self::new(&config, settings))
    }

    /// Over a configuration of one's own, but for its retries and timeouts, which are the adapter's.
    pub fn new(config: &SdkConfig, settings: AwsSettings) -> Self {
        let call = settings.timeout;
        let timeouts = TimeoutConfig::builder()
            .connect_timeout((call * 2 / 5).min(Duration::from_secs(1)))
            .operation_attempt_timeout(call * 3 / 4)
            .operation_timeout(call - call / THROTTLE_BACKOFF_SHARE)
            .build();
        // A hidden retry of an update that was applied comes back as a conflict and hides the success.
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

    async fn ready(&self) -> Result<(), ShadowError> {
        if self
            .throttle_backoff
            .wait(self.timeout / THROTTLE_BACKOFF_SHARE)
            .await
        {
            return Ok(());
        }
        Err(outcome::throttled())
    }

    /// Sorts what is no success, and keeps the pace that the service asks for.
    fn error<E>(&self, thing: &ThingName, error: SdkError<E, HttpResponse>) -> ShadowError
    where
        E: ProvideErrorMetadata + Error + Send + Sync + 'static,
    {
        let sorted = sort(&error);
        if let ShadowError::Refused {
            reason: FailureReason::Throttled,
            ..
        } = sorted
        {
            let header = error
                .raw_response()
                .and_then(|raw| raw.headers().get("retry-after"));
            let seconds = header.and_then(|value| value.parse().ok());
            self.throttle_backoff
                .throttled(thing.as_str(), seconds.map(Duration::from_secs));
        }
        sorted
    }
}

fn sort<E>(error: &SdkError<E, HttpResponse>) -> ShadowError
where
    E: ProvideErrorMetadata + Error + Send + Sync + 'static,
{
    match error {
        SdkError::ConstructionFailure(_) => {
            outcome::not_sent(FailureReason::Unavailable, bottom(error))
        }
        SdkError::DispatchFailure(failure) => {
            let why = bottom(error);
            let connector = failure.as_connector_error();
            match connector.is_some_and(|e| never_connected(e)) {
                true => outcome::not_sent(FailureReason::Unavailable, why),
                // A connection that was used before and breaks now may have carried the request.
                false => ShadowError::Unknown(why),
            }
        }
        SdkError::ServiceError(answer) => {
            let (status, code) = (answer.raw().status().as_u16(), answer.err().code());
            let detail = format!("{status} {}", code.unwrap_or("without a code"));
            match code {
                Some("ThrottlingException") => outcome::of_code(429, detail),
                _ => outcome::of_code(status, detail),
            }
        }
        _ => ShadowError::Unknown(bottom(error)),
    }
}

/// Whether the client failed before it had a connection to write a request to.
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

/// What is at the bottom of an error: the layers above it say little.
fn bottom(error: &(dyn Error + 'static)) -> String {
    let mut bottom = error;
    while let Some(cause) = bottom.source() {
        bottom = cause;
    }
    bottom.to_string()
}

fn json(payload: Option<&Blob>) -> Result<Value, ShadowError> {
    let read = payload.and_then(|blob| serde_json::from_slice(blob.as_ref()).ok());
    read.ok_or_else(outcome::unreadable)
}

#[async_trait]
impl ShadowPort for AwsShadow {
    async fn update(
        &self,
        thing: &ThingName,
        change: ShadowChange,
    ) -> Result<ShadowVersion, ShadowError> {
        self.ready().await?;
        let body = document::update_body(&change).to_string();
        let call = self
            .client
            .update_thing_shadow()
            .thing_name(thing.as_str())
            .shadow_name(&self.shadow)
            .payload(Blob::new(body));
        let answer = call.send().await.map_err(|e| self.error(thing, e))?;
        self.throttle_backoff.taken();
        document::version(&json(answer.payload())?).ok_or_else(outcome::unreadable)
    }

    async fn read(
        &self,
        thing: &ThingName,
        _: ClientToken,
    ) -> Result<Option<ShadowSnapshot>, ShadowError> {
        self.ready().await?;
        let call = self
            .client
            .get_thing_shadow()
            .thing_name(thing.as_str())
            .shadow_name(&self.shadow);
        match call.send().await {
            Ok(answer) => document::snapshot(&json(answer.payload())?)
                .map(Some)
                .ok_or_else(outcome::unreadable),
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
    fn credentials_that_end_soon_are_not_the_first() {
        let now = UNIX_EPOCH + Duration::from_secs(SystemClock.now().as_secs());
        let until = |end| Credentials::new("a", "b", None, end, "test");
        assert!(is_good(&until(None)));
        assert!(is_good(&until(Some(now + Duration::from_secs(600)))));
        assert!(!is_good(&until(Some(now + Duration::from_secs(30)))));
        assert!(!is_good(&until(Some(now - Duration::from_secs(30)))));
    }
}
