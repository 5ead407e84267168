//! Tests of single values that several kinds share.

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use regex::RegexBuilder;

use crate::host;
use crate::kinds::string_match::StringMatch;

/// Text of the user's, cut to a bearable length.
pub fn cut(text: &str) -> String {
    text.chars().take(80).collect()
}

pub fn port(number: u32) -> Result<(), String> {
    match number {
        1..=65535 => Ok(()),
        _ => Err(format!("port {number} is not in the range 1 to 65535")),
    }
}

pub fn port_name(name: &str) -> Result<(), String> {
    match host::is_dns_label(name) {
        true => Ok(()),
        false => Err(format!("{:?} is not a valid port name", cut(name))),
    }
}

/// A millisecond at least, and whole milliseconds.
pub fn duration(value: Duration) -> Result<(), String> {
    if value < Duration::from_millis(1) {
        return Err("must be at least 1ms".to_owned());
    }
    match value.subsec_nanos() % 1_000_000 {
        0 => Ok(()),
        _ => Err("durations are precise to the millisecond only".to_owned()),
    }
}

/// An address, or a range in CIDR notation.
pub fn ip_or_range(text: &str) -> Result<(), String> {
    let good = match text.contains('/') {
        true => text.parse::<IpNet>().is_ok(),
        false => text.parse::<IpAddr>().is_ok(),
    };
    match good {
        true => Ok(()),
        false => Err(format!(
            "{:?} is not an IP address or CIDR range",
            cut(text)
        )),
    }
}

pub fn is_ip(text: &str) -> bool {
    text.parse::<IpAddr>().is_ok()
}

pub fn ip(text: &str) -> Result<(), String> {
    match is_ip(text) {
        true => Ok(()),
        false => Err(format!("{:?} is not an IP address", cut(text))),
    }
}

/// What follows `unix://`: an absolute path, or an abstract name after `@`.
pub fn unix_address(address: &str) -> Result<(), String> {
    let path = address.strip_prefix("unix://").unwrap_or(address);
    if path.is_empty() {
        return Err("the path of the unix socket is empty".to_owned());
    }
    if path.starts_with('@') {
        return Ok(());
    }
    match path.starts_with('/') && !path.ends_with('/') {
        true => Ok(()),
        false => Err(format!(
            "{:?} is not the absolute path of a file",
            cut(path)
        )),
    }
}

/// Namespaces are DNS labels.
pub fn is_namespace(name: &str) -> bool {
    host::is_dns_label(name) && !name.bytes().any(|b| b.is_ascii_uppercase())
}

/// RE2 as Envoy takes it. Rust's engine has the same language for all that matters here.
pub fn regex(pattern: &str) -> Result<(), String> {
    if pattern.is_empty() {
        return Err("the regular expression is empty".to_owned());
    }
    if pattern.len() > 1024 {
        return Err("the regular expression is longer than 1024 bytes".to_owned());
    }
    match RegexBuilder::new(pattern).size_limit(1 << 20).build() {
        Err(regex::Error::Syntax(why)) => {
            let last = why.lines().last().unwrap_or("").trim();
            Err(format!("not a regular expression (RE2): {last}"))
        }
        _ => Ok(()),
    }
}

/// A matcher whose regular expression, if it has one, can be taken.
pub fn string_regex(matcher: &StringMatch) -> Result<(), String> {
    match matcher {
        StringMatch::Regex(pattern) => regex(pattern),
        _ => Ok(()),
    }
}

/// The same, and an empty prefix (which would match everything) is refused.
pub fn string_match(matcher: &StringMatch) -> Result<(), String> {
    match matcher {
        StringMatch::Prefix(prefix) if prefix.is_empty() => {
            Err("the prefix must not be empty".to_owned())
        }
        other => string_regex(other),
    }
}

pub fn header_name(name: &str) -> Result<(), String> {
    match name {
        "" => Err("the header name is empty".to_owned()),
        _ => Ok(()),
    }
}

/// Letters, digits, `-` and `_`.
pub fn strict_header_name(name: &str) -> Result<(), String> {
    let good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
    match !name.is_empty() && name.bytes().all(good) {
        true => Ok(()),
        false => Err(format!("{:?} is not a header name", cut(name))),
    }
}

/// A header that may be changed: no pseudo-header and not Host, unless `authority` allows that.
pub fn changeable_header(name: &str, authority: bool) -> Result<(), String> {
    header_name(name)?;
    let is_authority = name == ":authority" || name.eq_ignore_ascii_case("host");
    let is_internal = name.starts_with(':') || name.eq_ignore_ascii_case("host");
    match is_internal && !(authority && is_authority) {
        true => Err(format!("the header {:?} cannot be changed", cut(name))),
        false => Ok(()),
    }
}

/// Envoy's format: `%%`, or `%COMMAND(arguments):length%`, or plain text.
pub fn header_value(value: &str) -> Result<(), String> {
    let bad = || {
        Err(format!(
            "the header value {:?} is not a valid format string",
            cut(value)
        ))
    };
    let mut rest = value;
    while let Some(start) = rest.find('%') {
        rest = &rest[start + 1..];
        if let Some(after) = rest.strip_prefix('%') {
            rest = after;
            continue;
        }
        let name = rest
            .bytes()
            .take_while(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || *b == b'_');
        let length = name.count();
        if length == 0 {
            return bad();
        }
        rest = &rest[length..];
        if rest.starts_with('(') {
            // Arguments may hold `)` before the one that ends the command.
            let end = rest
                .find(")%")
                .map(|end| end + 1)
                .or_else(|| rest.find("):").map(|end| end + 1));
            match end {
                Some(end) => rest = &rest[end..],
                None => return bad(),
            }
        }
        if let Some(after) = rest.strip_prefix(':') {
            rest = after.trim_start_matches(|c: char| c.is_ascii_digit());
        }
        match rest.strip_prefix('%') {
            Some(after) => rest = after,
            None => return bad(),
        }
    }
    Ok(())
}

/// `true` for 0 and for 0.0001 to 100.
pub fn is_percentage(value: f64) -> bool {
    value == 0.0 || (0.0001..=100.0).contains(&value)
}

/// A URL of one of the schemes with a host and, if any, a numeric port.
pub fn url(text: &str, schemes: &[&str]) -> Result<(), String> {
    let bad = |why: &str| Err(format!("{:?} is not a URL: {why}", cut(text)));
    let Some((scheme, rest)) = text.split_once("://") else {
        return bad("it has no scheme");
    };
    if !schemes.contains(&scheme) {
        return bad("its scheme is not one of the allowed ones");
    }
    let authority = rest.split(['/', '?', '#']).next().unwrap_or("");
    let authority = authority
        .rsplit_once('@')
        .map_or(authority, |(_, host)| host);
    let (name, port) = match authority
        .strip_prefix('[')
        .and_then(|v6| v6.split_once(']'))
    {
        Some((address, port)) => (address, port.strip_prefix(':')),
        None => match authority.split_once(':') {
            Some((name, port)) => (name, Some(port)),
            None => (authority, None),
        },
    };
    if name.is_empty() {
        return bad("it has no host");
    }
    match port {
        Some(port) if port.parse::<u16>().is_err() => bad("its port is not a number"),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_values_are_format_strings() {
        for (input, want, why) in [
            ("foo", true, "plain"),
            ("%HOSTNAME%", true, "a command"),
            ("100%%", true, "an escaped percent sign"),
            (
                "%DOWNSTREAM_PEER_CERT_V_END(%b %d %H:%M:%S %Y %Z)%",
                true,
                "with a time format",
            ),
            ("%REQ(X-A?Y):10%", true, "with a length"),
            ("%START_TIME%%", false, "one sign too many"),
            ("abc%123", false, "not closed"),
            ("abc%abc%", false, "lower case"),
        ] {
            assert_eq!(header_value(input).is_ok(), want, "{input}: {why}");
        }
    }

    #[test]
    fn urls_have_scheme_host_and_a_numeric_port() {
        for (input, want) in [
            ("https://foo.com/cert", true),
            ("https://[::1]:8080/x", true),
            ("foo.com", false),
            ("https://foo.com:not-a-number", false),
            ("ftp://foo.com", false),
            ("https:///x", false),
        ] {
            assert_eq!(url(input, &["http", "https"]).is_ok(), want, "{input}");
        }
    }
}
