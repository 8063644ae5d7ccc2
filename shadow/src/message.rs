//! The messages of the service: answers to requests, and announcements to all subscribers.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::engine::{Document, Patch, Request, put_token};
use crate::name::ShadowName;

/// The kinds of messages that the service publishes after an accepted request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageKind {
    /// The answer to an accepted update.
    UpdateAccepted,
    /// The whole delta after an accepted update; only published if there is one.
    UpdateDelta,
    /// The document before and after an accepted update.
    UpdateDocuments,
    /// The answer to an accepted deletion.
    DeleteAccepted,
}

impl MessageKind {
    /// The end of the MQTT topic.
    pub const fn topic_suffix(self) -> &'static str {
        match self {
            Self::UpdateAccepted => "update/accepted",
            Self::UpdateDelta => "update/delta",
            Self::UpdateDocuments => "update/documents",
            Self::DeleteAccepted => "delete/accepted",
        }
    }
}

/// The messages of an update without a delta, in the order in which they are published.
pub(crate) const UPDATE_MESSAGES: &[MessageKind] =
    &[MessageKind::UpdateAccepted, MessageKind::UpdateDocuments];

/// The messages of an update with a delta, in the order in which they are published.
pub(crate) const UPDATE_MESSAGES_WITH_DELTA: &[MessageKind] = &[
    MessageKind::UpdateAccepted,
    MessageKind::UpdateDelta,
    MessageKind::UpdateDocuments,
];

/// The messages that one change publishes.
#[derive(Clone, Debug, PartialEq)]
pub struct Announcement {
    /// The thing.
    pub thing: String,
    /// Its shadow.
    pub shadow: ShadowName,
    /// The shadow's version; of a deletion, that of the deleted document.
    pub version: u64,
    pub(crate) kinds: &'static [MessageKind],
    pub(crate) payload: Payload,
}

impl Announcement {
    /// The messages, in the order in which they are published.
    pub fn messages(&self) -> impl Iterator<Item = Message<'_>> {
        self.kinds.iter().map(|kind| Message {
            announcement: self,
            kind: *kind,
        })
    }

    /// The message of this kind, if the announcement has one.
    pub fn message(&self, kind: MessageKind) -> Option<Message<'_>> {
        self.messages().find(|message| message.kind == kind)
    }

    /// Whether the announcement is of an update whose request names `reported`.
    pub fn has_reported(&self) -> bool {
        match &self.payload {
            Payload::Update(update) => update.request.reported() != Patch::Keep,
            Payload::Body(_) => false,
        }
    }
}

/// One message of an announcement.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Message<'a> {
    /// The announcement.
    pub announcement: &'a Announcement,
    /// The kind of this message.
    pub kind: MessageKind,
}

impl Message<'_> {
    /// Builds the body.
    pub fn body(&self) -> Value {
        self.announcement.payload.body(self.kind)
    }
}

/// The answer to an accepted request.
#[derive(Clone, Debug, PartialEq)]
pub struct Accepted {
    /// The shadow's version; of a deletion, that of the deleted document.
    pub version: u64,
    pub(crate) payload: Payload,
}

impl Accepted {
    /// Builds the body.
    pub fn body(&self) -> Value {
        self.payload.body(MessageKind::UpdateAccepted)
    }
}

/// The source of message bodies. Those of an update are built when a subscriber needs them, because most are never needed.
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

/// An accepted update.
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
                let previous = self.previous.as_ref().map(|d| d.stored_body());
                let current = self.current.stored_body();
                json!({ "previous": previous, "current": current, "timestamp": self.now })
            }
            MessageKind::UpdateAccepted | MessageKind::DeleteAccepted => {
                return self.request.accepted_body(self.current.version, self.now);
            }
        };
        put_token(&mut body, self.request.client_token.as_deref());
        body
    }
}
