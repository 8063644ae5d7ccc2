//! What handlers need to know of a request besides its content.

use keywright_domain::model::{RequestId, Tick};

pub(super) struct RequestContext {
    pub(super) id: RequestId,
    /// When the request must be answered.
    pub(super) deadline: Tick,
}
