//! API keys in a PostgreSQL database.

use keywright_domain::model::{Identity, OrganizationId, Timestamp};
use keywright_domain::ports::RepoError;
use tokio_postgres::Row;

use super::api_key::{ApiKeyRecord, LastUsed};
use crate::postgres::PostgresPool;

/// The hashes of API keys, which replicas share.
#[derive(Clone)]
pub struct PostgresApiKeys {
    pool: PostgresPool,
}

impl PostgresApiKeys {
    /// The keys in this database.
    pub const fn new(pool: PostgresPool) -> Self {
        Self { pool }
    }

    /// All keys in the order in which they were issued.
    ///
    /// # Errors
    /// [`RepoError::Unavailable`], [`RepoError::Corrupt`].
    pub async fn read(&self) -> Result<Vec<ApiKeyRecord>, RepoError> {
        let sql = "SELECT sha256, shown, organization, expires_at FROM api_keys ORDER BY number";
        let rows = self.pool.read(sql, &[]).await?;
        rows.iter().map(record).collect()
    }

    /// Inserts new keys and updates the expiry of known ones, atomically. An expiry only moves to an earlier time, so that
    /// a key which one process has revoked is not restored by another process that read it earlier. Only keys of organizations are
    /// stored; others are skipped, because API keys are issued to organizations.
    ///
    /// # Errors
    /// [`RepoError::Unavailable`], [`RepoError::Unknown`].
    pub async fn put(&self, records: &[ApiKeyRecord]) -> Result<(), RepoError> {
        let is_of_organization = |r: &&ApiKeyRecord| {
            matches!(
                r.identity,
                Identity::Organization(_) | Identity::EveryOrganization
            )
        };
        let records: Vec<&ApiKeyRecord> = records.iter().filter(is_of_organization).collect();
        let hashes: Vec<&[u8]> = records.iter().map(|r| &r.sha256[..]).collect();
        let shown: Vec<&str> = records.iter().map(|r| r.masked.as_str()).collect();
        let organizations: Vec<Option<&str>> = records
            .iter()
            .map(|r| match &r.identity {
                Identity::Organization(organization) => Some(organization.as_str()),
                Identity::EveryOrganization
                | Identity::User(_)
                | Identity::Subject(_)
                | Identity::Operator(_) => None,
            })
            .collect();
        let expiries: Vec<Option<i64>> = records.iter().map(|r| r.expires_at.map(millis)).collect();
        let sql = "INSERT INTO api_keys (sha256, shown, organization, expires_at)
            SELECT * FROM unnest($1::bytea[], $2::text[], $3::text[], $4::bigint[])
            ON CONFLICT (sha256) DO UPDATE SET expires_at = least(api_keys.expires_at, excluded.expires_at)";
        self.pool
            .change(sql, &[&hashes, &shown, &organizations, &expiries])
            .await
            .map(drop)
    }

    /// When each key was last used, by any replica. Unused keys are left out.
    ///
    /// # Errors
    /// [`RepoError::Unavailable`], [`RepoError::Corrupt`].
    pub async fn last_used(&self) -> Result<LastUsed, RepoError> {
        let sql = "SELECT sha256, shown, last_used FROM api_keys WHERE last_used IS NOT NULL";
        let rows = self.pool.read(sql, &[]).await?;
        let used = rows.iter().map(|row| {
            let at = time(row, "last_used")?.ok_or_else(|| corrupt(row, "last_used"))?;
            Ok((hash(row)?, at))
        });
        used.collect()
    }

    /// Records uses of keys. A use that is earlier than the recorded one changes nothing.
    ///
    /// # Errors
    /// [`RepoError::Unavailable`], [`RepoError::Unknown`].
    pub async fn note_used(&self, used: &LastUsed) -> Result<(), RepoError> {
        let hashes: Vec<&[u8]> = used.keys().map(|hash| &hash[..]).collect();
        let times: Vec<i64> = used.values().copied().map(millis).collect();
        let sql = "UPDATE api_keys SET last_used = greatest(last_used, used.at)
            FROM unnest($1::bytea[], $2::bigint[]) AS used (sha256, at)
            WHERE api_keys.sha256 = used.sha256";
        self.pool.change(sql, &[&hashes, &times]).await.map(drop)
    }
}

fn millis(at: Timestamp) -> i64 {
    i64::try_from(at.as_millis()).unwrap_or(i64::MAX)
}

fn record(row: &Row) -> Result<ApiKeyRecord, RepoError> {
    let organization: Option<String> = get(row, "organization")?;
    let identity = match organization {
        None => Identity::EveryOrganization,
        Some(organization) => Identity::Organization(
            OrganizationId::new(&organization).map_err(|_| corrupt(row, "organization"))?,
        ),
    };
    Ok(ApiKeyRecord {
        masked: get(row, "shown")?,
        sha256: hash(row)?,
        identity,
        expires_at: time(row, "expires_at")?,
    })
}

fn hash(row: &Row) -> Result<[u8; 32], RepoError> {
    let bytes: Vec<u8> = get(row, "sha256")?;
    bytes.try_into().map_err(|_| corrupt(row, "sha256"))
}

fn time(row: &Row, column: &'static str) -> Result<Option<Timestamp>, RepoError> {
    let number: Option<i64> = get(row, column)?;
    let millis = number.map(u64::try_from).transpose();
    let millis = millis.map_err(|_| corrupt(row, column))?;
    Ok(millis.map(Timestamp::from_millis))
}

fn get<'a, T: tokio_postgres::types::FromSql<'a>>(
    row: &'a Row,
    column: &'static str,
) -> Result<T, RepoError> {
    row.try_get(column).map_err(|_| corrupt(row, column))
}

fn corrupt(row: &Row, column: &'static str) -> RepoError {
    let shown = row.try_get("shown").unwrap_or_default();
    RepoError::Corrupt {
        table: "api_keys",
        column,
        key: shown,
    }
}
