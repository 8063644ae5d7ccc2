//! Shadows of the shadow service in this process.

use std::sync::Arc;

use async_trait::async_trait;
use keywright_domain::ports::{Clock, ShadowChange, ShadowError, ShadowPort, ShadowSnapshot};
use keywright_domain::reason::FailureReason;
use keywright_domain::values::{ClientToken, ShadowVersion, ThingName};
use keywright_shadow::{Limits, Rejected, ServiceConfig, ShadowName, ShadowService};
use serde_json::json;

use super::document;
use crate::reports::InMemoryReports;
use crate::time::SystemClock;

/// One named shadow of every thing, in an in-process [`ShadowService`].
#[derive(Clone)]
pub struct InMemoryShadow {
    service: ShadowService,
    name: ShadowName,
}

impl InMemoryShadow {
    /// The named shadow that keys are written to, unless configured otherwise.
    pub const DEFAULT_NAME: &str = "keys";

    /// A service of its own, gone with the process, on the system's clock.
    pub fn of_this_process() -> Self {
        let clock = Arc::new(|| SystemClock.now().as_secs());
        let config = ServiceConfig {
            clock,
            limits: Limits::default(),
        };
        let name = ShadowName::Named(Self::DEFAULT_NAME.to_owned());
        Self::new(ShadowService::in_memory(config), name)
    }

    /// The service behind it: the locks' side.
    pub const fn service(&self) -> &ShadowService {
        &self.service
    }

    /// What locks report on these shadows from now on.
    pub fn reports(&self) -> InMemoryReports {
        InMemoryReports::new(&self.service, self.name.clone())
    }

    /// Writes to the shadow `name` of each thing.
    pub const fn new(service: ShadowService, name: ShadowName) -> Self {
        Self { service, name }
    }
}

#[async_trait]
impl ShadowPort for InMemoryShadow {
    async fn update(
        &self,
        thing: &ThingName,
        change: ShadowChange,
    ) -> Result<ShadowVersion, ShadowError> {
        let body = document::update_body(&change).to_string();
        let accepted = self
            .service
            .update(thing.as_str(), &self.name, body.as_bytes())
            .await;
        accepted.map(|a| ShadowVersion(a.version)).map_err(error)
    }

    async fn read(
        &self,
        thing: &ThingName,
        token: ClientToken,
    ) -> Result<Option<ShadowSnapshot>, ShadowError> {
        let body = json!({ "clientToken": token.as_str() }).to_string();
        match self
            .service
            .get(thing.as_str(), &self.name, body.as_bytes())
            .await
        {
            Ok(answer) => match document::snapshot(&answer.body) {
                Some(found) => Ok(Some(found)),
                None => Err(ShadowError::Unknown("an answer without a version".into())),
            },
            Err(rejected) if rejected.code == 404 => Ok(None),
            Err(rejected) => Err(error(rejected)),
        }
    }
}

/// Sorts a rejection by its code, never by its text.
fn error(rejected: Rejected) -> ShadowError {
    let detail = format!("{} {}", rejected.code, rejected.message);
    let refused = |reason| ShadowError::Refused {
        reason,
        detail: detail.clone(),
    };
    match rejected.code {
        409 => ShadowError::Conflict,
        401 | 403 => refused(FailureReason::NotAuthorized),
        413 => refused(FailureReason::ShadowTooLarge),
        429 => refused(FailureReason::Throttled),
        400 | 404 | 405 | 415 => refused(FailureReason::Unavailable),
        _ => ShadowError::Unknown(detail),
    }
}
