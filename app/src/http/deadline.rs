//! The deadline of a request.

use keywright_domain::model::Tick;
use tracing::error;

use super::api_error::ApiError;
use crate::app::App;

/// Runs work that changes nothing, until the deadline of its request.
///
/// # Errors
/// 503 if the work is not done by then; it is dropped.
pub(super) async fn run_until<T>(
    app: &App,
    deadline: Tick,
    work: impl Future<Output = Result<T, ApiError>>,
) -> Result<T, ApiError> {
    // The timer starts only if the work has to wait.
    let over = async { app.timer.sleep_until(deadline).await };
    tokio::select! {
        biased;
        outcome = work => outcome,
        () = over => {
            error!("the deadline of the request has passed");
            Err(ApiError::Unavailable)
        }
    }
}
