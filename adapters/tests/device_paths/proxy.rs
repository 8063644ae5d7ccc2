//! Injects the current fault into TCP connections. Over MQTT, where the frontend disturbs single answers, it only cuts or tears the
//! connection when an answer arrives.

use std::net::SocketAddr;
use std::sync::Mutex;

use keywright_testkit::faulty_transport::{CurrentFault, TransportFault};
use keywright_testkit::tcp_proxy::{Direction, Forwarding, TcpProxy};

/// An answer with this status.
fn answer(status: u16) -> &'static str {
    match status {
        401 => "HTTP/1.1 401 Unauthorized\r\ncontent-length: 2\r\n\r\n{}",
        403 => "HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\n\r\n{}",
        502 => "HTTP/1.1 502 Bad Gateway\r\ncontent-length: 2\r\n\r\n{}",
        503 => "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 2\r\n\r\n{}",
        504 => "HTTP/1.1 504 Gateway Timeout\r\ncontent-length: 2\r\n\r\n{}",
        _ => "HTTP/1.1 500 Internal Server Error\r\ncontent-length: 2\r\n\r\n{}",
    }
}

/// Forwards connections over HTTP to `server`, and injects the current fault.
pub(crate) async fn http(server: SocketAddr, fault: CurrentFault) -> TcpProxy {
    // The fault of the request whose answer comes next: the port makes one request at a time while there is a fault.
    let of_request = Mutex::new(TransportFault::None);
    TcpProxy::start(server, move |direction, bytes| {
        let mut of_request = of_request.lock().expect("no panic");
        if direction == Direction::ToServer {
            if bytes.starts_with(b"POST ") || bytes.starts_with(b"GET ") {
                *of_request = fault.take();
            }
            return match *of_request {
                TransportFault::NotAuthorized(status) => Forwarding::Answer(answer(status)),
                _ => Forwarding::Pass,
            };
        }
        match *of_request {
            TransportFault::Disconnect => Forwarding::Disconnect,
            TransportFault::AnswersLost => Forwarding::Drop,
            TransportFault::AnswersLate(span) => Forwarding::Delay(span),
            TransportFault::AnswersTorn => Forwarding::Tear,
            TransportFault::ServerError(status) => Forwarding::Answer(answer(status)),
            _ => Forwarding::Pass,
        }
    })
    .await
}

/// Forwards connections over MQTT to `server`, and breaks them when an answer arrives and that is the current fault.
pub(crate) async fn mqtt(server: SocketAddr, fault: CurrentFault) -> TcpProxy {
    TcpProxy::start(server, move |direction, bytes| {
        let is_answer = bytes.windows(9).any(|w| w == b"/accepted");
        if direction == Direction::ToServer || !is_answer {
            return Forwarding::Pass;
        }
        let forwarding = match fault.get().0 {
            TransportFault::Disconnect => Forwarding::Disconnect,
            TransportFault::AnswersTorn => Forwarding::Tear,
            _ => return Forwarding::Pass,
        };
        fault.take();
        forwarding
    })
    .await
}
