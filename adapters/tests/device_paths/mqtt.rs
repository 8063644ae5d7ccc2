//! MQTT against mosquitto, with our shadow service behind it.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use keywright_adapters::shadow::MqttShadow;
use keywright_mqtt::mosquitto::Mosquitto;
use keywright_mqtt::{Broker, TlsFiles};
use keywright_shadow::mqtt::{Delivery, Disorder, Limits, MqttFrontend, Options};
use keywright_testkit::faulty_transport::{ANSWER_TIMEOUT, TransportFault};
use keywright_testkit::tcp_proxy::TcpProxy;
use keywright_testkit::{faulty_transport_cases, shadow_port_cases};

use crate::proxy::{self, Answers};
use crate::{Between, Kept, Locks, NAME, Shared, service};

type Reached = Kept<(MqttFrontend, Mosquitto, TcpProxy)>;

/// What the trouble does to the service's answers; they overtake each other within 50 ms.
fn disorder(trouble: Shared) -> Disorder {
    Arc::new(move |topic, _| {
        let now = *trouble.lock().expect("no panic");
        if !topic.ends_with("/accepted") {
            return Delivery::NORMAL;
        }
        match now {
            TransportFault::AnswersLost => Delivery {
                copies: 0,
                ..Delivery::NORMAL
            },
            TransportFault::AnswersLate(after) => Delivery { copies: 1, after },
            TransportFault::AnswersReordered => Delivery {
                copies: 2,
                after: Duration::from_millis(fastrand::u64(0..50)),
            },
            TransportFault::None | TransportFault::Throttled | TransportFault::Disconnect => {
                Delivery::NORMAL
            }
        }
    })
}

async fn fresh_with(shards: &[String]) -> (Reached, Arc<Locks>, Arc<Between>) {
    let (broker, service) = (Mosquitto::start(), service());
    let trouble = Arc::new(Mutex::new(TransportFault::None));
    let at = |port: u16| {
        let url = format!("mqtt://127.0.0.1:{port}")
            .parse()
            .expect("an address");
        Broker::new(url, &TlsFiles::default()).expect("a broker")
    };
    let server = ([127, 0, 0, 1], broker.port()).into();
    let proxy = proxy::start(server, trouble.clone(), Answers::Mqtt).await;
    let options = Options {
        disorder: Some(disorder(trouble.clone())),
    };
    let mut attached = MqttFrontend::start(service.clone(), at(broker.port()), options);
    attached.wait_until_up().await.expect("attached");
    let shadow = MqttShadow::start(
        &at(proxy.address.port()),
        "backend",
        shards,
        Limits::OWN_BROKER,
        ANSWER_TIMEOUT,
    );
    for mut up in shadow.up() {
        up.wait_for(|up| *up).await.expect("it connects");
    }
    let reached = Kept::new(shadow, (attached, broker, proxy));
    let between = Between {
        trouble,
        service: service.clone(),
    };
    (reached, Arc::new(Locks(service)), Arc::new(between))
}

async fn fresh() -> (Reached, Arc<Locks>, Arc<Between>) {
    fresh_with(&[NAME.to_owned()]).await
}

async fn undisturbed() -> (Reached, Arc<Locks>) {
    let (port, device, _) = fresh().await;
    (port, device)
}

shadow_port_cases!(undisturbed);
faulty_transport_cases!(fresh);
