//! Checks that each connection has its own session at the database.

use std::time::Duration;

use tokio::time::timeout;
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::{Client, Config, SimpleQueryMessage, Socket};

use super::error::PostgresError;

/// The time for the whole check. A pooler of sessions that has a single connection to the database makes the second of ours wait.
const CHECK_TIMEOUT: Duration = Duration::from_secs(3);

/// The number of tries: among busy clients, one try may not detect a shared session.
const TRIES: u32 = 8;

/// A custom parameter, which PostgreSQL stores with the session like its own settings.
const PARAMETER: &str = "keywright.session";

/// Refuses a pooler that gives a client's session to another client after each transaction, such as PgBouncer with
/// `pool_mode=transaction`: statements are prepared in a session, and their timeouts are set in it. Errors:
/// [`PostgresError::Unfit`] names the pooler and its mode; [`PostgresError::Unreachable`].
pub(super) async fn refuse_shared_sessions<T>(config: &Config, tls: T) -> Result<(), PostgresError>
where
    T: MakeTlsConnect<Socket> + Clone + Send + 'static,
    T::Stream: Send + 'static,
{
    let first = connect(config, tls.clone()).await?;
    let checked = timeout(CHECK_TIMEOUT, async {
        let second = connect(config, tls).await?;
        are_shared(&first, &second).await
    });
    match checked.await {
        Ok(Ok(false)) => Ok(()),
        Ok(Ok(true)) => Err(PostgresError::Unfit(
            "a pooler that shares sessions among its clients is in front of it, such as PgBouncer with \
             pool_mode=transaction or pool_mode=statement; set pool_mode=session, or connect to the database itself"
                .into(),
        )),
        Ok(Err(error)) => Err(error),
        Err(_) => {
            tracing::warn!("the check whether a pooler shares the sessions of the database timed out");
            Ok(())
        }
    }
}

async fn connect<T>(config: &Config, tls: T) -> Result<Client, PostgresError>
where
    T: MakeTlsConnect<Socket>,
    T::Stream: Send + 'static,
{
    let (client, connection) = config.connect(tls).await?;
    // It ends with its client. Its errors are also those of the client's statements.
    tokio::spawn(async { drop(connection.await) });
    Ok(client)
}

/// Whether one client reads a value that the other has set, or does not read its own. A pooler assigns the session that was used
/// last, or each in turn.
async fn are_shared(first: &Client, second: &Client) -> Result<bool, PostgresError> {
    for _ in 0..TRIES {
        let mut random = [0; 16];
        getrandom::fill(&mut random).map_err(|e| PostgresError::Unreachable(e.to_string()))?;
        let mark = format!("{:032x}", u128::from_be_bytes(random));
        let set = format!("SELECT set_config('{PARAMETER}', '{mark}', false)");
        value(first, &set).await?;
        let has_mark = async |client| {
            let sql = format!("SELECT current_setting('{PARAMETER}', true)");
            let read = value(client, &sql).await;
            read.map(|read| read.as_ref() == Some(&mark))
        };
        let seen_by_other = has_mark(second).await?;
        // Twice: if two sessions are assigned in turn, one of two reads is in the right one.
        if seen_by_other || !has_mark(first).await? || !has_mark(first).await? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The value of a query in the simple protocol, which prepares no statement.
async fn value(client: &Client, sql: &str) -> Result<Option<String>, PostgresError> {
    let answer = client.simple_query(sql).await?;
    let mut rows = answer.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0),
        _ => None,
    });
    Ok(rows.next().map(str::to_owned))
}
