//! Options of time limits and other limits. Their defaults are those of the domain and of [`HttpLimits`].

use std::time::Duration;

use anyhow::ensure;
use clap::Args;
use keywright_domain::policy::Limits;

use super::values::{TimeSpan, positive};
use crate::settings::HttpLimits;

fn protocol() -> keywright_domain::Settings {
    keywright_domain::Settings::default()
}

fn limits() -> Limits {
    Limits::default()
}

fn http_limits() -> HttpLimits {
    HttpLimits::default()
}

#[derive(Args)]
#[command(next_help_heading = "Limits")]
pub(super) struct LimitArgs {
    /// How long a whole request may take, from its arrival to its answer.
    #[arg(long, value_name = "TIME", default_value_t = protocol().request_timeout.into())]
    request: TimeSpan,
    /// How long a request may wait in the queue of its lock.
    #[arg(long, value_name = "TIME", default_value_t = protocol().queue_timeout.into())]
    turn: TimeSpan,
    /// How long one call to a shadow may take.
    #[arg(long, value_name = "TIME", default_value_t = protocol().shadow_timeout.into())]
    shadow_call: TimeSpan,
    /// How long a process may act on a write before another process takes it over.
    #[arg(long, value_name = "TIME", default_value_t = protocol().lease.into())]
    lease: TimeSpan,
    /// How much longer --lease must be than --request and --shadow-call together. The margin covers clocks that run at
    /// different speeds, and a store that answers slowly.
    #[arg(long, value_name = "TIME", default_value_t = protocol().lease_margin.into())]
    lease_margin: TimeSpan,
    /// How long a lock may take to settle a write. Then the write expires.
    #[arg(long, value_name = "TIME", default_value_t = limits().time_to_live.into())]
    time_to_live: TimeSpan,
    /// The age from which an open write counts as unconfirmed.
    #[arg(long, value_name = "TIME", default_value_t = limits().confirm_within.into())]
    confirm_within: TimeSpan,
    /// How long a recorded result may stay on the shadow.
    #[arg(long, value_name = "TIME", default_value_t = limits().clear_within.into())]
    clear_within: TimeSpan,
    /// How long the answer to a request with an Idempotency-Key is kept.
    #[arg(long, value_name = "TIME", default_value_t = limits().idempotency_retention.into())]
    keep_answers: TimeSpan,
    /// How long a write that has ended can be read. Its events stay for ever.
    #[arg(long, value_name = "TIME", default_value_t = limits().write_retention.into())]
    keep_writes: TimeSpan,
    /// How often the server compares the shadows of all locks with their writes, as `keywright audit` does. Differences are
    /// logged and counted, not repaired [default: no audits].
    #[arg(long, value_name = "TIME")]
    audit_every: Option<TimeSpan>,
    /// How many writes of one lock may be open at once.
    #[arg(long, value_name = "N", default_value_t = limits().max_open_writes)]
    max_open_writes: usize,
    /// How many connections are open at once. A further connection replaces the one that has been idle longest; if none is
    /// idle, it waits.
    #[arg(long, value_name = "N", default_value_t = http_limits().max_connections, value_parser = positive)]
    max_connections: usize,
    /// How long an idle connection is kept. A load balancer in front of the server must close its idle connections sooner.
    #[arg(long, value_name = "TIME", default_value_t = http_limits().keep_alive.into())]
    keep_alive: TimeSpan,
    /// How long requests are still accepted after SIGTERM, while GET /readyz answers 503 so that load balancers send new
    /// requests elsewhere. SIGINT (Ctrl-C) does not wait.
    #[arg(long, value_name = "TIME", default_value = "5s")]
    drain_delay: TimeSpan,
    #[arg(
        long,
        value_name = "N",
        default_value_t = http_limits().max_in_flight,
        value_parser = positive,
        help = max_in_flight_help()
    )]
    max_in_flight: usize,
    /// How many of those may belong to one organization or user. Further ones are answered 429 [default: half of
    /// --max-in-flight].
    #[arg(long, value_name = "N", value_parser = positive)]
    max_in_flight_each: Option<usize>,
    /// How many streams of events (GET /events) are open at once. Further ones are answered 429 [default: half of
    /// --max-connections].
    #[arg(long, value_name = "N", value_parser = positive)]
    max_streams: Option<usize>,
    /// How many of those may belong to one organization or user.
    #[arg(long, value_name = "N", default_value_t = http_limits().max_streams_each, value_parser = positive)]
    max_streams_each: usize,
    /// How many requests with refused credentials one address may send within five seconds. Further ones are answered 429.
    /// Requests with valid credentials are not affected.
    #[arg(long, value_name = "N", default_value_t = http_limits().max_failures)]
    max_failures: u32,
}

fn max_in_flight_help() -> String {
    let wait = TimeSpan(http_limits().permit_timeout);
    format!(
        "How many requests about locks are in progress at once. A further request waits for {wait}; if none of these has ended \
         then, it is answered 503"
    )
}

impl LimitArgs {
    /// # Errors
    /// The limits contradict each other; the text names them.
    pub(super) fn protocol(&self) -> anyhow::Result<keywright_domain::Settings> {
        let mut limits = limits();
        limits.max_open_writes = self.max_open_writes;
        limits.time_to_live = self.time_to_live.0;
        limits.confirm_within = self.confirm_within.0;
        limits.clear_within = self.clear_within.0;
        limits.idempotency_retention = self.keep_answers.0;
        limits.write_retention = self.keep_writes.0;
        let mut settings = protocol();
        settings.limits = limits;
        settings.request_timeout = self.request.0;
        settings.queue_timeout = self.turn.0;
        settings.shadow_timeout = self.shadow_call.0;
        settings.lease = self.lease.0;
        settings.lease_margin = self.lease_margin.0;
        settings.check()?;
        Ok(settings)
    }

    /// # Errors
    /// A limit is zero; the text names it.
    pub(super) fn http_limits(&self) -> anyhow::Result<HttpLimits> {
        let keep_alive = self.keep_alive.0;
        ensure!(!keep_alive.is_zero(), "--keep-alive must be more than zero");
        let share = self.max_in_flight_each;
        let max_streams = self.max_streams;
        let max_streams =
            max_streams.unwrap_or(HttpLimits::default_max_streams(self.max_connections));
        ensure!(
            max_streams < self.max_connections || self.max_streams.is_none(),
            "--max-streams must be below --max-connections, so that other requests have connections"
        );
        Ok(HttpLimits {
            max_connections: self.max_connections,
            keep_alive,
            max_in_flight: self.max_in_flight,
            max_streams,
            max_streams_each: self.max_streams_each,
            max_failures: self.max_failures,
            max_in_flight_each: share
                .unwrap_or(HttpLimits::default_max_in_flight_each(self.max_in_flight)),
            ..http_limits()
        })
    }

    pub(super) const fn drain_delay(&self) -> Duration {
        self.drain_delay.0
    }

    /// # Errors
    /// The interval is zero.
    pub(super) fn audit_every(&self) -> anyhow::Result<Option<Duration>> {
        let every = self.audit_every.map(|every| every.0);
        let is_zero = every.is_some_and(|every| every.is_zero());
        ensure!(!is_zero, "--audit-every must be more than zero");
        Ok(every)
    }
}

#[cfg(test)]
mod tests {
    use clap::{Command, FromArgMatches};

    use super::*;

    #[test]
    fn defaults_are_those_of_the_domain_and_of_the_server() {
        let matches = LimitArgs::augment_args(Command::new("serve")).get_matches_from(["serve"]);
        let args = LimitArgs::from_arg_matches(&matches).expect("all options have defaults");
        assert_eq!(args.protocol().expect("valid settings"), protocol());
        assert_eq!(args.http_limits().expect("valid limits"), http_limits());
    }
}
