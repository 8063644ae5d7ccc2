//! The sessions of operators who have signed in. They are in memory: a restart signs everybody out.

use std::collections::HashMap;
use std::fmt;
use std::sync::Mutex;
use std::time::Duration;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};
use keywright_domain::model::{Operator, Tick};

use crate::mutex::lock_mutex;

/// How long a session lasts without a request, and at most.
const IDLE_TIME: Duration = Duration::from_secs(30 * 60);
pub(crate) const MAX_TIME: Duration = Duration::from_secs(12 * 3600);

/// How many sessions there are at once. A further one ends the one that has been idle longest.
const MAX_SESSIONS: usize = 200;

/// The hash of the key with which an operator has signed in.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Credential(pub(super) [u8; 32]);

/// An operator who is signed in.
#[derive(Clone)]
pub(crate) struct Session {
    pub(crate) operator: Operator,
    pub(crate) credential: Credential,
    /// The secret that each form of the session sends, so that other sites cannot send it (CSRF).
    form_token: Token,
    started: Tick,
    last_request: Tick,
}

impl Session {
    /// The text that the session's forms send.
    pub(crate) fn form_token(&self) -> String {
        self.form_token.to_string()
    }

    pub(crate) fn has_form_token(&self, text: &str) -> bool {
        let own = self.form_token.to_string();
        verify_slices_are_equal(own.as_bytes(), text.as_bytes()).is_ok()
    }
}

/// A random secret.
#[derive(Clone)]
pub(crate) struct Token([u8; 32]);

impl Token {
    /// # Panics
    /// The system has no source of randomness.
    fn random() -> Self {
        let mut bytes = [0; 32];
        aws_lc_rs::rand::fill(&mut bytes).expect("the system has a source of randomness");
        Self(bytes)
    }
}

impl fmt::Display for Token {
    /// In hexadecimal.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// All sessions, by the hashes of their cookies.
#[derive(Default)]
pub(crate) struct Sessions(Mutex<HashMap<[u8; 32], Session>>);

impl Sessions {
    /// Starts a session, and returns the value of its cookie.
    pub(crate) fn start(&self, operator: Operator, credential: Credential, now: Tick) -> Token {
        let cookie = Token::random();
        let mut sessions = lock_mutex(&self.0);
        sessions.retain(|_, session| is_live(session, now));
        if sessions.len() >= MAX_SESSIONS {
            let idle = sessions.iter().min_by_key(|(_, s)| s.last_request);
            if let Some(longest) = idle.map(|(hash, _)| *hash) {
                sessions.remove(&longest);
            }
        }
        let session = Session {
            operator,
            credential,
            form_token: Token::random(),
            started: now,
            last_request: now,
        };
        sessions.insert(hash(&cookie.to_string()), session);
        cookie
    }

    /// The session with this cookie. The request counts as activity.
    pub(crate) fn find(&self, cookie: &str, now: Tick) -> Option<Session> {
        let mut sessions = lock_mutex(&self.0);
        let session = sessions.get_mut(&hash(cookie))?;
        if !is_live(session, now) {
            return None;
        }
        session.last_request = now;
        Some(session.clone())
    }

    /// The session with this cookie. The question does not count as activity.
    pub(crate) fn peek(&self, cookie: &str, now: Tick) -> Option<Session> {
        let sessions = lock_mutex(&self.0);
        let session = sessions.get(&hash(cookie));
        session.filter(|session| is_live(session, now)).cloned()
    }

    pub(crate) fn end(&self, cookie: &str) {
        lock_mutex(&self.0).remove(&hash(cookie));
    }
}

fn is_live(session: &Session, now: Tick) -> bool {
    now < session.last_request.after(IDLE_TIME) && now < session.started.after(MAX_TIME)
}

/// Cookies are looked up by their hashes, so that the time of a lookup says nothing about the cookies of others.
fn hash(cookie: &str) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, cookie.as_bytes()).as_ref());
    hash
}

#[cfg(test)]
mod tests {
    use keywright_domain::model::{OperatorRole, SubjectId};

    use super::*;

    fn start(sessions: &Sessions, seconds: u64) -> String {
        let operator = Operator {
            name: SubjectId::new("ann").expect("a name"),
            role: OperatorRole::Viewer,
        };
        sessions
            .start(operator, Credential([7; 32]), at(seconds))
            .to_string()
    }

    fn at(seconds: u64) -> Tick {
        Tick(Duration::from_secs(seconds))
    }

    #[test]
    fn a_session_ends_when_it_is_idle_or_old_or_ended() {
        let sessions = Sessions::default();
        let cookie = start(&sessions, 0);
        assert!(sessions.find("another", at(0)).is_none());
        assert!(sessions.find(&cookie, at(1799)).is_some());
        assert!(sessions.peek(&cookie, at(3598)).is_some());
        assert!(sessions.find(&cookie, at(3599)).is_none(), "idle");
        let cookie = start(&sessions, 0);
        for minute in 1..720 {
            assert!(sessions.find(&cookie, at(minute * 60)).is_some());
        }
        assert!(sessions.find(&cookie, at(43_200)).is_none(), "old");
        let cookie = start(&sessions, 0);
        sessions.end(&cookie);
        assert!(sessions.find(&cookie, at(1)).is_none());
    }

    #[test]
    fn the_number_of_sessions_is_bounded() {
        let sessions = Sessions::default();
        let cookies: Vec<String> = (0..=200).map(|n| start(&sessions, n)).collect();
        let live = |cookie: &String| sessions.peek(cookie, at(201)).is_some();
        assert_eq!(
            cookies.iter().position(live),
            Some(1),
            "the first has ended"
        );
        assert!(cookies[1..].iter().all(live));
    }

    #[test]
    fn forms_of_another_session_are_refused() {
        let sessions = Sessions::default();
        let [own, other] = [0, 0].map(|at_| {
            let cookie = start(&sessions, at_);
            sessions.find(&cookie, at(1)).expect("a session")
        });
        assert!(own.has_form_token(&own.form_token()));
        assert!(!own.has_form_token(&other.form_token()));
        assert!(!own.has_form_token(""));
    }
}
