//! A request for a page, after the session was found.

use std::sync::Arc;

use keywright_domain::model::{OperatorRole, Principal};

use crate::admin::sessions::Session;
use crate::app::App;

/// A request of an operator who is signed in.
pub(super) struct OperatorRequest<'a> {
    pub(super) app: &'a Arc<App>,
    pub(super) session: &'a Session,
    pub(super) principal: Principal,
    pub(super) query: Option<&'a str>,
}

impl OperatorRequest<'_> {
    pub(super) fn may_act(&self) -> bool {
        self.session.operator.role == OperatorRole::Operator
    }
}
