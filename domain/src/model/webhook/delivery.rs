//! Deliveries: what is sent to an endpoint, what it answers, and the record of an attempt.

use std::time::Duration;

use crate::model::{EventId, OrganizationId, RecordedEvent, Timestamp};

/// What is delivered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WebhookMessage {
    /// An event of a lock.
    Event(Box<WebhookEvent>),
    /// A test that the owner of the webhook asked for.
    Test(WebhookTest),
}

/// An event of a lock, and the organization that owned the lock when the event was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebhookEvent {
    /// The event.
    pub recorded: RecordedEvent,
    /// The organization.
    pub organization: Option<OrganizationId>,
}

/// A delivery that belongs to no lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebhookTest {
    /// Identifies it.
    pub id: String,
    /// When it was made.
    pub time: Timestamp,
    /// Whose webhook is tested.
    pub organization: Option<OrganizationId>,
}

impl WebhookMessage {
    /// The type of [`WebhookMessage::Test`], beside the types of events.
    pub const TEST: &'static str = "WebhookTest";

    /// Identifies what is delivered, also if it is delivered again.
    pub fn id(&self) -> String {
        match self {
            Self::Event(event) => EventId::of(&event.recorded).to_string(),
            Self::Test(test) => test.id.clone(),
        }
    }

    /// The name of its type.
    pub fn event_type(&self) -> &'static str {
        match self {
            Self::Event(event) => event.recorded.event.name(),
            Self::Test(_) => Self::TEST,
        }
    }
}

/// The answer of an endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointAnswer {
    /// The HTTP status.
    pub status: u16,
    /// The value of `Retry-After`, if it is a number of seconds.
    pub retry_after: Option<Duration>,
    /// The beginning of the body, at most [`EndpointAnswer::MAX_BODY`] bytes.
    pub body: String,
}

impl EndpointAnswer {
    /// How much of a body is recorded, in bytes.
    pub const MAX_BODY: usize = 1024;
}

/// Why there is no answer of an endpoint. The text is for the owner of the webhook.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoAnswer {
    /// The endpoint did not answer in time.
    #[error("no answer in time")]
    Timeout,
    /// The host has an address to which nothing is delivered.
    #[error("{0}")]
    ForbiddenAddress(String),
    /// The name of the host cannot be resolved.
    #[error("the name of the host cannot be resolved: {0}")]
    Unresolved(String),
    /// There is no connection, or it broke before the answer.
    #[error("{0}")]
    Connection(String),
}

/// What came of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DeliveryOutcome {
    /// The endpoint accepted it (2xx).
    Delivered,
    /// It failed and is tried again.
    Failed,
    /// The endpoint refused it, and it is not tried again (4xx).
    Rejected,
    /// It failed, and it was the last attempt.
    GivenUp,
}

impl DeliveryOutcome {
    /// All outcomes.
    pub const ALL: [Self; 4] = [Self::Delivered, Self::Failed, Self::Rejected, Self::GivenUp];

    /// The names of all outcomes.
    pub const NAMES: [&'static str; 4] = ["delivered", "failed", "rejected", "given-up"];

    /// The name in answers of the API, in metrics and in stores.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Delivered => Self::NAMES[0],
            Self::Failed => Self::NAMES[1],
            Self::Rejected => Self::NAMES[2],
            Self::GivenUp => Self::NAMES[3],
        }
    }

    /// The outcome with this name.
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|outcome| outcome.name() == name)
    }
}

/// The record of an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeliveryRecord {
    /// Its number, which grows with time. The store gives it.
    pub number: u64,
    /// What was delivered, see [`WebhookMessage::id`].
    pub message: String,
    /// The name of its type.
    pub event_type: &'static str,
    /// When the attempt began.
    pub at: Timestamp,
    /// How long it took.
    pub took: Duration,
    /// What came of it.
    pub outcome: DeliveryOutcome,
    /// What the endpoint answered, or why it did not.
    pub answer: Result<EndpointAnswer, NoAnswer>,
    /// When it is tried again. `None`: it is not.
    pub next_attempt: Option<Timestamp>,
}

impl DeliveryRecord {
    /// How many records of deliveries of a webhook are kept: of those that succeeded, and of the others.
    pub const KEPT: u64 = 250;
}
