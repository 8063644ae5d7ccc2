//! `$aws/things/{thing}/shadow/…` and `$aws/things/{thing}/shadow/name/{shadow}/…`.

use crate::name::ShadowName;

/// What is asked of a shadow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// To change it.
    Update,
    /// To read it.
    Get,
    /// To delete it.
    Delete,
}

impl Operation {
    /// As topics name it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Update => "update",
            Self::Get => "get",
            Self::Delete => "delete",
        }
    }

    fn of_name(name: &str) -> Option<Self> {
        [Self::Update, Self::Get, Self::Delete]
            .into_iter()
            .find(|operation| operation.name() == name)
    }
}

/// A topic of a shadow, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topic<'a> {
    /// The thing.
    pub thing: &'a str,
    /// Its shadow.
    pub shadow: ShadowName,
    /// The operation.
    pub operation: Operation,
    /// What the service says of it (`accepted`, `rejected`, `delta`, `documents`); `None`: a request.
    pub outcome: Option<&'a str>,
}

impl<'a> Topic<'a> {
    /// `None` where it is none of a shadow.
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
            operation: Operation::of_name(operation)?,
            outcome,
        })
    }

    /// A topic, or with `+` for the thing or the shadow's name a filter, that ends with `suffix`.
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
    fn topics_are_taken_apart_and_put_together() {
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
