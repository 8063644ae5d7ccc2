//! The AWS SDK with our REST service.

use std::sync::Arc;
use std::time::Duration;

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use keywright_adapters::shadow::{AwsSettings, AwsShadow};
use keywright_shadow::rest;
use keywright_testkit::faulty_transport::{ANSWER_TIMEOUT, CurrentFault};
use keywright_testkit::tcp_proxy::TcpProxy;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::{Connected, FaultyTransport, Locks, NAME, proxy, service};

pub(crate) fn sdk_config() -> SdkConfig {
    let credentials = Credentials::new("AKIDEXAMPLE", "secret", None, None, "test");
    SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("eu-west-1"))
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .build()
}

pub(crate) fn at(endpoint: String, timeout: Duration) -> AwsShadow {
    let settings = AwsSettings {
        endpoint: Some(endpoint),
        region: None,
        shadow: NAME.into(),
        timeout,
    };
    AwsShadow::new(&sdk_config(), settings)
}

type Port = Connected<(TcpProxy, JoinSet<()>)>;

async fn fixture() -> (Port, Arc<Locks>, Arc<FaultyTransport>) {
    let service = service();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let server = listener.local_addr().expect("an address");
    let fault = CurrentFault::default();
    let proxy = proxy::http(server, fault.clone()).await;
    let (address, refusal) = (proxy.address, proxy.refusal());
    let mut tasks = JoinSet::new();
    tasks.spawn(rest::serve(
        listener,
        service.clone(),
        std::future::pending(),
    ));
    let port = Connected::new(
        at(format!("http://{address}"), ANSWER_TIMEOUT),
        (proxy, tasks),
    );
    let transport = FaultyTransport {
        fault,
        service: service.clone(),
        refusal,
    };
    (port, Arc::new(Locks(service)), Arc::new(transport))
}

async fn without_faults() -> (Port, Arc<Locks>) {
    let (port, device, _) = fixture().await;
    (port, device)
}

mod contract {
    use keywright_testkit::{faulty_transport_cases, shadow_port_cases};

    shadow_port_cases!(super::without_faults);
    // An HTTP connection answers one request at a time, so that answers cannot be reordered.
    faulty_transport_cases! { super::fixture:
        lost_answer_is_unknown,
        lost_update_is_not_sent_again,
        server_error_is_unknown,
        torn_answer_is_unknown,
        broken_connection_is_unknown_and_reestablished,
        late_answer_is_not_taken_for_another_request,
        throttled_update_is_refused,
        forbidden_update_is_refused,
        update_without_a_connection_is_no_refusal,
        failed_read_is_an_error
    }
}
