//! The adapters that reach locks, against the real thing: the AWS SDK over HTTP, MQTT over mosquitto.

mod aws_sdk;
mod moto;
mod mqtt;
mod outcomes;
mod proxy;
mod reports;

use std::ops::Deref;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use keywright_domain::model::ThingName;
use keywright_domain::ports::ShadowPort;
use keywright_shadow::{Limits, ServiceConfig, ShadowName, ShadowService};
use keywright_testkit::faulty_transport::{Transport, TransportFault};
use keywright_testkit::shadow_port::Device;

const NAME: &str = "keys";

fn service() -> ShadowService {
    ShadowService::in_memory(ServiceConfig {
        clock: Arc::new(|| 1_780_000_000),
        limits: Limits::default(),
    })
}

/// The lock's side, on the service itself.
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
}

/// A port, with what has to live as long as it is used.
struct Kept<T> {
    port: Box<dyn ShadowPort>,
    _with: T,
}

impl<T> Kept<T> {
    fn new(port: impl ShadowPort + 'static, with: T) -> Self {
        let port = Box::new(port);
        Self { port, _with: with }
    }
}

impl<T> Deref for Kept<T> {
    type Target = dyn ShadowPort;

    fn deref(&self) -> &Self::Target {
        &*self.port
    }
}

/// What is wrong between a port and the service, for the proxy and the fronts to see.
type Shared = Arc<Mutex<TransportFault>>;

struct Between {
    trouble: Shared,
    service: ShadowService,
}

#[async_trait]
impl Transport for Between {
    async fn set(&self, trouble: TransportFault) {
        *self.trouble.lock().expect("no panic") = trouble;
        let throttled = trouble == TransportFault::Throttled;
        self.service.limit_requests(throttled.then_some(0));
    }

    async fn pause(&self, span: Duration) {
        tokio::time::sleep(span).await;
    }
}
