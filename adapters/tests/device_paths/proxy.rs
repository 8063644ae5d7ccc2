//! The trouble of the moment, on the way of TCP. Over MQTT, where answers are disturbed one by one elsewhere, only
//! connections are cut, by an answer that comes.

use std::net::SocketAddr;

use keywright_testkit::faulty_transport::TransportFault;
use keywright_testkit::tcp_proxy::{Direction, Forwarding, TcpProxy};

use crate::Shared;

/// What an answer is on this way.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answers {
    /// Whatever the server sends.
    Http,
    /// What names a topic of answers.
    Mqtt,
}

/// Passes connections on to `server`; what comes back meets the trouble of the moment.
pub(crate) async fn start(server: SocketAddr, trouble: Shared, answers: Answers) -> TcpProxy {
    TcpProxy::start(server, move |direction, bytes| {
        if direction == Direction::ToServer {
            return Forwarding::Pass;
        }
        let http = answers == Answers::Http;
        let is_answer = http || bytes.windows(9).any(|w| w == b"/accepted");
        match *trouble.lock().expect("no panic") {
            TransportFault::Disconnect if is_answer => Forwarding::Disconnect,
            TransportFault::AnswersLost if http => Forwarding::Drop,
            TransportFault::AnswersLate(span) if http => Forwarding::Delay(span),
            _ => Forwarding::Pass,
        }
    })
    .await
}
