/// The client id, session type and subscriptions of a client.
#[derive(Clone, Debug)]
pub struct SessionOptions {
    /// Must be unique on the broker: a second connection with the same client id ends the first.
    pub client_id: String,
    /// The topic filters to subscribe to, at QoS 1.
    pub filters: Vec<String>,
    /// Whether the broker keeps the subscriptions, and messages of QoS 1, while the client is not connected.
    pub persistent_session: bool,
    /// `true`: the handler acknowledges each message. `false`: messages are acknowledged on arrival.
    pub manual_acks: bool,
}
