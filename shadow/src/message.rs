//! What the service says: to the one who asks, and to everyone who listens.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::engine::{Document, Patch, Request, put_token};
use crate::name::ShadowName;

/// What the service tells everyone after a request was accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageKind {
    /// An update was accepted.
    UpdateAccepted,
    /// Every difference after an accepted update; only where there is one.
    UpdateDelta,
    /// The document before and after an accepted update.
    UpdateDocuments,
    /// A shadow was deleted.
    DeleteAccepted,
}

impl MessageKind {
    /// The end of its MQTT topic.
    pub const fn topic_suffix(self) -> &'static str {
        match self {
            Self::UpdateAccepted => "update/accepted",
            Self::UpdateDelta => "update/delta",
            Self::UpdateDocuments => "update/documents",
            Self::DeleteAccepted => "delete/accepted",
        }
    }
}

/// What is told of an update, in this order.
pub(crate) const UPDATED: &[MessageKind] =
    &[MessageKind::UpdateAccepted, MessageKind::UpdateDocuments];

/// The same where the shadow has a difference then.
pub(crate) const UPDATED_WITH_DIFFERENCE: &[MessageKind] = &[
    MessageKind::UpdateAccepted,
    MessageKind::UpdateDelta,
    MessageKind::UpdateDocuments,
];

/// What everyone is told of one change: a message or several, in their order.
#[derive(Clone, Debug, PartialEq)]
pub struct Announcement {
    /// The thing.
    pub thing: String,
    /// Its shadow.
    pub shadow: ShadowName,
    /// The shadow's version.
    pub version: u64,
    pub(crate) kinds: &'static [MessageKind],
    pub(crate) payload: Payload,
}

impl Announcement {
    /// The messages.
    pub fn messages(&self) -> impl Iterator<Item = Message<'_>> {
        let of = self;
        self.kinds
            .iter()
            .map(move |kind| Message { of, kind: *kind })
    }

    /// The message of this kind, if it is one of them.
    pub fn message(&self, kind: MessageKind) -> Option<Message<'_>> {
        self.messages().find(|message| message.kind == kind)
    }

    /// Whether it tells of an update that changed what is reported.
    pub fn has_reported(&self) -> bool {
        match &self.payload {
            Payload::Update(update) => update.request.reported() != Patch::Keep,
            Payload::Body(_) => false,
        }
    }
}

/// One message.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Message<'a> {
    /// What it is of.
    pub of: &'a Announcement,
    /// What it tells.
    pub kind: MessageKind,
}

impl Message<'_> {
    /// The message itself.
    pub fn body(&self) -> Value {
        self.of.payload.body(self.kind)
    }
}

/// The answer to a request that was done.
#[derive(Clone, Debug, PartialEq)]
pub struct Accepted {
    /// The shadow's version.
    pub version: u64,
    pub(crate) payload: Payload,
}

impl Accepted {
    /// The answer.
    pub fn body(&self) -> Value {
        self.payload.body(MessageKind::UpdateAccepted)
    }
}

/// What is told. Of an update everything can be told and most is not, so that it is put together where somebody wants to
/// hear it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Payload {
    Body(Value),
    Update(Arc<Update>),
}

impl Payload {
    fn body(&self, kind: MessageKind) -> Value {
        match self {
            Self::Body(body) => body.clone(),
            Self::Update(update) => update.body(kind),
        }
    }
}

/// An update that was accepted.
#[derive(Debug, PartialEq)]
pub(crate) struct Update {
    pub(crate) request: Request,
    pub(crate) previous: Option<Arc<Document>>,
    pub(crate) current: Arc<Document>,
    /// In epoch seconds.
    pub(crate) now: u64,
}

impl Update {
    fn body(&self, kind: MessageKind) -> Value {
        let mut body = match kind {
            MessageKind::UpdateDelta => self.current.delta_body(self.now).unwrap_or_default(),
            MessageKind::UpdateDocuments => {
                let previous = self
                    .previous
                    .as_ref()
                    .map(|document| document.stored_body());
                let current = self.current.stored_body();
                json!({ "previous": previous, "current": current, "timestamp": self.now })
            }
            _ => return self.request.accepted_body(self.current.version, self.now),
        };
        put_token(&mut body, self.request.client_token.as_deref());
        body
    }
}
