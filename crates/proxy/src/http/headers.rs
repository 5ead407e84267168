//! Headers: ordered, original case kept, backed by the bytes they arrived in; no copy until an
//! edit. A name is looked up by its lower-case form; pseudo headers live in the heads, not here.
use std::borrow::Cow;

use bytes::Bytes;

/// One header: offsets into the received bytes, or past their end into the bytes added by us.
#[derive(Clone, Copy, Debug)]
struct Entry {
    name: u32,
    value: u32,
    value_len: u32,
    name_len: u16,
    /// The received line is exactly `name: value\r\n`, so that it can be copied as it stands.
    canonical: bool,
}

/// An ordered list of headers. Names compare without case, callers pass them in lower case.
#[derive(Clone, Debug, Default)]
pub struct Headers {
    received: Bytes,
    added: Vec<u8>,
    entries: Vec<Entry>,
}

impl Headers {
    pub fn new() -> Headers {
        Headers::default()
    }

    /// Empty headers with room for this many lines and bytes.
    pub fn with_capacity(lines: usize, bytes: usize) -> Headers {
        Headers {
            received: Bytes::new(),
            added: Vec::with_capacity(bytes),
            entries: Vec::with_capacity(lines),
        }
    }

    /// Headers over bytes that were received; `push_received` names the lines in them.
    pub fn over(received: Bytes, capacity: usize) -> Headers {
        Headers {
            received,
            added: Vec::new(),
            entries: Vec::with_capacity(capacity),
        }
    }

    /// Names a line of the received bytes: offsets of the name and of the value.
    pub fn push_received(&mut self, name: (usize, usize), value: (usize, usize)) {
        let (name_at, name_len) = name;
        let (value_at, value_len) = value;
        let end = value_at + value_len;
        let canonical = value_at == name_at + name_len + 2
            && self.received.get(name_at + name_len..value_at) == Some(b": ")
            && self.received.get(end..end + 2) == Some(b"\r\n");
        self.entries.push(Entry {
            name: name_at as u32,
            value: value_at as u32,
            value_len: value_len as u32,
            name_len: name_len as u16,
            canonical,
        });
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The first value of this name.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.position(name).map(|at| self.value(&self.entries[at]))
    }

    /// The first value as text; `None` also where it is not UTF-8.
    pub fn get_str(&self, name: &str) -> Option<&str> {
        self.get(name)
            .and_then(|value| std::str::from_utf8(value).ok())
    }

    pub fn contains(&self, name: &str) -> bool {
        self.position(name).is_some()
    }

    /// Every value of this name, in order.
    pub fn get_all<'a, 'n>(
        &'a self,
        name: &'n str,
    ) -> impl Iterator<Item = &'a [u8]> + use<'a, 'n> {
        self.entries
            .iter()
            .filter(move |entry| self.is(entry, name.as_bytes()))
            .map(|entry| self.value(entry))
    }

    /// The values of this name joined with `,` as Envoy's matchers see them.
    pub fn joined(&self, name: &str) -> Option<Cow<'_, [u8]>> {
        let mut matching = self
            .entries
            .iter()
            .filter(|entry| self.is(entry, name.as_bytes()));
        let first = self.value(matching.next()?);
        let Some(second) = matching.next() else {
            return Some(Cow::Borrowed(first));
        };
        let mut out = first.to_vec();
        for entry in std::iter::once(second).chain(matching) {
            out.push(b',');
            out.extend_from_slice(self.value(entry));
        }
        Some(Cow::Owned(out))
    }

    /// Replaces the first value of this name in place, removes the others, or appends it.
    pub fn set(&mut self, name: &str, value: &[u8]) {
        let Some(at) = self.position(name) else {
            return self.append(name, value);
        };
        let offset = self.store(value);
        let entry = &mut self.entries[at];
        entry.value = offset;
        entry.value_len = value.len() as u32;
        entry.canonical = false;
        let mut later = at + 1;
        while later < self.entries.len() {
            if self.is(&self.entries[later], name.as_bytes()) {
                self.entries.remove(later);
            } else {
                later += 1;
            }
        }
    }

    /// Adds a line at the end, whether or not the name exists.
    pub fn append(&mut self, name: &str, value: &[u8]) {
        self.append_bytes(name.as_bytes(), value);
    }

    /// As `append`, for a name that is already bytes.
    pub fn append_bytes(&mut self, name: &[u8], value: &[u8]) {
        let name_at = self.store(name);
        let value_at = self.store(value);
        self.entries.push(Entry {
            name: name_at,
            value: value_at,
            value_len: value.len() as u32,
            name_len: name.len() as u16,
            canonical: false,
        });
    }

    /// Removes every line of this name; tells whether there was one.
    pub fn remove(&mut self, name: &str) -> bool {
        let name = name.as_bytes();
        let before = self.entries.len();
        let (received, added) = (&self.received, &self.added);
        self.entries
            .retain(|entry| !same_name(name_of(received, added, entry), name));
        self.entries.len() != before
    }

    /// Removes the lines for which `unwanted(name, value)` holds.
    pub fn remove_where(&mut self, mut unwanted: impl FnMut(&[u8], &[u8]) -> bool) {
        let (received, added) = (&self.received, &self.added);
        self.entries.retain(|entry| {
            !unwanted(
                name_of(received, added, entry),
                value_of(received, added, entry),
            )
        });
    }

    /// Every line in order, names in their original case.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.entries
            .iter()
            .map(|entry| (self.name(entry), self.value(entry)))
    }

    /// Bytes of all names and values, as Envoy counts them.
    pub fn byte_size(&self) -> usize {
        self.entries
            .iter()
            .map(|e| usize::from(e.name_len) + e.value_len as usize)
            .sum()
    }

    /// Writes `name: value\r\n` for every line; unchanged neighbours are copied in one run.
    pub fn write_http1(&self, out: &mut Vec<u8>) {
        let mut run: Option<(usize, usize)> = None;
        for entry in &self.entries {
            if entry.canonical {
                let start = entry.name as usize;
                let end = (entry.value + entry.value_len) as usize + 2;
                match &mut run {
                    Some((_, run_end)) if *run_end == start => *run_end = end,
                    _ => {
                        self.flush_run(run.take(), out);
                        run = Some((start, end));
                    }
                }
                continue;
            }
            self.flush_run(run.take(), out);
            out.extend_from_slice(self.name(entry));
            out.extend_from_slice(b": ");
            out.extend_from_slice(self.value(entry));
            out.extend_from_slice(b"\r\n");
        }
        self.flush_run(run, out);
    }

    fn flush_run(&self, run: Option<(usize, usize)>, out: &mut Vec<u8>) {
        if let Some((start, end)) = run {
            out.extend_from_slice(&self.received[start..end]);
        }
    }

    fn position(&self, name: &str) -> Option<usize> {
        let name = name.as_bytes();
        self.entries.iter().position(|entry| self.is(entry, name))
    }

    fn is(&self, entry: &Entry, name: &[u8]) -> bool {
        usize::from(entry.name_len) == name.len() && same_name(self.name(entry), name)
    }

    fn name(&self, entry: &Entry) -> &[u8] {
        name_of(&self.received, &self.added, entry)
    }

    fn value(&self, entry: &Entry) -> &[u8] {
        value_of(&self.received, &self.added, entry)
    }

    fn store(&mut self, bytes: &[u8]) -> u32 {
        let at = self.received.len() + self.added.len();
        self.added.extend_from_slice(bytes);
        at as u32
    }
}

fn same_name(left: &[u8], right: &[u8]) -> bool {
    left.eq_ignore_ascii_case(right)
}

fn name_of<'a>(received: &'a [u8], added: &'a [u8], entry: &Entry) -> &'a [u8] {
    slice(
        received,
        added,
        entry.name as usize,
        usize::from(entry.name_len),
    )
}

fn value_of<'a>(received: &'a [u8], added: &'a [u8], entry: &Entry) -> &'a [u8] {
    slice(
        received,
        added,
        entry.value as usize,
        entry.value_len as usize,
    )
}

fn slice<'a>(received: &'a [u8], added: &'a [u8], at: usize, len: usize) -> &'a [u8] {
    if at < received.len() || (at == received.len() && len == 0) {
        &received[at..at + len]
    } else {
        let at = at - received.len();
        &added[at..at + len]
    }
}

impl<'a> FromIterator<(&'a str, &'a str)> for Headers {
    fn from_iter<T: IntoIterator<Item = (&'a str, &'a str)>>(lines: T) -> Headers {
        let mut headers = Headers::new();
        for (name, value) in lines {
            headers.append(name, value.as_bytes());
        }
        headers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn received() -> Headers {
        let raw = Bytes::from_static(b"Host: a\r\nX-One:  1\r\nx-Two: 2\r\nx-one: 3\r\n");
        let mut headers = Headers::over(raw, 4);
        headers.push_received((0, 4), (6, 1));
        headers.push_received((9, 5), (17, 1));
        headers.push_received((20, 5), (27, 1));
        headers.push_received((30, 5), (37, 1));
        headers
    }

    fn text(headers: &Headers) -> String {
        let mut out = Vec::new();
        headers.write_http1(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn looks_up_without_case_and_keeps_order() {
        let headers = received();
        assert_eq!(headers.get("x-one"), Some(&b"1"[..]));
        assert_eq!(headers.get_all("x-one").collect::<Vec<_>>(), [b"1", b"3"]);
        assert_eq!(headers.joined("x-one").as_deref(), Some(&b"1,3"[..]));
        assert_eq!(headers.get("missing"), None);
        assert_eq!(headers.byte_size(), 5 + 6 + 6 + 6);
    }

    #[test]
    fn edits_are_written_in_place_and_the_rest_as_received() {
        type Edit = fn(&mut Headers);
        let cases: [(Edit, &str, &str); 4] = [
            (
                |_| {},
                "Host: a\r\nX-One: 1\r\nx-Two: 2\r\nx-one: 3\r\n",
                "extra blank rewritten",
            ),
            (
                |h| h.set("x-one", b"9"),
                "Host: a\r\nX-One: 9\r\nx-Two: 2\r\n",
                "set removes others",
            ),
            (
                |h| {
                    h.remove("x-one");
                },
                "Host: a\r\nx-Two: 2\r\n",
                "remove takes all",
            ),
            (
                |h| h.append("x-new", b""),
                "Host: a\r\nX-One: 1\r\nx-Two: 2\r\nx-one: 3\r\nx-new: \r\n",
                "append at the end",
            ),
        ];
        for (edit, want, why) in cases {
            let mut headers = received();
            edit(&mut headers);
            assert_eq!(text(&headers), want, "{why}");
        }
    }
}
