//! The contract of `DeviceReports` over MQTT and over HTTP. `PollingReports` delivers no reports, so no case is about it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use keywright_domain::model::ThingName;
use keywright_testkit::device_reports::ReportSource;
use keywright_testkit::device_reports_cases;
use serde_json::{Value, json};

mod mqtt {
    use std::ops::Deref;

    use keywright_adapters::reports::MqttReports;
    use keywright_domain::ports::DeviceReports;
    use keywright_mqtt::mosquitto::Mosquitto;
    use keywright_mqtt::{Broker, TlsFiles};
    use keywright_shadow::mqtt::{MqttFrontend, Options};
    use keywright_shadow::{ShadowName, ShadowService};
    use keywright_testkit::tcp_proxy::{Forwarding, Refusal, TcpProxy};

    use super::*;
    use crate::{NAME, service};

    /// A shadow service whose messages reach the stream through a proxy.
    struct Service {
        service: ShadowService,
        refusal: Refusal,
    }

    #[async_trait]
    impl ReportSource for Service {
        async fn report(&self, thing: &ThingName, results: &Value) {
            let body =
                json!({ "state": { "reported": { "writeKeyResult": results } } }).to_string();
            let name = ShadowName::Named(NAME.into());
            let accepted = self.service.update(thing.as_str(), &name, body.as_bytes());
            accepted.await.expect("a report");
        }

        async fn interrupt(&self) {
            self.refusal.set(true).await;
            self.refusal.set(false).await;
        }

        async fn is_settled(&self) -> bool {
            unreachable!("the broker does not learn that a report is settled")
        }
    }

    struct Reports {
        reports: MqttReports,
        _servers: (MqttFrontend, Mosquitto, TcpProxy),
    }

    impl Deref for Reports {
        type Target = dyn DeviceReports;

        fn deref(&self) -> &Self::Target {
            &self.reports
        }
    }

    async fn fixture() -> (Reports, Arc<Service>) {
        let (broker, service) = (Mosquitto::start(), service());
        let at = |port: u16| {
            let url = format!("mqtt://127.0.0.1:{port}").parse();
            Broker::new(url.expect("an address"), &TlsFiles::default()).expect("a broker")
        };
        let server = ([127, 0, 0, 1], broker.port()).into();
        let proxy = TcpProxy::start(server, |_, _| Forwarding::Pass).await;
        let refusal = proxy.refusal();
        let mut frontend =
            MqttFrontend::start(service.clone(), at(broker.port()), Options::default());
        frontend.wait_until_up().await.expect("attached");
        let backend = at(proxy.address.port());
        let reports = MqttReports::start(&backend, "backend-reports", &[NAME.to_owned()]);
        // The stream begins with a request to reconcile. Until then it is not subscribed.
        reports.next().await.expect("the stream goes on");
        let reports = Reports {
            reports,
            _servers: (frontend, broker, proxy),
        };
        let source = Service { service, refusal };
        (reports, Arc::new(source))
    }

    device_reports_cases! { fixture:
        report_is_delivered_with_its_results,
        interruption_is_followed_by_resumed,
        dropped_wait_loses_no_item
    }
}

mod http {
    use keywright_adapters::reports::HttpReports;

    use super::*;

    /// A client that posts reports and waits for the answers.
    struct Client {
        reports: Arc<HttpReports>,
        is_settled: Arc<AtomicBool>,
    }

    #[async_trait]
    impl ReportSource for Client {
        async fn report(&self, thing: &ThingName, results: &Value) {
            let body = json!({
                "thing": thing.as_str(), "previous": {},
                "current": { "version": 2, "state": { "reported": { "writeKeyResult": results } } },
            });
            self.is_settled.store(false, Ordering::SeqCst);
            let (reports, is_settled) = (self.reports.clone(), self.is_settled.clone());
            tokio::spawn(async move {
                let delivered = reports.deliver(body.to_string().as_bytes()).await;
                is_settled.store(delivered.is_ok(), Ordering::SeqCst);
            });
        }

        async fn interrupt(&self) {
            unreachable!(
                "a client that gets no answer posts its report again, so that none is missed"
            )
        }

        async fn is_settled(&self) -> bool {
            self.is_settled.load(Ordering::SeqCst)
        }
    }

    async fn fixture() -> (Arc<HttpReports>, Arc<Client>) {
        let reports = Arc::new(HttpReports::new());
        let client = Client {
            reports: reports.clone(),
            is_settled: Arc::default(),
        };
        (reports, Arc::new(client))
    }

    device_reports_cases! { fixture:
        report_is_delivered_with_its_results,
        report_is_settled_only_by_its_acknowledgement,
        dropped_wait_loses_no_item
    }
}
