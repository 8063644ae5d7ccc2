//! Lists of the API: their paths with filters, and their elements page by page.

use std::fmt::{Display, Write as _};

use hyper::Method;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use super::server_access::{ServerAccess, body_of};

/// The number of elements of a page. The server allows no larger one.
const PAGE: usize = 500;

/// What is encoded in a query: everything but the unreserved characters (RFC 3986, section 2.3).
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// A list of the API, with the filters that were chosen.
pub(super) struct ApiList {
    path: &'static str,
    /// The member of a page that has the elements.
    member: &'static str,
    filters: String,
}

impl ApiList {
    pub(super) const fn new(path: &'static str, member: &'static str) -> Self {
        Self {
            path,
            member,
            filters: String::new(),
        }
    }

    /// The events of the feed.
    pub(super) const fn events() -> Self {
        Self::new("/events", "events")
    }

    /// The list with this parameter, if it has a value.
    #[must_use]
    pub(super) fn filter(mut self, name: &str, value: Option<impl Display>) -> Self {
        if let Some(value) = value {
            let value = value.to_string();
            let value = utf8_percent_encode(&value, RESERVED);
            // Writing into a text does not fail.
            let _ = write!(self.filters, "&{name}={value}");
        }
        self
    }

    /// The path of the page after this cursor.
    pub(super) fn page_path(&self, after: Option<&str>) -> String {
        self.path_with_limit(after, PAGE)
    }

    fn path_with_limit(&self, after: Option<&str>, limit: usize) -> String {
        let filters = &self.filters;
        let mut path = format!("{}?limit={limit}{filters}", self.path);
        if let Some(after) = after {
            let after = utf8_percent_encode(after, RESERVED);
            let _ = write!(path, "&after={after}");
        }
        path
    }

    /// Passes the elements after this cursor to `show`, at most `limit` of them. Returns the cursor after which there may be more.
    ///
    /// # Errors
    /// The server cannot be reached or refuses the request.
    pub(super) async fn read(
        &self,
        server: &ServerAccess,
        mut after: Option<String>,
        limit: usize,
        mut show: impl FnMut(&Value),
    ) -> anyhow::Result<Option<String>> {
        let mut connection = server.connect().await?;
        let mut left = limit;
        while left > 0 {
            let path = self.path_with_limit(after.as_deref(), left.min(PAGE));
            let request = server.request(Method::GET, &path)?;
            let answer = connection.send(request.body(<_>::default())?).await?;
            let page = body_of(&answer)?;
            let elements = page[self.member].as_array();
            let elements = elements.map_or(&[][..], Vec::as_slice);
            elements.iter().for_each(&mut show);
            left = left.saturating_sub(elements.len());
            let next = page["next"].as_str().map(str::to_owned);
            // A page may have no element and yet not be the last one.
            if next == after || next.is_none() {
                return Ok(None);
            }
            after = next;
        }
        Ok(after)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_has_the_filters_that_have_values_with_reserved_characters_encoded() {
        let list = ApiList::new("/writes", "writes")
            .filter("key", Some("a b&c=ü"))
            .filter("lock", None::<u64>)
            .filter("since", Some("2026-05-29T12:00:00.000Z"));
        let filters = "key=a%20b%26c%3D%C3%BC&since=2026-05-29T12%3A00%3A00.000Z";
        assert_eq!(list.page_path(None), format!("/writes?limit=500&{filters}"));
        assert_eq!(
            list.page_path(Some("x+y")),
            format!("/writes?limit=500&{filters}&after=x%2By")
        );
    }
}
