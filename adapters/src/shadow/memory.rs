//! Shadows of an in-process shadow service.

use std::sync::Arc;

use async_trait::async_trait;
use keywright_domain::model::{
    ClientToken, ShadowChange, ShadowSnapshot, ShadowVersion, ThingName,
};
use keywright_domain::ports::{Clock, ShadowError, ShadowPort};
use keywright_shadow::{Limits, Rejected, ServiceConfig, ShadowName, ShadowService};
use serde_json::json;

use super::{document_json, status_code};
use crate::reports::InMemoryReports;
use crate::time::SystemClock;

/// One named shadow of each thing, in an in-process [`ShadowService`]. Clones share the service.
#[derive(Clone)]
pub struct InMemoryShadow {
    service: ShadowService,
    name: ShadowName,
}

impl InMemoryShadow {
    /// See [`DEFAULT_NAME`](super::DEFAULT_NAME).
    pub const DEFAULT_NAME: &str = super::DEFAULT_NAME;

    /// The default shadow in a new service without a file, on the system's clock.
    pub fn of_this_process() -> Self {
        let clock = Arc::new(|| SystemClock.now().as_secs());
        let config = ServiceConfig {
            clock,
            limits: Limits::default(),
        };
        let name = ShadowName::Named(Self::DEFAULT_NAME.to_owned());
        Self::new(ShadowService::in_memory(config), name)
    }

    /// The service, to which locks report.
    pub const fn service(&self) -> &ShadowService {
        &self.service
    }

    /// The reports on these shadows from now on.
    pub fn reports(&self) -> InMemoryReports {
        InMemoryReports::new(&self.service, self.name.clone())
    }

    /// The shadow `name` of each thing in `service`.
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
        let body = document_json::update_object(&change);
        let accepted = self.service.update_object(thing.as_str(), &self.name, body);
        let accepted = accepted.await;
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
            Ok(answer) => document_json::snapshot(&answer.body())
                .map(Some)
                .ok_or_else(status_code::unreadable),
            Err(rejected) if rejected.code == 404 => Ok(None),
            Err(rejected) => Err(error(rejected)),
        }
    }
}

fn error(rejected: Rejected) -> ShadowError {
    status_code::of_code(
        rejected.code,
        format!("{} {}", rejected.code, rejected.message),
    )
}
