//! What a chosen route does to the request before it goes upstream, and to the response before
//! it goes downstream.

use super::{HostRewrite, PathRewrite, Selected};
use crate::access_log::Input;
use crate::http::request::{RequestHead, ResponseHead};
use crate::stream_info::StreamInfo;

impl Selected {
    /// Header edits (weighted cluster, route, virtual host, table), then host, then path.
    /// `keep_original`: record what was rewritten in `x-envoy-original-…`, unless the router
    /// suppresses Envoy's headers.
    pub fn finalize_request(
        &self,
        head: &mut RequestHead,
        stream: &StreamInfo,
        keep_original: bool,
    ) {
        let of_cluster = self.weighted().and_then(|one| one.request_edits.as_ref());
        for edits in of_cluster.into_iter().chain(&self.route.request_edits) {
            let values = {
                let (request, response, trailers) = (Some(&*head), None, None);
                edits.values(&Input {
                    stream,
                    request,
                    response,
                    trailers,
                })
            };
            edits.apply(&mut head.headers, &values);
        }
        self.rewrite_host(head, keep_original);
        self.rewrite_path(head, keep_original);
    }

    /// Header edits of the response.
    pub fn finalize_response(
        &self,
        head: &mut ResponseHead,
        request: &RequestHead,
        stream: &StreamInfo,
    ) {
        let of_cluster = self.weighted().and_then(|one| one.response_edits.as_ref());
        for edits in of_cluster.into_iter().chain(&self.route.response_edits) {
            let values = {
                let (request, response, trailers) = (Some(request), Some(&*head), None);
                edits.values(&Input {
                    stream,
                    request,
                    response,
                    trailers,
                })
            };
            edits.apply(&mut head.headers, &values);
        }
    }

    fn rewrite_host(&self, head: &mut RequestHead, keep_original: bool) {
        let Some(forward) = self.forward() else {
            return;
        };
        // A weighted cluster's own rewrite leaves no trace, as in Envoy.
        if let Some(host) = self.weighted().and_then(|one| one.host_rewrite.as_ref()) {
            head.authority = bytes::Bytes::copy_from_slice(host.as_bytes());
        }
        let new = match &forward.host_rewrite {
            HostRewrite::Literal(host) => Some(host.clone().into_bytes()),
            // The engine sets the name of the host that it chose.
            HostRewrite::None | HostRewrite::Auto => None,
            HostRewrite::Header(name) => head.headers.get(name).map(<[u8]>::to_vec),
            HostRewrite::PathRegex(substitution) => Some(substitution.apply(head.path_only())),
        };
        if let Some(new) = new.filter(|new| !new.is_empty()) {
            set_authority(head, &new, (forward.append_x_forwarded_host, keep_original));
        }
    }

    /// For `auto_host_rewrite`: the chosen host's name becomes the authority.
    pub fn rewrite_to_host(&self, head: &mut RequestHead, hostname: &str, keep_original: bool) {
        let Some(forward) = self.forward() else {
            return;
        };
        if matches!(forward.host_rewrite, HostRewrite::Auto) && !hostname.is_empty() {
            let append = forward.append_x_forwarded_host;
            set_authority(head, hostname.as_bytes(), (append, keep_original));
        }
    }

    fn rewrite_path(&self, head: &mut RequestHead, keep_original: bool) {
        let Some(forward) = self.forward() else {
            return;
        };
        let cut = memchr::memchr2(b'?', b'#', &head.path).unwrap_or(head.path.len());
        let (bare, rest) = head.path.split_at(cut);
        let new = match &forward.path_rewrite {
            PathRewrite::None => return,
            PathRewrite::Prefix(prefix) => {
                let matched = self.route.criteria.matched_length(bare);
                [prefix.as_bytes(), &bare[matched..]].concat()
            }
            PathRewrite::Regex(substitution) => substitution.apply(bare),
        };
        let new = [&new[..], rest].concat();
        if keep_original {
            let original = head.path.clone();
            head.headers.set("x-envoy-original-path", &original);
        }
        head.path = new.into();
    }
}

fn set_authority(head: &mut RequestHead, new: &[u8], (append, keep_original): (bool, bool)) {
    if keep_original && !head.authority.is_empty() {
        let old = head.authority.clone();
        head.headers.set("x-envoy-original-host", &old);
    }
    if append {
        let old = head.authority.clone();
        match head
            .headers
            .joined("x-forwarded-host")
            .map(|value| value.into_owned())
        {
            Some(list) if list.rsplit(|byte| *byte == b',').next() == Some(&old[..]) => {}
            Some(list) => head
                .headers
                .set("x-forwarded-host", &[&list[..], b",", &old].concat()),
            None => head.headers.append("x-forwarded-host", &old),
        }
    }
    head.authority = bytes::Bytes::copy_from_slice(new);
}
