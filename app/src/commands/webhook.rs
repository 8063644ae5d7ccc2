//! `keywright webhook`: a client of the webhooks of a running server.

use std::time::Duration;

use anyhow::{anyhow, bail};
use bytes::Bytes;
use clap::builder::PossibleValuesParser;
use clap::{Args, Subcommand};
use http_body_util::Full;
use hyper::Method;
use hyper::header::CONTENT_TYPE;
use keywright_domain::model::DeliveryOutcome;
use serde_json::{Value, json};

use super::output::{print_line, print_result};
use super::runtime::block_on;
use super::server_access::{ServerAccess, body_of};

/// How long the server may take. A test waits for the endpoint.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

#[derive(Args)]
pub(crate) struct WebhookCommand {
    #[command(subcommand)]
    task: WebhookTask,
}

#[derive(Args)]
struct Common {
    #[command(flatten)]
    server: ServerAccess,
    /// Print the answer of the server as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct One {
    /// The id of the webhook.
    id: String,
    #[command(flatten)]
    common: Common,
}

#[derive(Subcommand)]
enum WebhookTask {
    /// Register a URL. Its secret is shown only once.
    Add {
        /// Where events are delivered.
        #[arg(value_name = "URL")]
        receiver: String,
        /// The types of events, separated by commas [default: all].
        #[arg(long, value_name = "TYPES", value_delimiter = ',')]
        events: Option<Vec<String>>,
        /// What the webhook is for.
        #[arg(long, value_name = "TEXT")]
        description: Option<String>,
        #[command(flatten)]
        common: Common,
    },
    /// List all webhooks of the organization.
    List {
        #[command(flatten)]
        common: Common,
    },
    /// Show a webhook.
    Show(One),
    /// Deliver a test now, and show what the endpoint answers.
    Test(One),
    /// Replace the secret. The old one signs, too, for a day.
    Rotate(One),
    /// Deliver nothing until the webhook is enabled again.
    Disable(One),
    /// Deliver again, from where the deliveries have stopped.
    Enable(One),
    /// Remove a webhook.
    Remove(One),
    /// Show the recent deliveries, the newest first.
    Deliveries {
        #[command(flatten)]
        one: One,
        /// Only those with this outcome.
        #[arg(long, value_name = "STATE", value_parser = PossibleValuesParser::new(DeliveryOutcome::NAMES))]
        state: Option<String>,
    },
    /// Deliver events again.
    Replay {
        #[command(flatten)]
        one: One,
        #[command(flatten)]
        from: From,
    },
}

/// From where events are delivered again.
#[derive(Args)]
#[group(required = true, multiple = false)]
struct From {
    /// The events behind this cursor of the feed.
    #[arg(long, value_name = "CURSOR")]
    after: Option<String>,
    /// The events since this time, such as 2026-05-29T12:00:00Z.
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// This event only, such as 123-7, now.
    #[arg(long, value_name = "ID")]
    event: Option<String>,
}

/// # Errors
/// The server cannot be reached or refuses the request, or a delivery that was asked for has failed.
pub(crate) fn run(command: WebhookCommand) -> anyhow::Result<()> {
    block_on(run_task(command.task))
}

async fn run_task(task: WebhookTask) -> anyhow::Result<()> {
    match task {
        WebhookTask::Add {
            receiver,
            events,
            description,
            common,
        } => {
            let mut body = json!({ "url": receiver });
            if let Some(events) = events {
                body["events"] = json!(events);
            }
            if let Some(description) = description {
                body["description"] = json!(description);
            }
            let added = send(&common, Method::POST, "/webhooks", Some(body)).await?;
            show_secret(&common, &added);
        }
        WebhookTask::List { common } => {
            let list = send(&common, Method::GET, "/webhooks", None).await?;
            print_list(&common, &list["webhooks"], webhook_line);
        }
        WebhookTask::Show(one) => one.show(Method::GET, "", None).await?,
        WebhookTask::Remove(one) => one.show(Method::DELETE, "", None).await?,
        WebhookTask::Disable(one) => one.set_status("disabled").await?,
        WebhookTask::Enable(one) => one.set_status("enabled").await?,
        WebhookTask::Test(one) => {
            let answer = one.send(Method::POST, "/test", None).await?;
            show_delivery(&one.common, &answer)?;
        }
        WebhookTask::Rotate(one) => {
            let rotated = one.send(Method::POST, "/rotate-secret", None).await?;
            show_secret(&one.common, &rotated);
        }
        WebhookTask::Deliveries { one, state } => {
            let query = state.map(|state| format!("?state={state}"));
            let path = format!("/deliveries{}", query.unwrap_or_default());
            let page = one.send(Method::GET, &path, None).await?;
            print_list(&one.common, &page["deliveries"], delivery_line);
        }
        WebhookTask::Replay { one, from } => {
            let From {
                after,
                since,
                event,
            } = from;
            let is_event = event.is_some();
            let members = [("after", after), ("since", since), ("event", event)];
            let given = members
                .into_iter()
                .filter_map(|(name, value)| Some((name.to_owned(), json!(value?))));
            let body = Value::Object(given.collect());
            let answer = one.send(Method::POST, "/replay", Some(body)).await?;
            match is_event {
                true => show_delivery(&one.common, &answer)?,
                false => print_result(one.common.json, &answer, || webhook_line(&answer)),
            }
        }
    }
    Ok(())
}

impl One {
    async fn send(&self, method: Method, path: &str, body: Option<Value>) -> anyhow::Result<Value> {
        let path = format!("/webhooks/{}{path}", self.id);
        send(&self.common, method, &path, body).await
    }

    async fn show(&self, method: Method, path: &str, body: Option<Value>) -> anyhow::Result<()> {
        let webhook = self.send(method, path, body).await?;
        print_result(self.common.json, &webhook, || webhook_line(&webhook));
        Ok(())
    }

    async fn set_status(&self, status: &str) -> anyhow::Result<()> {
        let body = json!({ "status": status });
        self.show(Method::PATCH, "", Some(body)).await
    }
}

async fn send(
    common: &Common,
    method: Method,
    path: &str,
    body: Option<Value>,
) -> anyhow::Result<Value> {
    let mut request = common.server.request(method, path)?;
    let body = match body {
        None => Bytes::new(),
        Some(body) => {
            request = request.header(CONTENT_TYPE, "application/json");
            Bytes::from(body.to_string())
        }
    };
    let request = request.body(Full::new(body))?;
    let answering = async {
        let mut connection = common.server.connect().await?;
        anyhow::Ok(connection.send(request).await?)
    };
    let answer = tokio::time::timeout(ANSWER_TIMEOUT, answering).await;
    let answer = answer.map_err(|_| anyhow!("{} did not answer in time", common.server.url))?;
    body_of(&answer?)
}

fn show_secret(common: &Common, webhook: &Value) {
    let secret = webhook["secret"].as_str().unwrap_or_default();
    print_result(common.json, webhook, || {
        format!("{}\n{secret}", webhook["id"].as_str().unwrap_or_default())
    });
    if !common.json {
        eprintln!("This is the only time that the secret is shown.");
    }
}

/// Shows a delivery that was asked for.
///
/// # Errors
/// The endpoint did not accept it.
fn show_delivery(common: &Common, delivery: &Value) -> anyhow::Result<()> {
    print_result(common.json, delivery, || delivery_line(delivery));
    match delivery["state"].as_str() {
        Some("delivered") => Ok(()),
        _ => bail!("the endpoint did not accept the delivery"),
    }
}

fn print_list(common: &Common, list: &Value, line: fn(&Value) -> String) {
    for element in list.as_array().into_iter().flatten() {
        match common.json {
            true => print_line!("{element}"),
            false => print_line!("{}", line(element)),
        }
    }
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_default()
}

fn webhook_line(webhook: &Value) -> String {
    let mut line = format!(
        "{}  {:8}  {} behind  {}",
        text(webhook, "id"),
        text(webhook, "status"),
        webhook["lag"],
        text(webhook, "url")
    );
    for (name, label) in [
        ("failingSince", "failing since"),
        ("disabledReason", "because"),
    ] {
        if let Some(value) = webhook[name].as_str() {
            line += &format!("  {label} {value}");
        }
    }
    line
}

fn delivery_line(delivery: &Value) -> String {
    let answer = match &delivery["httpStatus"] {
        Value::Null => text(delivery, "error").to_owned(),
        status => status.to_string(),
    };
    let mut line = format!(
        "{:24}  {:10}  {}  {}  {answer}  {} ms",
        text(delivery, "attemptedAt"),
        text(delivery, "state"),
        text(delivery, "id"),
        text(delivery, "type"),
        delivery["durationMs"]
    );
    if let Some(next) = delivery["nextAttemptAt"].as_str() {
        line += &format!("  again at {next}");
    }
    line
}
