//! A naive service for the same requests as Keywright's WriteKey, on axum and rusqlite: `keywright-peer-axum DATABASE SECRET LOCKS`.
//! It verifies the token, makes two durable transactions for each request on one connection behind a mutex, and has the shadows in the
//! process. It has no recovery, so that a crash or a lost answer loses the outcome of a write.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::header::{AUTHORIZATION, LOCATION};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use humantime::format_rfc3339_millis;
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode};
use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};
use serde::{Deserialize, Serialize};
use serde_json::json;
use uuid::Uuid;

const FIRST_LOCK: i64 = 1001;
const TIME_TO_LIVE_MS: i64 = 48 * 3600 * 1000;
const MAX_VERIFIED: usize = 10_000;

type Failure = Box<dyn std::error::Error + Send + Sync>;

#[derive(Clone, Deserialize)]
struct Claims {
    sub: String,
    org: Option<String>,
    exp: i64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WriteKey {
    key_uuid: String,
    key_index_number: Option<i64>,
}

/// The shadow of a lock: its version and its desired entries.
#[derive(Default)]
struct Shadow {
    version: u64,
    /// The entries by key index, or by the id of the write.
    desired: HashMap<String, Entry>,
}

#[derive(Serialize)]
struct Entry {
    id: String,
    key: String,
    expires_at: i64,
}

struct Service {
    database: Mutex<Connection>,
    shadows: Mutex<HashMap<i64, Shadow>>,
    verified: Mutex<HashMap<String, Claims>>,
    key: DecodingKey,
    validation: Validation,
}

/// A status and a message for the client.
struct Refused(StatusCode, &'static str);

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let Self(status, message) = self;
        let body = json!({ "success": false, "message": message, "code": status.as_u16() });
        (status, Json(body)).into_response()
    }
}

impl From<rusqlite::Error> for Refused {
    fn from(error: rusqlite::Error) -> Self {
        eprintln!("{error}");
        Self(StatusCode::INTERNAL_SERVER_ERROR, "the database failed")
    }
}

struct Written {
    write: Uuid,
    version: i64,
    data: serde_json::Value,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Milliseconds since 1970.
fn millis(time: SystemTime) -> i64 {
    let now = time.duration_since(UNIX_EPOCH);
    now.map_or(0, |now| i64::try_from(now.as_millis()).unwrap_or(i64::MAX))
}

impl Service {
    fn open(file: &str, secret_file: &str, locks: i64) -> Result<Self, Failure> {
        let mut database = Connection::open(file)?;
        database.pragma_update(None, "journal_mode", "WAL")?;
        database.pragma_update(None, "synchronous", "FULL")?;
        database.set_prepared_statement_cache_capacity(32);
        database.execute_batch(include_str!("../../schema.sql"))?;
        let transaction = database.transaction()?;
        for lock in FIRST_LOCK..FIRST_LOCK + locks {
            transaction.prepare_cached(
                "INSERT INTO locks (id, uuid, owner, organization, capacity, version) VALUES (?, ?, 'demo-user', 'demo-org', 100, 2)",
            )?
            .execute(params![lock, Uuid::new_v4().to_string()])?;
        }
        transaction.commit()?;
        let mut validation = Validation::new(Algorithm::HS256);
        validation.set_issuer(&["bench"]);
        validation.set_audience(&["bench"]);
        Ok(Self {
            database: Mutex::new(database),
            shadows: Mutex::default(),
            verified: Mutex::default(),
            key: DecodingKey::from_secret(&std::fs::read(secret_file)?),
            validation,
        })
    }

    /// The claims of a valid token.
    fn verify(&self, headers: &HeaderMap) -> Option<Claims> {
        let token = headers.get(AUTHORIZATION)?.to_str().ok()?;
        let token = token.strip_prefix("Bearer ")?;
        let known = locked(&self.verified).get(token).cloned();
        let claims = match known {
            Some(claims) => claims,
            None => {
                let claims = decode::<Claims>(token, &self.key, &self.validation);
                let claims = claims.ok()?.claims;
                let mut verified = locked(&self.verified);
                if verified.len() >= MAX_VERIFIED {
                    verified.clear();
                }
                verified.insert(token.to_owned(), claims.clone());
                claims
            }
        };
        (claims.exp * 1000 > millis(SystemTime::now())).then_some(claims)
    }

    fn write(&self, lock: i64, claims: &Claims, command: &WriteKey) -> Result<Written, Refused> {
        let (now, write) = (SystemTime::now(), Uuid::now_v7());
        let time = millis(now);
        let uuid = self.record_intent(lock, claims, command, write, time)?;
        self.update_shadow(lock, command, write, time);
        let mut data = json!({
            "lockId": lock, "uuid": uuid, "timestamp": format_rfc3339_millis(now).to_string(), "keyUuid": command.key_uuid,
        });
        if let Some(index) = command.key_index_number {
            data["keyIndexNumber"] = index.into();
        }
        let version = self.record_result(lock, write, time, &data.to_string())?;
        Ok(Written {
            write,
            version,
            data,
        })
    }

    /// Checks access and records the intent. Returns the UUID of the lock.
    fn record_intent(
        &self,
        lock: i64,
        claims: &Claims,
        command: &WriteKey,
        write: Uuid,
        time: i64,
    ) -> Result<String, Refused> {
        let mut database = locked(&self.database);
        let transaction = database.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let sql = "SELECT uuid, owner, organization, capacity FROM locks WHERE id = ?";
        let found = transaction.prepare_cached(sql)?.query_row([lock], |row| {
            let (uuid, owner): (String, String) = (row.get(0)?, row.get(1)?);
            let (organization, capacity): (String, i64) = (row.get(2)?, row.get(3)?);
            Ok((uuid, owner, organization, capacity))
        });
        let Some((uuid, owner, organization, capacity)) = found.optional()? else {
            return Err(Refused(StatusCode::NOT_FOUND, "no such lock"));
        };
        let may_access = match &claims.org {
            Some(org) => *org == organization,
            None => claims.sub == owner,
        };
        if !may_access {
            return Err(Refused(StatusCode::FORBIDDEN, "no access to the lock"));
        }
        if { command.key_index_number }.is_some_and(|index| index >= capacity) {
            return Err(Refused(
                StatusCode::UNPROCESSABLE_ENTITY,
                "the lock has no such slot",
            ));
        }
        let sql = "INSERT INTO writes (id, lock, key_uuid, key_index, state, requested_by, requested_at, expires_at) \
                   VALUES (?, ?, ?, ?, 'PREPARED', ?, ?, ?)";
        transaction.prepare_cached(sql)?.execute(params![
            write.to_string(),
            lock,
            command.key_uuid,
            command.key_index_number,
            format!("user:{}", claims.sub),
            time,
            time + TIME_TO_LIVE_MS
        ])?;
        transaction.commit()?;
        Ok(uuid)
    }

    fn update_shadow(&self, lock: i64, command: &WriteKey, write: Uuid, time: i64) {
        let mut shadows = locked(&self.shadows);
        let shadow = shadows.entry(lock).or_default();
        shadow.version += 1;
        let place = match command.key_index_number {
            Some(index) => index.to_string(),
            None => write.to_string(),
        };
        let entry = Entry {
            id: write.to_string(),
            key: command.key_uuid.clone(),
            expires_at: time + TIME_TO_LIVE_MS,
        };
        shadow.desired.insert(place, entry);
    }

    /// Records the event and the state of the write. Returns the version of the lock.
    fn record_result(&self, lock: i64, write: Uuid, time: i64, data: &str) -> Result<i64, Refused> {
        let mut database = locked(&self.database);
        let transaction = database.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let sql = "UPDATE locks SET version = version + 1 WHERE id = ? RETURNING version";
        let version: i64 =
            { transaction.prepare_cached(sql)? }.query_row([lock], |row| row.get(0))?;
        let sql = "INSERT INTO events (lock, version, type, time, data) VALUES (?, ?, 'KeyWriteRequested', ?, ?)";
        { transaction.prepare_cached(sql)? }.execute(params![lock, version, time, data])?;
        let sql = "UPDATE writes SET state = 'SENT', version = ? WHERE id = ?";
        { transaction.prepare_cached(sql)? }.execute(params![version, write.to_string()])?;
        transaction.commit()?;
        Ok(version)
    }
}

async fn write_key(
    State(service): State<Arc<Service>>,
    Path(lock): Path<i64>,
    headers: HeaderMap,
    Json(command): Json<WriteKey>,
) -> Result<Response, Refused> {
    let Some(claims) = service.verify(&headers) else {
        return Err(Refused(
            StatusCode::UNAUTHORIZED,
            "the credentials are not valid",
        ));
    };
    // Faster here than `spawn_blocking`.
    let written = tokio::task::block_in_place(|| service.write(lock, &claims, &command))?;
    let location = format!("/locks/{lock}/writes/{}", written.write);
    let request_id = Uuid::new_v4().simple().to_string();
    let headers = [
        (LOCATION.as_str(), location),
        ("x-request-id", request_id[..16].to_owned()),
    ];
    let body = json!({
        "success": true, "aggregateId": lock.to_string(), "version": written.version,
        "event": { "type": "KeyWriteRequested", "data": written.data },
    });
    Ok((headers, Json(body)).into_response())
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [file, secret_file, locks] = &arguments[..] else {
        return Err("usage: keywright-peer-axum DATABASE SECRET LOCKS".into());
    };
    let service = Arc::new(Service::open(file, secret_file, locks.parse()?)?);
    let router = Router::new()
        .route("/locks/{id}/WriteKey", post(write_key))
        .layer(DefaultBodyLimit::max(4096))
        .with_state(service);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    println!("axum is at http://{}", listener.local_addr()?);
    axum::serve(listener, router).await?;
    Ok(())
}
