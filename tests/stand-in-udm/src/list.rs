//! Lists: what a query asks for, and paging as it is (do not use it).

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use percent_encoding::percent_decode_str;

use crate::filter::Filter;

/// A query, as far as the stand-in plays it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// Subtree under which to look; the LDAP base if `None`.
    pub position: Option<String>,
    /// Only direct children of the position.
    pub one_level: bool,
    /// With hidden objects.
    pub hidden: bool,
    /// Whole objects.
    pub opened: bool,
    /// Only what matches.
    pub filter: Option<Filter>,
    /// `(page, limit)`.
    pub page: Option<(usize, usize)>,
    /// Everything but the page: the key of the server's cookie.
    pub cookie_key: String,
}

/// Reads a query string.
///
/// # Errors
/// Name of the parameter that the stand-in does not play, or `filter` if that can't be read.
pub fn parse(query: &str) -> Result<Query, String> {
    let mut parsed = Query {
        position: None,
        one_level: false,
        hidden: true,
        opened: true,
        filter: None,
        page: None,
        cookie_key: query.split('&').filter(|p| !p.starts_with("page=")).collect::<Vec<_>>().join("&"),
    };
    let (mut page, mut limit, mut properties) = (None, None, Vec::new());
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let [name, value] = [name, value]
            .map(|text| percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned());
        let flag = || !matches!(value.as_str(), "0" | "false" | "off" | "no" | "");
        match name.as_str() {
            "scope" if value == "sub" => {}
            "scope" if value == "one" => parsed.one_level = true,
            "position" => parsed.position = Some(value),
            "hidden" => parsed.hidden = flag(),
            "opened" => parsed.opened = flag(),
            "properties" => properties.push(value),
            "page" => page = value.parse().ok(),
            "limit" => limit = value.parse().ok(),
            "filter" => parsed.filter = Some(Filter::parse(&value).ok_or(name)?),
            "dir" | "by" => {}
            other => return Err(other.to_owned()),
        }
    }
    if properties == ["dn"] {
        parsed.opened = false;
    }
    parsed.page = limit.filter(|limit| *limit > 0).map(|limit| (page.unwrap_or(1), limit));
    Ok(parsed)
}

/// The cookies of paged searches: how many pages of a query have been read.
#[derive(Debug, Default)]
pub struct Paging {
    pages_read: Mutex<HashMap<String, usize>>,
}

impl Paging {
    /// Which entries a page shows. As in UDM, a page that was read before is empty when it is asked for again, and
    /// a page before it starts the search anew.
    pub fn range(&self, key: &str, page: usize, limit: usize) -> std::ops::Range<usize> {
        let mut pages_read = self.pages_read.lock().unwrap_or_else(PoisonError::into_inner);
        let read = pages_read.entry(key.to_owned()).or_default();
        if page < *read {
            *read = 0;
        }
        if page == *read {
            return 0..0;
        }
        *read = page;
        (page - 1) * limit..page * limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_query_of_a_prefill_is_cheap() {
        let query = parse("scope=sub&hidden=true&opened=0&properties=dn").unwrap();
        assert!(!query.opened && query.hidden && !query.one_level && query.page.is_none());
        assert!(!parse("properties=dn").unwrap().opened, "old versions know no `opened`");
        assert!(parse("properties=dn&properties=username").unwrap().opened);
        assert!(parse("scope=sub").unwrap().opened);
        assert!(!parse("hidden=0").unwrap().hidden);
        assert_eq!(parse("position=cn%3Dusers%2Cdc%3Dx").unwrap().position.as_deref(), Some("cn=users,dc=x"));
        assert!(parse("filter=%28a=b%29").unwrap().filter.is_some());
        assert_eq!(parse("filter=%28%28").unwrap_err(), "filter");
    }

    #[test]
    fn a_page_that_is_asked_for_again_is_empty() {
        let paging = Paging::default();
        let pages = [1, 2, 2, 3, 1].map(|page| paging.range("a", page, 10));
        assert_eq!(pages, [0..10, 10..20, 0..0, 20..30, 0..10]);
        assert_eq!(paging.range("b", 2, 10), 10..20);
        assert_eq!(parse("page=2&limit=10&x").unwrap_err(), "x");
        assert_eq!(parse("page=2&limit=10").unwrap().cookie_key, "limit=10");
    }
}
