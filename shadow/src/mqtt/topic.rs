//! The topics of shadows: `$aws/things/{thing}/shadow/…` and `$aws/things/{thing}/shadow/name/{shadow}/…`.

use crate::name::ShadowName;

/// An operation on a shadow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Changes it.
    Update,
    /// Reads it.
    Get,
    /// Deletes it.
    Delete,
}

impl Operation {
    /// The name in topics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Update => "update",
            Self::Get => "get",
            Self::Delete => "delete",
        }
    }

    fn from_name(name: &str) -> Option<Self> {
        [Self::Update, Self::Get, Self::Delete]
            .into_iter()
            .find(|operation| operation.name() == name)
    }
}

/// The parts of a shadow's topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topic<'a> {
    /// The thing.
    pub thing: &'a str,
    /// Its shadow.
    pub shadow: ShadowName,
    /// The operation.
    pub operation: Operation,
    /// The kind of the service's message (`accepted`, `rejected`, `delta`, `documents`). `None`: the topic is that of requests.
    pub outcome: Option<&'a str>,
}

impl<'a> Topic<'a> {
    /// Parses a topic. `None`: it is not the topic of a shadow.
    pub fn parse(topic: &'a str) -> Option<Self> {
        let (thing, rest) = topic.strip_prefix("$aws/things/")?.split_once("/shadow/")?;
        let (shadow, rest) = match rest.strip_prefix("name/") {
            Some(named) => {
                let (name, rest) = named.split_once('/')?;
                (ShadowName::Named(name.to_owned()), rest)
            }
            None => (ShadowName::Classic, rest),
        };
        let (operation, outcome) = match rest.split_once('/') {
            Some((operation, outcome)) => (operation, Some(outcome)),
            None => (rest, None),
        };
        Some(Self {
            thing,
            shadow,
            operation: Operation::from_name(operation)?,
            outcome,
        })
    }

    /// The topic that ends with `suffix`. With `+` for the thing or the name of the shadow it is a topic filter.
    pub fn text(thing: &str, shadow: &ShadowName, suffix: &str) -> String {
        match shadow {
            ShadowName::Classic => format!("$aws/things/{thing}/shadow/{suffix}"),
            ShadowName::Named(name) => format!("$aws/things/{thing}/shadow/name/{name}/{suffix}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_the_topics_that_it_formats() {
        let named = ShadowName::Named("keys".into());
        for (shadow, suffix, operation, outcome) in [
            (ShadowName::Classic, "update", Operation::Update, None),
            (
                named.clone(),
                "get/accepted",
                Operation::Get,
                Some("accepted"),
            ),
            (
                named,
                "delete/rejected",
                Operation::Delete,
                Some("rejected"),
            ),
        ] {
            let text = Topic::text("door:1", &shadow, suffix);
            let topic = Topic {
                thing: "door:1",
                shadow,
                operation,
                outcome,
            };
            assert_eq!(Topic::parse(&text), Some(topic), "{text}");
        }
        for other in [
            "$aws/things/a/jobs/get",
            "$aws/things/a/shadow/list",
            "a/shadow/update",
            "$aws/things/a",
        ] {
            assert_eq!(Topic::parse(other), None, "{other}");
        }
    }
}
