//! Whether each connection has a session of its own at the database.

use std::time::Duration;

use tokio::time::timeout;
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::{Client, Config, SimpleQueryMessage, Socket};

use super::PostgresError;

/// The time for all of it. A pooler of sessions with a single connection to the database lets the second of ours wait.
const PROBE: Duration = Duration::from_secs(3);

/// How often it is tried: beside clients that are busy, one try may miss a session that is shared.
const TRIES: u32 = 8;

/// A parameter of ours, which PostgreSQL keeps for the session like its own settings.
const PARAMETER: &str = "keywright.session";

/// Refuses a pooler that gives the session of one client to another one after each transaction, such as PgBouncer with
/// `pool_mode=transaction`: statements are prepared in a session, and bounds on their time are set in it.
///
/// # Errors
/// [`PostgresError::Unfit`] names the pooler and its mode; [`PostgresError::Unreachable`].
pub(super) async fn refuse_shared_sessions<T>(config: &Config, tls: T) -> Result<(), PostgresError>
where
    T: MakeTlsConnect<Socket> + Clone + Send + 'static,
    T::Stream: Send + 'static,
{
    let first = connect(config, tls.clone()).await?;
    let probed = timeout(PROBE, async {
        let second = connect(config, tls).await?;
        are_shared(&first, &second).await
    });
    match probed.await {
        Ok(Ok(false)) => Ok(()),
        Ok(Ok(true)) => Err(PostgresError::Unfit(
            "a pooler that shares sessions among its clients is in front of it, such as PgBouncer with \
             pool_mode=transaction or pool_mode=statement; set pool_mode=session, or connect to the database itself"
                .into(),
        )),
        Ok(Err(error)) => Err(error),
        Err(_) => {
            tracing::warn!("it could not be found out whether a pooler shares the sessions of the database");
            Ok(())
        }
    }
}

async fn connect<T>(config: &Config, tls: T) -> Result<Client, PostgresError>
where
    T: MakeTlsConnect<Socket>,
    T::Stream: Send + 'static,
{
    let connected = config.connect(tls).await;
    let (client, connection) = connected.map_err(PostgresError::of)?;
    // It ends with its client. What goes wrong with it, the client's statements say.
    tokio::spawn(async { drop(connection.await) });
    Ok(client)
}

/// Whether one client sees what the other one has set, or misses what it has set itself. A pooler gives the session that
/// was used last, or each in turn.
async fn are_shared(first: &Client, second: &Client) -> Result<bool, PostgresError> {
    for _ in 0..TRIES {
        let mut random = [0; 16];
        getrandom::fill(&mut random).map_err(|e| PostgresError::Unreachable(e.to_string()))?;
        let mark = format!("{:032x}", u128::from_be_bytes(random));
        let set = format!("SELECT set_config('{PARAMETER}', '{mark}', false)");
        value(first, &set).await?;
        let has_mark = async |client| {
            let sql = format!("SELECT current_setting('{PARAMETER}', true)");
            Ok(value(client, &sql).await?.as_ref() == Some(&mark))
        };
        let seen_by_other: bool = has_mark(second).await?;
        // Twice, because one of two sessions in turn is the right one.
        if seen_by_other || !has_mark(first).await? || !has_mark(first).await? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// By the simple protocol, which prepares nothing.
async fn value(client: &Client, sql: &str) -> Result<Option<String>, PostgresError> {
    let answer = client.simple_query(sql).await.map_err(PostgresError::of)?;
    let mut rows = answer.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0),
        _ => None,
    });
    Ok(rows.next().map(str::to_owned))
}
