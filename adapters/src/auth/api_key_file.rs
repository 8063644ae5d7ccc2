//! API keys, and the times of their last use, in JSON files.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use hex::FromHex;
use keywright_domain::model::{
    Identity, InvalidValue, Operator, OperatorRole, OrganizationId, SubjectId,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::api_key::{ApiKeyRecord, LastUsed};
use crate::private_file::write_private;

/// A file of API keys cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot use {} as a file of API keys: {problem}", path.display())]
pub struct ApiKeyFileError {
    path: PathBuf,
    problem: ApiKeyFileProblem,
}

/// Why a file of API keys cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ApiKeyFileProblem {
    /// It cannot be read or written.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It is not JSON of the expected form.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    /// An entry is invalid.
    #[error("entry {index}: {problem}")]
    Entry {
        /// Its position, counted from 0.
        index: usize,
        /// What is wrong with it.
        problem: String,
    },
    /// A key of a user cannot be stored.
    #[error("API keys are issued to organizations and operators")]
    User,
}

/// An entry of the file. Exactly one of `organization`, `everyOrganization` and `operator` names the holder.
#[derive(Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Entry {
    shown: String,
    sha256: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    organization: Option<String>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    every_organization: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    operator: Option<String>,
    /// Of an operator.
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<String>,
}

/// The keys in the file; none if the file does not exist.
///
/// # Errors
/// See [`ApiKeyFileProblem`].
pub fn read_api_keys(path: &Path) -> Result<Vec<ApiKeyRecord>, ApiKeyFileError> {
    let records = read_json::<Vec<Entry>>(path).and_then(|entries| numbered(entries, api_key));
    records.map_err(at(path))
}

/// The keys of operators in the file; none if the file does not exist. It is another file than that of API keys.
///
/// # Errors
/// See [`ApiKeyFileProblem`].
pub fn read_operators(path: &Path) -> Result<Vec<ApiKeyRecord>, ApiKeyFileError> {
    let records = read_json::<Vec<Entry>>(path).and_then(|entries| numbered(entries, operator));
    records.map_err(at(path))
}

/// Replaces the keys in the file atomically, those of organizations or those of operators.
///
/// # Errors
/// See [`ApiKeyFileProblem`].
pub fn write_api_keys(path: &Path, records: &[ApiKeyRecord]) -> Result<(), ApiKeyFileError> {
    let entries: Result<Vec<Entry>, _> = records.iter().map(entry).collect();
    let written = entries.and_then(|entries| write_json(path, &entries));
    written.map_err(at(path))
}

/// When keys were last used; empty if the file does not exist.
///
/// # Errors
/// See [`ApiKeyFileProblem`].
pub fn read_last_used(path: &Path) -> Result<LastUsed, ApiKeyFileError> {
    let used = read_json::<BTreeMap<String, String>>(path).and_then(|used| {
        numbered(used, |(hash, at)| {
            let at = at.parse().map_err(|e| format!("`time`: {e}"))?;
            Ok((read_hash(&hash)?, at))
        })
    });
    used.map_err(at(path))
}

/// Replaces the times in the file atomically.
///
/// # Errors
/// See [`ApiKeyFileProblem`].
pub fn write_last_used(path: &Path, used: &LastUsed) -> Result<(), ApiKeyFileError> {
    let used = used
        .iter()
        .map(|(hash, at)| (hex::encode(hash), at.to_string()));
    let used: BTreeMap<String, String> = used.collect();
    write_json(path, &used).map_err(at(path))
}

fn at(path: &Path) -> impl FnOnce(ApiKeyFileProblem) -> ApiKeyFileError {
    |problem| ApiKeyFileError {
        path: path.to_owned(),
        problem,
    }
}

fn read_json<T: DeserializeOwned + Default>(path: &Path) -> Result<T, ApiKeyFileProblem> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(serde_json::from_str(&text)?),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(T::default()),
        Err(error) => Err(error.into()),
    }
}

fn write_json(path: &Path, value: &impl Serialize) -> Result<(), ApiKeyFileProblem> {
    let text = serde_json::to_string_pretty(value)?;
    Ok(write_private(path, text.as_bytes())?)
}

/// Reads all entries. The error has the index of the first invalid one.
fn numbered<E, T, C: FromIterator<T>>(
    entries: impl IntoIterator<Item = E>,
    read: impl Fn(E) -> Result<T, String>,
) -> Result<C, ApiKeyFileProblem> {
    let entries = entries.into_iter().enumerate();
    let read = entries.map(|(index, entry)| {
        read(entry).map_err(|problem| ApiKeyFileProblem::Entry { index, problem })
    });
    read.collect()
}

fn entry(record: &ApiKeyRecord) -> Result<Entry, ApiKeyFileProblem> {
    let mut entry = Entry {
        shown: record.masked.clone(),
        sha256: hex::encode(record.sha256),
        expires_at: record.expires_at.map(|at| at.to_string()),
        ..Entry::default()
    };
    match &record.identity {
        Identity::Organization(organization) => {
            entry.organization = Some(organization.as_str().to_owned());
        }
        Identity::EveryOrganization => entry.every_organization = true,
        Identity::Operator(Operator { name, role }) => {
            entry.operator = Some(name.as_str().to_owned());
            entry.role = Some(role.name().to_owned());
        }
        Identity::User(_) | Identity::Subject(_) => return Err(ApiKeyFileProblem::User),
    }
    Ok(entry)
}

/// What is wrong with an entry of an API key that names no holder or two.
const HOLDER: &str = "`organization` or `everyOrganization` must name the holder of the key";

fn api_key(entry: Entry) -> Result<ApiKeyRecord, String> {
    let holder = match (&entry.organization, entry.every_organization) {
        (Some(organization), false) if entry.operator.is_none() => {
            let organization = OrganizationId::new(organization);
            Identity::Organization(organization.map_err(|e| format!("`organization`: {e}"))?)
        }
        (None, true) if entry.operator.is_none() => Identity::EveryOrganization,
        _ => return Err(HOLDER.into()),
    };
    record(entry, holder)
}

fn operator(entry: Entry) -> Result<ApiKeyRecord, String> {
    let name = SubjectId::new(entry.operator.as_deref().unwrap_or_default());
    let role = entry.role.as_deref().and_then(OperatorRole::by_name);
    let operator = Operator {
        name: name.map_err(|e| format!("`operator`: {e}"))?,
        role: role.ok_or("`role` must be viewer or operator")?,
    };
    record(entry, Identity::Operator(operator))
}

fn record(entry: Entry, identity: Identity) -> Result<ApiKeyRecord, String> {
    let expires_at = entry.expires_at.map(|at| at.parse()).transpose();
    Ok(ApiKeyRecord {
        masked: entry.shown,
        sha256: read_hash(&entry.sha256)?,
        identity,
        expires_at: expires_at.map_err(|e: InvalidValue| format!("`expiresAt`: {e}"))?,
    })
}

fn read_hash(text: &str) -> Result<[u8; 32], String> {
    <[u8; 32]>::from_hex(text).map_err(|_| "`sha256` must be 64 hexadecimal digits".into())
}
