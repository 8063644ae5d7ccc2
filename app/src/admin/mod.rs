//! The state behind the operators' page: who is signed in, and what happened in the last minutes.

pub(crate) mod operator_log;
pub(crate) mod recent_activity;
pub(crate) mod sessions;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use keywright_adapters::auth::{ApiKeyFileError, ApiKeyRecord, ApiKeys, read_operators};
use keywright_domain::model::{Backlog, CredentialName, Identity, Operator, Timestamp};
use keywright_domain::ports::{AuthError, Secret};
use tokio::sync::{Semaphore, watch};
use tokio::task::spawn_blocking;

use operator_log::OperatorLog;
use recent_activity::RecentActivity;
use sessions::{Credential, Sessions};

/// How many overviews are live at once.
const MAX_LIVE: usize = 50;

/// The file of the keys of operators, in the data folder.
pub(crate) const OPERATORS_FILE: &str = "operators.json";

/// The file of what operators have done, in the data folder.
const LOG_FILE: &str = "operator-log.jsonl";

/// What the operators' page needs besides the domain.
pub(crate) struct AdminService {
    operators: PathBuf,
    pub(crate) sessions: Sessions,
    pub(crate) log: OperatorLog,
    pub(crate) activity: Arc<RecentActivity>,
    /// The last count of unfinished writes. `None`: they have not been counted yet.
    pub(crate) backlog: watch::Receiver<Option<Backlog>>,
    pub(crate) live: Arc<Semaphore>,
    /// Without the sandbox, browsers send the cookie over TLS only, and no link signs anybody in.
    pub(crate) is_sandbox: bool,
    pub(crate) started_at: Timestamp,
}

/// Why an operator could not sign in.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SignInError {
    #[error(transparent)]
    Refused(#[from] AuthError),
    #[error(transparent)]
    File(#[from] ApiKeyFileError),
}

impl AdminService {
    pub(crate) fn new(
        data: &Path,
        activity: Arc<RecentActivity>,
        backlog: watch::Receiver<Option<Backlog>>,
        is_sandbox: bool,
        started_at: Timestamp,
    ) -> Self {
        Self {
            operators: data.join(OPERATORS_FILE),
            sessions: Sessions::default(),
            log: OperatorLog::new(data.join(LOG_FILE)),
            activity,
            backlog,
            live: Arc::new(Semaphore::new(MAX_LIVE)),
            is_sandbox,
            started_at,
        }
    }

    /// The operator whose key this is, and the credential by which a session is tied to it.
    ///
    /// # Errors
    /// The key is not valid, or the file of operators cannot be used.
    pub(crate) async fn verify(
        &self,
        key: &Secret,
        now: Timestamp,
    ) -> Result<(Operator, Credential), SignInError> {
        let records = self.records().await?;
        let proof = ApiKeys::new(records.clone()).verify(key, now)?;
        let record = records.into_iter().find(|record| {
            let masked = CredentialName::ApiKey(record.masked.clone());
            record.identity == proof.identity && proof.credential == Some(masked)
        });
        match record {
            Some(ApiKeyRecord {
                identity: Identity::Operator(operator),
                sha256,
                ..
            }) => Ok((operator, Credential(sha256))),
            _ => Err(AuthError::Refused("no operator has this key").into()),
        }
    }

    /// Whether the operator still has this credential, with the same role.
    pub(crate) async fn is_current(
        &self,
        operator: &Operator,
        credential: Credential,
        now: Timestamp,
    ) -> bool {
        let Ok(records) = self.records().await else {
            return false;
        };
        let identity = Identity::Operator(operator.clone());
        records.iter().any(|record| {
            record.sha256 == credential.0
                && record.identity == identity
                && record.expires_at.is_none_or(|end| now < end)
        })
    }

    /// The file is small, and operators are few, so that it is read at each request.
    async fn records(&self) -> Result<Vec<ApiKeyRecord>, ApiKeyFileError> {
        let path = self.operators.clone();
        let read = spawn_blocking(move || read_operators(&path)).await;
        read.unwrap_or_else(|_| Ok(Vec::new()))
    }
}
