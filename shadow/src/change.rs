//! What an accepted request changes, decided without I/O.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::engine::{Document, Limits, Rejected, Request, put_token};
use crate::message::{
    Accepted, MessageKind, Payload, UPDATE_MESSAGES, UPDATE_MESSAGES_WITH_DELTA, Update,
};
use crate::name::ShadowKey;
use crate::record::Record;

/// The effect of an accepted request. It is stored before anything is published.
#[derive(Clone)]
pub(crate) struct Change {
    pub(crate) record: Record,
    /// The messages that all subscribers get.
    pub(crate) published: &'static [MessageKind],
    pub(crate) answer: Accepted,
}

impl Change {
    /// An update at `now` (epoch seconds).
    ///
    /// # Errors
    /// The request expects another version (409), or the document becomes too large (413).
    pub(crate) fn update(
        record: Option<&Record>,
        request: Request,
        limits: &Limits,
        now: u64,
    ) -> Result<Self, Rejected> {
        let previous = record.and_then(Record::document).cloned();
        let new = Document {
            version: record.map_or(0, |record| record.version_before_creation(now)),
            ..Document::default()
        };
        let base = previous.as_deref().unwrap_or(&new);
        let current = Arc::new(base.update(&request, limits, now)?);
        let (version, record) = (current.version, Record::Live(current.clone()));
        let published = match current.has_delta() {
            true => UPDATE_MESSAGES_WITH_DELTA,
            false => UPDATE_MESSAGES,
        };
        let payload = Payload::Update(Arc::new(Update {
            request,
            previous,
            current,
            now,
        }));
        Ok(Self {
            record,
            published,
            answer: Accepted { version, payload },
        })
    }

    /// A deletion at `now` (epoch seconds).
    ///
    /// # Errors
    /// There is no such shadow (404).
    pub(crate) fn delete(
        key: &ShadowKey,
        record: Option<&Record>,
        token: Option<String>,
        now: u64,
    ) -> Result<Self, Rejected> {
        let Some(document) = record.and_then(Record::document) else {
            return Err(no_such_shadow(key, token));
        };
        let version = document.version;
        let mut body = json!({ "version": version, "timestamp": now });
        put_token(&mut body, token.as_deref());
        Ok(Self {
            record: Record::Tombstone {
                version: version + 1,
                deleted_at: now,
            },
            published: &[MessageKind::DeleteAccepted],
            answer: Accepted {
                version,
                payload: Payload::Body(body),
            },
        })
    }

    /// Replaces the record without publishing a message.
    pub(crate) const fn replace(record: Record) -> Self {
        Self {
            record,
            published: &[],
            answer: Accepted {
                version: 0,
                payload: Payload::Body(Value::Null),
            },
        }
    }
}

pub(crate) fn no_such_shadow(key: &ShadowKey, token: Option<String>) -> Rejected {
    Rejected::new(404, format!("No shadow exists with name: '{key}'"), token)
}
