//! The hashes of API keys in a JSON file.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use keywright_domain::model::{Identity, OrganizationId, Timestamp};
use serde::{Deserialize, Serialize};
use tempfile::NamedTempFile;

use super::api_key::{ApiKeyRecord, LastUsed};

/// A file of API keys that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot use {} as a file of API keys: {reason}", path.display())]
pub struct ApiKeyFileError {
    path: PathBuf,
    reason: String,
}

/// An entry of the file. Exactly one of `organization` and `everyOrganization` says whose key it is.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Entry {
    shown: String,
    sha256: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    organization: Option<String>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    every_organization: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<String>,
}

/// The keys in the file; none where there is no file.
///
/// # Errors
/// The file cannot be read or is not what [`write_api_keys`] wrote.
pub fn read_api_keys(path: &Path) -> Result<Vec<ApiKeyRecord>, ApiKeyFileError> {
    let refuse = |reason: String| ApiKeyFileError {
        path: path.to_owned(),
        reason,
    };
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(refuse(e.to_string())),
    };
    let entries: Vec<Entry> = serde_json::from_str(&text).map_err(|e| refuse(e.to_string()))?;
    let records = entries
        .into_iter()
        .enumerate()
        .map(|(n, entry)| record(entry).map_err(|reason| refuse(format!("entry {n}: {reason}"))));
    records.collect()
}

/// Puts these keys in the file's place, at once or not at all.
///
/// # Errors
/// The file cannot be written, or a key is a person's.
pub fn write_api_keys(path: &Path, records: &[ApiKeyRecord]) -> Result<(), ApiKeyFileError> {
    let refuse = |reason: String| ApiKeyFileError {
        path: path.to_owned(),
        reason,
    };
    let entries: Result<Vec<Entry>, String> = records.iter().map(entry).collect();
    let text = serde_json::to_string_pretty(&entries.map_err(refuse)?)
        .map_err(|e| refuse(e.to_string()))?;
    write_private(path, text.as_bytes()).map_err(|e| refuse(e.to_string()))
}

/// When keys were last used; nothing where there is no file.
///
/// # Errors
/// The file cannot be read or is not what [`write_last_used`] wrote.
pub fn read_last_used(path: &Path) -> Result<LastUsed, ApiKeyFileError> {
    let refuse = |reason: String| ApiKeyFileError {
        path: path.to_owned(),
        reason,
    };
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(LastUsed::new()),
        Err(e) => return Err(refuse(e.to_string())),
    };
    let used: BTreeMap<String, String> =
        serde_json::from_str(&text).map_err(|e| refuse(e.to_string()))?;
    let used = used.into_iter().map(|(hash, at)| {
        let hash =
            hex(&hash).ok_or_else(|| refuse("a hash must be 64 hexadecimal digits".into()))?;
        let at = at.parse().map_err(|e| refuse(format!("a moment: {e}")))?;
        Ok((hash, at))
    });
    used.collect()
}

/// Puts this in the file's place, at once or not at all.
///
/// # Errors
/// The file cannot be written.
pub fn write_last_used(path: &Path, used: &LastUsed) -> Result<(), ApiKeyFileError> {
    let used = used.iter().map(|(hash, at)| (to_hex(hash), at.to_string()));
    let used: BTreeMap<String, String> = used.collect();
    let written = serde_json::to_string_pretty(&used)
        .map_err(std::io::Error::other)
        .and_then(|text| write_private(path, text.as_bytes()));
    written.map_err(|e| ApiKeyFileError {
        path: path.to_owned(),
        reason: e.to_string(),
    })
}

/// Puts a file in its place at once or not at all, readable for nobody else.
///
/// # Errors
/// It cannot be written; what was in its place still is.
pub fn write_private(path: &Path, content: &[u8]) -> std::io::Result<()> {
    let folder = path.parent().unwrap_or_else(|| Path::new("."));
    let mut fresh = NamedTempFile::new_in(folder)?;
    fresh.write_all(content)?;
    fresh.as_file().sync_all()?;
    fresh.persist(path)?;
    Ok(())
}

fn to_hex(hash: &[u8; 32]) -> String {
    hash.iter().map(|b| format!("{b:02x}")).collect()
}

fn entry(record: &ApiKeyRecord) -> Result<Entry, String> {
    let organization = match &record.identity {
        Identity::Organization(organization) => Some(organization.as_str().to_owned()),
        Identity::EveryOrganization => None,
        Identity::User(_) => return Err("API keys are issued to organizations".into()),
    };
    Ok(Entry {
        shown: record.shown.clone(),
        sha256: to_hex(&record.sha256),
        every_organization: organization.is_none(),
        organization,
        expires_at: record.expires_at.map(|at| at.to_string()),
    })
}

fn record(entry: Entry) -> Result<ApiKeyRecord, String> {
    let identity = match (entry.organization, entry.every_organization) {
        (Some(organization), false) => Identity::Organization(
            OrganizationId::new(&organization).map_err(|e| format!("`organization`: {e}"))?,
        ),
        (None, true) => Identity::EveryOrganization,
        _ => return Err("`organization` or `everyOrganization` must say whose key it is".into()),
    };
    let expires_at: Option<Timestamp> = entry
        .expires_at
        .map(|at| at.parse().map_err(|e| format!("`expiresAt`: {e}")))
        .transpose()?;
    let sha256 = hex(&entry.sha256).ok_or("`sha256` must be 64 hexadecimal digits")?;
    Ok(ApiKeyRecord {
        shown: entry.shown,
        sha256,
        identity,
        expires_at,
    })
}

fn hex(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
        let pair = std::str::from_utf8(pair).ok()?;
        *byte = u8::from_str_radix(pair, 16).ok()?;
    }
    Some(bytes)
}
