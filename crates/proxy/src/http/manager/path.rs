//! Canonical paths: what routing and policies see is what the upstream gets (CVE class: a policy
//! that reads another path than the application).
use bytes::Bytes;

use crate::http::request::RequestHead;
use crate::parse::http_connection_manager::{EscapedSlashes, HttpConnectionManager};

/// The path was refused, or the client must come again with another one.
#[derive(Debug, PartialEq, Eq)]
pub enum PathProblem {
    /// 400 `path_normalization_failed`.
    Bad,
    /// 307 to the path with its slashes unescaped.
    Redirect(Vec<u8>),
}

/// Applies the listener's path settings to the head.
pub fn canonicalise(
    head: &mut RequestHead,
    config: &HttpConnectionManager,
) -> Result<(), PathProblem> {
    if head.path.is_empty() || &head.path[..] == b"*" {
        return Ok(());
    }
    // A fragment in a request target is read in different ways by different programs.
    if head.path.contains(&b'#') {
        return Err(PathProblem::Bad);
    }
    let escapes = config.escaped_slashes != EscapedSlashes::Keep;
    let plain = !config.normalize_path && !config.merge_slashes && !escapes;
    if plain || is_canonical(head.path_only()) {
        return Ok(());
    }
    let (path, query) = (head.path_only(), head.query());
    let mut path = path.to_vec();
    let mut redirect = false;
    if escapes && let Some(unescaped) = unescape_slashes(&path) {
        match config.escaped_slashes {
            EscapedSlashes::Reject => return Err(PathProblem::Bad),
            EscapedSlashes::UnescapeAndRedirect => redirect = true,
            _ => {}
        }
        path = unescaped;
    }
    if config.normalize_path {
        path = normalise(&path).ok_or(PathProblem::Bad)?;
    }
    if config.merge_slashes {
        path.dedup_by(|later, earlier| *later == b'/' && *earlier == b'/');
    }
    if let Some(query) = query {
        path.push(b'?');
        path.extend_from_slice(query);
    }
    if redirect {
        head.path = Bytes::from(path.clone());
        return Err(PathProblem::Redirect(path));
    }
    if path != head.path {
        head.original_path = Some(std::mem::replace(&mut head.path, Bytes::from(path)));
    }
    Ok(())
}

/// Nothing any setting could change: no `.` segment, `//`, `%`, backslash or byte to escape.
fn is_canonical(path: &[u8]) -> bool {
    let mut previous = 0;
    for &byte in path {
        let odd = matches!(byte, b'%' | b'\\' | b'<' | b'>' | b'"' | b'`' | b'{' | b'}')
            || !(0x21..0x7f).contains(&byte)
            || (previous == b'/' && (byte == b'/' || byte == b'.'));
        if odd {
            return false;
        }
        previous = byte;
    }
    path.first() == Some(&b'/')
}

/// `%2F` and `%5C` as the characters they stand for; `None` where there is none.
fn unescape_slashes(path: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(path.len());
    let mut at = 0;
    let mut found = false;
    while at < path.len() {
        let slash = match path.get(at..at + 3) {
            Some([b'%', b'2', b'f' | b'F']) => Some(b'/'),
            Some([b'%', b'5', b'c' | b'C']) => Some(b'\\'),
            _ => None,
        };
        match slash {
            Some(byte) => {
                out.push(byte);
                at += 3;
                found = true;
            }
            None => {
                out.push(path[at]);
                at += 1;
            }
        }
    }
    found.then_some(out)
}

/// RFC 3986 normalisation as Envoy's URL library does it: `.` and `..` resolved (also escaped),
/// backslashes as slashes, unreserved characters unescaped, others escaped.
fn normalise(path: &[u8]) -> Option<Vec<u8>> {
    if path.first() != Some(&b'/') {
        return None;
    }
    let mut out: Vec<u8> = Vec::with_capacity(path.len());
    let mut at = 0;
    while at < path.len() {
        let byte = path[at];
        at += 1;
        match byte {
            b'%' => match path.get(at..at + 2).and_then(hex) {
                Some(0) => return None,
                Some(value) if is_unreserved(value) => {
                    out.push(value);
                    at += 2;
                }
                _ => out.push(b'%'),
            },
            b'\\' => out.push(b'/'),
            b'<' | b'>' | b'"' | b'`' | b'{' | b'}' | 0..=0x20 | 0x7f.. => {
                out.extend(format!("%{byte:02X}").bytes());
            }
            byte => out.push(byte),
        }
    }
    Some(remove_dot_segments(&out))
}

fn hex(digits: &[u8]) -> Option<u8> {
    let digit = |byte: u8| (byte as char).to_digit(16).map(|value| value as u8);
    Some(digit(digits[0])? * 16 + digit(digits[1])?)
}

fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

fn remove_dot_segments(path: &[u8]) -> Vec<u8> {
    let mut out: Vec<&[u8]> = Vec::new();
    let mut segments = path[1..].split(|byte| *byte == b'/').peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        match segment {
            b"." if last => out.push(b""),
            b"." => {}
            b".." => {
                out.pop();
                if last {
                    out.push(b"");
                }
            }
            segment => out.push(segment),
        }
    }
    let mut joined = Vec::with_capacity(path.len());
    for segment in &out {
        joined.push(b'/');
        joined.extend_from_slice(segment);
    }
    if joined.is_empty() {
        joined.push(b'/');
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normalises_as_envoy_does() {
        for (path, want) in [
            ("/", "/"),
            ("/a/b/", "/a/b/"),
            ("/a/./b", "/a/b"),
            ("/a/../b", "/b"),
            ("/../../x", "/x"),
            ("/a/..", "/"),
            ("/a/b/.", "/a/b/"),
            ("/a/%2e%2E/b", "/b"),
            ("/a\\..\\b", "/b"),
            ("/%41%2fb", "/A%2fb"),
            ("/a b", "/a%20b"),
            ("/a//b", "/a//b"),
            ("/%zz", "/%zz"),
        ] {
            let got = normalise(path.as_bytes()).unwrap();
            assert_eq!(String::from_utf8_lossy(&got), want, "{path}");
            let again = normalise(&got).unwrap();
            assert_eq!(again, got, "twice is once: {path}");
            if is_canonical(path.as_bytes()) {
                assert_eq!(want, path, "canonical paths stay");
            }
        }
        assert_eq!(normalise(b"/a%00b"), None, "NUL is refused");
    }
}
