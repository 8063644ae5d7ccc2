//! A request for a page, after the session was found.

use std::sync::Arc;

use keywright_domain::model::{LockId, OperatorRole, Principal, WriteId};
use tracing::error;

use crate::admin::AdminService;
use crate::admin::operator_log::OperatorAction;
use crate::admin::sessions::Session;
use crate::app::App;

/// A request of an operator who is signed in.
pub(super) struct OperatorRequest<'a> {
    pub(super) app: &'a Arc<App>,
    pub(super) session: &'a Session,
    pub(super) admin: &'a AdminService,
    pub(super) principal: Principal,
    pub(super) query: Option<&'a str>,
}

impl OperatorRequest<'_> {
    pub(super) fn may_act(&self) -> bool {
        self.session.operator.role == OperatorRole::Operator
    }

    /// Records what the operator has done. An action that cannot be recorded has taken place nevertheless, so it is logged.
    pub(super) async fn record(
        &self,
        action: &str,
        lock: Option<LockId>,
        write: Option<WriteId>,
        outcome: &str,
    ) {
        let entry = OperatorAction {
            at: self.app.clock.now().to_string(),
            operator: self.session.operator.name.to_string(),
            action: action.to_owned(),
            lock: lock.map(LockId::get),
            write: write.map(|id| id.to_string()),
            outcome: outcome.to_owned(),
        };
        if let Err(error) = self.admin.log.add(entry).await {
            error!(%error, action, outcome, operator = %self.session.operator.name, "an action of an operator cannot be recorded");
        }
    }
}
