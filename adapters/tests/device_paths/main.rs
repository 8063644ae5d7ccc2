//! The adapters of shadows and reports against real transports: the AWS SDK over HTTP, and MQTT over mosquitto.

mod aws_sdk;
mod moto;
mod mqtt;
mod outcomes;
mod proxy;
mod report_contract;
mod reports;

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use keywright_domain::model::ThingName;
use keywright_domain::ports::ShadowPort;
use keywright_shadow::{Limits, ServiceConfig, ShadowName, ShadowService};
use keywright_testkit::faulty_transport::{CurrentFault, Transport, TransportFault};
use keywright_testkit::shadow_port::Device;
use keywright_testkit::tcp_proxy::Refusal;
use serde_json::Value;

const NAME: &str = "keys";

fn service() -> ShadowService {
    ShadowService::in_memory(ServiceConfig {
        clock: Arc::new(|| 1_780_000_000),
        limits: Limits::default(),
    })
}

/// Locks that report directly to the service.
struct Locks(ShadowService);

#[async_trait]
impl Device for Locks {
    async fn report(&self, thing: &ThingName, document: &str) {
        let name = ShadowName::Named(NAME.into());
        let accepted = self
            .0
            .update(thing.as_str(), &name, document.as_bytes())
            .await;
        accepted.expect("a report");
    }

    async fn state(&self, thing: &ThingName) -> Value {
        let name = ShadowName::Named(NAME.into());
        let found = self.0.get(thing.as_str(), &name, b"").await;
        found.expect("a shadow").body()["state"].clone()
    }
}

/// A port with the servers that it needs.
struct Connected<T> {
    port: Box<dyn ShadowPort>,
    _servers: T,
}

impl<T> Connected<T> {
    fn new(port: impl ShadowPort + 'static, servers: T) -> Self {
        Self {
            port: Box::new(port),
            _servers: servers,
        }
    }
}

impl<T> Deref for Connected<T> {
    type Target = dyn ShadowPort;

    fn deref(&self) -> &Self::Target {
        &*self.port
    }
}

struct FaultyTransport {
    fault: CurrentFault,
    service: ShadowService,
    refusal: Refusal,
}

impl FaultyTransport {
    async fn replace_fault(&self, fault: TransportFault, is_for_one_request: bool) {
        self.fault.set(fault, is_for_one_request);
        let throttled = fault == TransportFault::Throttled;
        self.service.limit_requests(throttled.then_some(0));
        let refused = fault == TransportFault::ConnectionRefused;
        self.refusal.set(refused).await;
    }
}

#[async_trait]
impl Transport for FaultyTransport {
    async fn set(&self, fault: TransportFault) {
        self.replace_fault(fault, false).await;
    }

    async fn set_for_next_request(&self, fault: TransportFault) {
        self.replace_fault(fault, true).await;
    }

    async fn pause(&self, span: Duration) {
        tokio::time::sleep(span).await;
    }
}
