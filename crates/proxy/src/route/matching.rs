//! Which route of a virtual host is the first to match. Long lists are indexed: a request looks
//! only at routes whose path can match.

use std::collections::HashMap;
use std::sync::Arc;

use super::{Criteria, PathMatch, RouteEntry, VirtualHost};
use crate::http::request::RequestHead;
use crate::matcher::header::all_match;
use crate::stream_info::StreamInfo;

/// The path as criteria see it: without query, fragment, and parameters where they are ignored.
pub(crate) struct Path<'a>(pub &'a [u8]);

impl<'a> Path<'a> {
    pub fn of(head: &'a RequestHead, ignore_parameters: bool) -> Path<'a> {
        let path: &'a [u8] = &head.path;
        let end = memchr::memchr2(b'?', b'#', path).unwrap_or(path.len());
        let path = &path[..end];
        let end = if ignore_parameters {
            memchr::memchr(b';', path)
        } else {
            None
        };
        Path(&path[..end.unwrap_or(path.len())])
    }
}

/// Below this a list is simply walked.
const INDEX_FROM: usize = 16;

/// For lists that begin with many exact paths (or prefixes): where the first candidate is.
#[derive(Debug, Default)]
pub(crate) struct Index {
    /// Case-sensitive exact paths: their positions, ascending.
    exact: HashMap<Box<[u8]>, Vec<usize>>,
    /// Everything else, ascending.
    others: Vec<usize>,
    used: bool,
}

impl Index {
    pub fn of(routes: &[Arc<RouteEntry>]) -> Index {
        let mut index = Index {
            used: routes.len() >= INDEX_FROM,
            ..Index::default()
        };
        if !index.used {
            return index;
        }
        for (at, route) in routes.iter().enumerate() {
            match &route.criteria.path {
                PathMatch::Exact(path) if route.criteria.case_sensitive => {
                    index
                        .exact
                        .entry(path.as_bytes().into())
                        .or_default()
                        .push(at);
                }
                _ => index.others.push(at),
            }
        }
        index
    }
}

impl VirtualHost {
    pub(crate) fn find(
        &self,
        head: &RequestHead,
        path: &Path<'_>,
        stream: &StreamInfo,
        random: u64,
    ) -> Option<&Arc<RouteEntry>> {
        let matches = |route: &&Arc<RouteEntry>| route.criteria.matches(head, path, stream, random);
        if !self.index.used {
            return self.routes.iter().find(matches);
        }
        // Both lists ascend: merged they are the order of the configuration.
        let exact = self.index.exact.get(path.0).map_or(&[][..], Vec::as_slice);
        let (mut exact, mut others) =
            (exact.iter().peekable(), self.index.others.iter().peekable());
        loop {
            let next = match (exact.peek(), others.peek()) {
                (Some(a), Some(b)) if a < b => exact.next(),
                (_, Some(_)) => others.next(),
                (Some(_), None) => exact.next(),
                (None, None) => return None,
            };
            let route = &self.routes[*next?];
            if matches(&route) {
                return Some(route);
            }
        }
    }
}

impl Criteria {
    fn matches(
        &self,
        head: &RequestHead,
        path: &Path<'_>,
        stream: &StreamInfo,
        random: u64,
    ) -> bool {
        self.path_matches(head, path.0)
            && self.fraction.is_none_or(|fraction| fraction.holds(random))
            && all_match(&self.headers, |name| head.values(name))
            && self.query.iter().all(|one| one.matches(head.query()))
            && (!self.grpc || head.is_grpc())
            && self.tls_matches(stream)
    }

    fn path_matches(&self, head: &RequestHead, path: &[u8]) -> bool {
        let same = |value: &[u8], text: &str| {
            if self.case_sensitive {
                value == text.as_bytes()
            } else {
                value.eq_ignore_ascii_case(text.as_bytes())
            }
        };
        match &self.path {
            PathMatch::Prefix(prefix) => path
                .get(..prefix.len())
                .is_some_and(|start| same(start, prefix)),
            PathMatch::Exact(text) => same(path, text),
            PathMatch::Regex(regex) => regex.is_full_match(path),
            PathMatch::SeparatedPrefix(prefix) => {
                path.get(..prefix.len())
                    .is_some_and(|start| same(start, prefix))
                    && path.get(prefix.len()).is_none_or(|next| *next == b'/')
            }
            PathMatch::Connect => head.method == "CONNECT",
        }
    }

    fn tls_matches(&self, stream: &StreamInfo) -> bool {
        let Some((presented, validated)) = self.tls else {
            return true;
        };
        let tls = stream.downstream.tls.as_deref();
        let has = tls.is_some_and(|tls| !tls.certificate.is_empty() || tls.verified);
        let valid = tls.is_some_and(|tls| tls.verified);
        presented.is_none_or(|want| want == has) && validated.is_none_or(|want| want == valid)
    }

    /// How much of the path the criterion matched: what a prefix rewrite replaces.
    pub(crate) fn matched_length(&self, path: &[u8]) -> usize {
        match &self.path {
            PathMatch::Prefix(prefix) | PathMatch::SeparatedPrefix(prefix) => prefix.len(),
            PathMatch::Exact(_) | PathMatch::Regex(_) | PathMatch::Connect => path.len(),
        }
        .min(path.len())
    }
}
