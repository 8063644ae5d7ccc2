//! Injects the current fault into TCP connections. Over MQTT, where the frontend disturbs single answers, it only cuts the
//! connection when an answer arrives.

use std::net::SocketAddr;

use keywright_testkit::faulty_transport::TransportFault;
use keywright_testkit::tcp_proxy::{Direction, Forwarding, TcpProxy};

use crate::SharedFault;

/// Which bytes of the server are answers.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answers {
    /// All of them.
    Http,
    /// Those with a topic of answers.
    Mqtt,
}

/// Forwards connections to `server`, and injects the current fault into its answers.
pub(crate) async fn start(server: SocketAddr, fault: SharedFault, answers: Answers) -> TcpProxy {
    TcpProxy::start(server, move |direction, bytes| {
        if direction == Direction::ToServer {
            return Forwarding::Pass;
        }
        let is_http = answers == Answers::Http;
        let is_answer = is_http || bytes.windows(9).any(|w| w == b"/accepted");
        match *fault.lock().expect("no panic") {
            TransportFault::Disconnect if is_answer => Forwarding::Disconnect,
            TransportFault::AnswersLost if is_http => Forwarding::Drop,
            TransportFault::AnswersLate(span) if is_http => Forwarding::Delay(span),
            _ => Forwarding::Pass,
        }
    })
    .await
}
