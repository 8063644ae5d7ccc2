//! MQTT over mosquitto with our shadow service.

use std::sync::Arc;
use std::time::Duration;

use keywright_adapters::shadow::MqttShadow;
use keywright_mqtt::mosquitto::Mosquitto;
use keywright_mqtt::{Broker, TlsFiles};
use keywright_shadow::mqtt::{ClientLimits, Delivery, Disorder, MqttFrontend, Options};
use keywright_testkit::faulty_transport::{ANSWER_TIMEOUT, CurrentFault, TransportFault};
use keywright_testkit::tcp_proxy::TcpProxy;

use crate::{Connected, FaultyTransport, Locks, NAME, proxy, service};

type Port = Connected<(MqttFrontend, Mosquitto, TcpProxy)>;

/// The fault of the service's answers. Disordered ones are delayed by up to 50 ms.
fn disorder(fault: CurrentFault) -> Disorder {
    Arc::new(move |topic, _| {
        if !topic.ends_with("/accepted") {
            return Delivery::NORMAL;
        }
        // The proxy takes the faults of connections.
        let is_of_connection = matches!(
            fault.get().0,
            TransportFault::Disconnect | TransportFault::AnswersTorn
        );
        if is_of_connection {
            return Delivery::NORMAL;
        }
        match fault.take() {
            TransportFault::AnswersLost => Delivery {
                copies: 0,
                ..Delivery::NORMAL
            },
            TransportFault::AnswersLate(delay) => Delivery { copies: 1, delay },
            TransportFault::AnswersReordered => Delivery {
                copies: 2,
                delay: Duration::from_millis(fastrand::u64(0..50)),
            },
            _ => Delivery::NORMAL,
        }
    })
}

async fn fresh_with(shards: &[String]) -> (Port, Arc<Locks>, Arc<FaultyTransport>) {
    let (broker, service) = (Mosquitto::start(), service());
    let fault = CurrentFault::default();
    let at = |port: u16| {
        let url = format!("mqtt://127.0.0.1:{port}")
            .parse()
            .expect("an address");
        Broker::new(url, &TlsFiles::default()).expect("a broker")
    };
    let server = ([127, 0, 0, 1], broker.port()).into();
    let proxy = proxy::mqtt(server, fault.clone()).await;
    let refusal = proxy.refusal();
    let options = Options {
        disorder: Some(disorder(fault.clone())),
    };
    let mut frontend = MqttFrontend::start(service.clone(), at(broker.port()), options);
    frontend.wait_until_up().await.expect("attached");
    let shadow = MqttShadow::start(
        &at(proxy.address.port()),
        "backend",
        shards,
        ClientLimits::SELF_HOSTED,
        ANSWER_TIMEOUT,
    );
    for mut up in shadow.up() {
        up.wait_for(|up| *up).await.expect("it connects");
    }
    let port = Connected::new(shadow, (frontend, broker, proxy));
    let transport = FaultyTransport {
        fault,
        service: service.clone(),
        refusal,
    };
    (port, Arc::new(Locks(service)), Arc::new(transport))
}

async fn fixture() -> (Port, Arc<Locks>, Arc<FaultyTransport>) {
    fresh_with(&[NAME.to_owned()]).await
}

async fn without_faults() -> (Port, Arc<Locks>) {
    let (port, device, _) = fixture().await;
    (port, device)
}

mod contract {
    use keywright_testkit::{faulty_transport_cases, shadow_port_cases};

    shadow_port_cases!(super::without_faults);
    // The service rejects nothing by 500 and 403; `outcomes.rs` tests these codes.
    faulty_transport_cases! { super::fixture:
        lost_answer_is_unknown,
        lost_update_is_not_sent_again,
        torn_answer_is_unknown,
        broken_connection_is_unknown_and_reestablished,
        late_answer_is_not_taken_for_another_request,
        reordered_answers_reach_their_requests,
        throttled_update_is_refused,
        update_without_a_connection_is_no_refusal,
        failed_read_is_an_error
    }
}
