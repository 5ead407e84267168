//! A small blocking HTTP/1.1 client for scenarios: every failure is an answer that can be counted.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// 0 when there was none.
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: String,
    pub took: Duration,
    /// Why there was no whole answer.
    pub failure: Option<String>,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut found = self
            .headers
            .iter()
            .filter(|(n, _)| n.eq_ignore_ascii_case(name));
        found.next().map(|(_, value)| value.as_str())
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_default()
    }

    pub fn is_good(&self) -> bool {
        self.failure.is_none() && (200..300).contains(&self.status)
    }
}

/// A connection that is opened when first used and again when it was lost.
pub struct Client {
    address: SocketAddr,
    timeout: Duration,
    stream: Option<TcpStream>,
}

impl Client {
    pub fn new(address: SocketAddr) -> Client {
        Client {
            address,
            timeout: Duration::from_secs(30),
            stream: None,
        }
    }

    pub fn get(&mut self, path: &str, headers: &[(&str, &str)]) -> Answer {
        let begun = Instant::now();
        let mut answer = self.exchange(path, headers).unwrap_or_else(|error| {
            self.stream = None;
            Answer {
                failure: Some(error.to_string()),
                ..Answer::default()
            }
        });
        if answer
            .header("connection")
            .is_some_and(|value| value.eq_ignore_ascii_case("close"))
        {
            self.stream = None;
        }
        answer.took = begun.elapsed();
        answer
    }

    fn exchange(&mut self, path: &str, headers: &[(&str, &str)]) -> std::io::Result<Answer> {
        if self.stream.is_none() {
            let stream = TcpStream::connect_timeout(&self.address, self.timeout)?;
            stream.set_read_timeout(Some(self.timeout))?;
            stream.set_nodelay(true)?;
            self.stream = Some(stream);
        }
        let Some(stream) = self.stream.as_mut() else {
            return Err(ended());
        };
        let mut request = format!("GET {path} HTTP/1.1\r\n");
        if !headers
            .iter()
            .any(|(name, _)| name.eq_ignore_ascii_case("host"))
        {
            request += &format!("host: {}\r\n", self.address);
        }
        for (name, value) in headers {
            request += &format!("{name}: {value}\r\n");
        }
        stream.write_all((request + "\r\n").as_bytes())?;
        read_answer(stream)
    }
}

fn ended() -> std::io::Error {
    std::io::Error::new(std::io::ErrorKind::UnexpectedEof, "the connection ended")
}

fn read_answer(stream: &mut TcpStream) -> std::io::Result<Answer> {
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(at) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break at;
        }
        more(stream, &mut bytes)?;
    };
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let mut lines = head.split("\r\n");
    let first = lines.next().unwrap_or_default();
    let status = first
        .split(' ')
        .nth(1)
        .and_then(|code| code.parse().ok())
        .unwrap_or(0);
    let headers = lines.filter_map(|line| line.split_once(':'));
    let headers = headers
        .map(|(n, v)| (n.to_owned(), v.trim().to_owned()))
        .collect();
    let mut answer = Answer {
        status,
        headers,
        ..Answer::default()
    };
    let mut rest = bytes.split_off(end + 4);
    let chunked = answer
        .header("transfer-encoding")
        .is_some_and(|v| v.contains("chunked"));
    let length = answer
        .header("content-length")
        .and_then(|text| text.parse::<usize>().ok());
    let body = match (chunked, length) {
        (true, _) => chunks(stream, &mut rest)?,
        (_, Some(length)) => {
            while rest.len() < length {
                more(stream, &mut rest)?;
            }
            rest
        }
        (_, None) => {
            while more(stream, &mut rest).is_ok() {}
            rest
        }
    };
    answer.body = String::from_utf8_lossy(&body).into_owned();
    Ok(answer)
}

fn more(stream: &mut TcpStream, bytes: &mut Vec<u8>) -> std::io::Result<()> {
    let mut buffer = [0; 16_384];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return Err(ended()),
            Ok(count) => {
                bytes.extend_from_slice(&buffer[..count]);
                return Ok(());
            }
            // A read with a timeout ends so when the machine was paused: nothing was lost.
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn chunks(stream: &mut TcpStream, rest: &mut Vec<u8>) -> std::io::Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let end = loop {
            if let Some(at) = rest.windows(2).position(|window| window == b"\r\n") {
                break at;
            }
            more(stream, rest)?;
        };
        let line = String::from_utf8_lossy(&rest[..end]).into_owned();
        let size = usize::from_str_radix(line.trim(), 16).map_err(|_| ended())?;
        while rest.len() < end + 2 + size + 2 {
            more(stream, rest)?;
        }
        body.extend_from_slice(&rest[end + 2..end + 2 + size]);
        rest.drain(..end + 2 + size + 2);
        if size == 0 {
            return Ok(body);
        }
    }
}
