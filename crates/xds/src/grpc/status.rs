//! gRPC's status: codes, and how they travel in trailers.

use http::{HeaderMap, HeaderValue};

macro_rules! codes {
    ($($name:ident $value:literal $text:literal,)*) => {
        /// gRPC's status codes.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Code {
            $(#[doc = $text] $name = $value,)*
        }

        impl Code {
            /// The code of a number; what gRPC does not know is `Unknown`.
            pub fn from_number(number: u32) -> Code {
                match number { $($value => Code::$name,)* _ => Code::Unknown }
            }

            /// gRPC's own spelling.
            pub fn name(self) -> &'static str {
                match self { $(Code::$name => $text,)* }
            }
        }
    };
}

codes! {
    Ok 0 "OK",
    Canceled 1 "CANCELLED",
    Unknown 2 "UNKNOWN",
    InvalidArgument 3 "INVALID_ARGUMENT",
    DeadlineExceeded 4 "DEADLINE_EXCEEDED",
    NotFound 5 "NOT_FOUND",
    AlreadyExists 6 "ALREADY_EXISTS",
    PermissionDenied 7 "PERMISSION_DENIED",
    ResourceExhausted 8 "RESOURCE_EXHAUSTED",
    FailedPrecondition 9 "FAILED_PRECONDITION",
    Aborted 10 "ABORTED",
    OutOfRange 11 "OUT_OF_RANGE",
    Unimplemented 12 "UNIMPLEMENTED",
    Internal 13 "INTERNAL",
    Unavailable 14 "UNAVAILABLE",
    DataLoss 15 "DATA_LOSS",
    Unauthenticated 16 "UNAUTHENTICATED",
}

/// How a call ended when it did not end well (or `Ok`).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {message}", code.name())]
pub struct Status {
    /// The code.
    pub code: Code,
    /// The text for humans.
    pub message: String,
}

impl Status {
    /// A status of any code.
    pub fn new(code: Code, message: impl Into<String>) -> Status {
        Status {
            code,
            message: message.into(),
        }
    }

    /// The other side cannot be reached or went away.
    pub fn unavailable(message: impl ToString) -> Status {
        Status::new(Code::Unavailable, message.to_string())
    }

    /// Our own fault.
    pub fn internal(message: impl ToString) -> Status {
        Status::new(Code::Internal, message.to_string())
    }

    /// The caller's fault.
    pub fn invalid_argument(message: impl ToString) -> Status {
        Status::new(Code::InvalidArgument, message.to_string())
    }

    /// The status that trailers (or the headers of a response without body) carry, if any.
    pub(crate) fn from_headers(headers: &HeaderMap) -> Option<Status> {
        let number = headers
            .get("grpc-status")?
            .to_str()
            .ok()?
            .parse()
            .unwrap_or(2);
        let message = headers
            .get("grpc-message")
            .map(|value| decode(value.as_bytes()));
        Some(Status::new(
            Code::from_number(number),
            message.unwrap_or_default(),
        ))
    }

    /// The trailers of a call that ended so.
    pub(crate) fn trailers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert("grpc-status", HeaderValue::from(self.code as u16));
        if !self.message.is_empty()
            && let Ok(value) = HeaderValue::from_str(&encode(&self.message))
        {
            headers.insert("grpc-message", value);
        }
        headers
    }
}

fn encode(message: &str) -> String {
    let mut out = String::with_capacity(message.len());
    for byte in message.bytes() {
        match byte {
            b' '..=b'~' if byte != b'%' => out.push(byte as char),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

fn decode(value: &[u8]) -> String {
    let mut out = Vec::with_capacity(value.len());
    let mut rest = value;
    while let Some((&first, tail)) = rest.split_first() {
        let escaped = (first == b'%')
            .then(|| tail.get(..2))
            .flatten()
            .and_then(|hex| std::str::from_utf8(hex).ok())
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match escaped {
            Some(byte) => {
                out.push(byte);
                rest = &tail[2..];
            }
            None => {
                out.push(first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn travels_in_trailers() {
        for message in ["", "plain", "100% näh\nnext", "%zz"] {
            let status = Status::new(Code::PermissionDenied, message);
            assert_eq!(
                Status::from_headers(&status.trailers()),
                Some(status),
                "{message:?}"
            );
        }
        assert_eq!(
            Status::from_headers(&HeaderMap::new()),
            None,
            "no status yet"
        );
    }
}
