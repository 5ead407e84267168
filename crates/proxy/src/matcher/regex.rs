//! RE2's syntax and full match on top of the crate `regex`: linear time, limited in size.

use std::sync::Arc;

use envoy_api::matcher;
use regex::bytes;

use crate::parse::Context;
use crate::parse::compat::Message as _;

/// Compiled automata larger than this are refused.
const SIZE_LIMIT: usize = 4 << 20;
/// Texts longer than this are refused before anyone looks at them.
const TEXT_LIMIT: usize = 64 << 10;
/// RE2's own limit of a repetition.
const MAX_REPEAT: u32 = 1000;

#[derive(Debug, Clone)]
pub struct Regex {
    /// Anchored on both sides.
    full: Arc<bytes::Regex>,
    /// As written, for substitution.
    search: Arc<bytes::Regex>,
    text: Arc<str>,
}

fields! {
    matcher::RegexMatcher {
        read: regex;
        ignore: engine_type = "RE2 is the only engine";
    }
    matcher::RegexMatchAndSubstitute { read: pattern, substitution; }
}

impl Regex {
    pub fn parse(context: &mut Context, message: &matcher::RegexMatcher) -> Option<Regex> {
        message.check(context);
        context.non_empty("regex", &message.regex);
        match Regex::new(&message.regex) {
            Ok(regex) => Some(regex),
            Err(reason) => {
                context.error_at(
                    "regex",
                    format!("invalid regex '{}': {reason}", message.regex),
                );
                None
            }
        }
    }

    pub fn new(text: &str) -> Result<Regex, String> {
        if text.len() > TEXT_LIMIT {
            return Err(format!("longer than {TEXT_LIMIT} bytes"));
        }
        let translated = Translator::new(text).translate()?;
        let compile = |pattern: &str| {
            bytes::RegexBuilder::new(pattern)
                .size_limit(SIZE_LIMIT)
                .nest_limit(200)
                .build()
                .map_err(|error| match error {
                    regex::Error::CompiledTooBig(_) => "too large".to_owned(),
                    error => error
                        .to_string()
                        .lines()
                        .last()
                        .unwrap_or_default()
                        .to_owned(),
                })
        };
        // The pattern must be whole on its own: `a)(b` would be valid inside the anchors.
        let search = compile(&translated)?;
        let full = compile(&format!(r"\A(?:{translated})\z"))?;
        Ok(Regex {
            full: Arc::new(full),
            search: Arc::new(search),
            text: text.into(),
        })
    }

    /// Whether the whole value matches.
    pub fn is_full_match(&self, value: &[u8]) -> bool {
        self.full.is_match(value)
    }

    pub fn search(&self) -> &bytes::Regex {
        &self.search
    }

    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl PartialEq for Regex {
    fn eq(&self, other: &Regex) -> bool {
        self.text == other.text
    }
}

/// A regular expression and what replaces each match: text with `\0` to `\9`.
#[derive(Debug, Clone)]
pub struct Substitution {
    regex: Regex,
    parts: Arc<[Part]>,
}

#[derive(Debug, Clone)]
enum Part {
    Text(Box<[u8]>),
    Group(usize),
}

impl Substitution {
    pub fn parse(
        context: &mut Context,
        message: &matcher::RegexMatchAndSubstitute,
    ) -> Option<Substitution> {
        message.check(context);
        let regex = context.required("pattern", message.pattern.as_ref(), Regex::parse)?;
        match Substitution::new(regex, &message.substitution) {
            Ok(parsed) => Some(parsed),
            Err(reason) => {
                context.error_at("substitution", reason);
                None
            }
        }
    }

    pub fn new(regex: Regex, substitution: &str) -> Result<Substitution, String> {
        if substitution
            .bytes()
            .any(|byte| matches!(byte, b'\n' | b'\r' | 0))
        {
            return Err("must not hold line ends or NUL".into());
        }
        let mut parts = Vec::new();
        let mut text = Vec::new();
        let mut bytes = substitution.bytes();
        while let Some(byte) = bytes.next() {
            match (byte, byte == b'\\') {
                (byte, false) => text.push(byte),
                (_, true) => match bytes.next() {
                    Some(b'\\') => text.push(b'\\'),
                    Some(digit @ b'0'..=b'9') => {
                        let group = usize::from(digit - b'0');
                        if group >= regex.search.captures_len() {
                            return Err(format!(
                                "invalid substitution string: group {group} does not exist"
                            ));
                        }
                        parts.push(Part::Text(std::mem::take(&mut text).into()));
                        parts.push(Part::Group(group));
                    }
                    _ => return Err("invalid substitution string: stray backslash".into()),
                },
            }
        }
        parts.push(Part::Text(text.into()));
        Ok(Substitution {
            regex,
            parts: parts.into(),
        })
    }

    /// Replaces every match, like RE2's GlobalReplace.
    pub fn apply(&self, value: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(value.len());
        let mut done = 0;
        for captures in self.regex.search.captures_iter(value) {
            let Some(whole) = captures.get(0) else {
                continue;
            };
            out.extend_from_slice(&value[done..whole.start()]);
            for part in self.parts.iter() {
                match part {
                    Part::Text(text) => out.extend_from_slice(text),
                    Part::Group(group) => {
                        out.extend_from_slice(captures.get(*group).map_or(b"", |m| m.as_bytes()));
                    }
                }
            }
            done = whole.end();
        }
        out.extend_from_slice(&value[done..]);
        out
    }
}

/// RE2's syntax to that of the crate `regex`: perl classes are ASCII, `[` in a class is itself,
/// class operators and what only one of the two knows are refused.
struct Translator<'a> {
    rest: std::iter::Peekable<std::str::Chars<'a>>,
    out: String,
}

impl<'a> Translator<'a> {
    fn new(text: &'a str) -> Self {
        Translator {
            rest: text.chars().peekable(),
            out: String::with_capacity(text.len() + 16),
        }
    }

    fn translate(mut self) -> Result<String, String> {
        // Set after a repetition: RE2 has no repetition of a repetition without a group.
        let mut repeated = false;
        while let Some(one) = self.rest.next() {
            let repeats = match one {
                '\\' => {
                    self.escape(false)?;
                    false
                }
                '[' => {
                    self.class()?;
                    false
                }
                '(' => {
                    self.group()?;
                    false
                }
                '{' => self.repeat()?,
                one => {
                    self.out.push(one);
                    matches!(one, '*' | '+' | '?')
                }
            };
            if repeats && repeated {
                return Err(format!("bad repetition operator: {one}"));
            }
            repeated = repeats;
            // `*?` and its kin are one operator.
            if repeats && self.rest.peek() == Some(&'?') {
                self.out.push('?');
                self.rest.next();
            }
        }
        Ok(self.out)
    }

    fn escape(&mut self, in_class: bool) -> Result<(), String> {
        let Some(one) = self.rest.next() else {
            return Err("trailing \\".into());
        };
        let ascii = |inner: &str| {
            if in_class {
                inner.to_owned()
            } else {
                format!("[{inner}]")
            }
        };
        match one {
            'd' => self.out.push_str(&ascii("0-9")),
            'w' => self.out.push_str(&ascii("0-9A-Za-z_")),
            's' => self.out.push_str(&ascii(r"\t\n\f\r ")),
            'D' => self.out.push_str("[^0-9]"),
            'W' => self.out.push_str("[^0-9A-Za-z_]"),
            'S' => self.out.push_str(r"[^\t\n\f\r ]"),
            'b' | 'B' if !in_class => {
                self.out.push_str(&format!("(?-u:\\{one})"));
            }
            'Q' if !in_class => self.quoted(),
            'C' if !in_class => self.out.push_str("(?s-u:.)"),
            'p' | 'P' | 'x' | 'a' | 'f' | 't' | 'n' | 'r' | 'v' => {
                self.out.push('\\');
                self.out.push(one);
            }
            'A' | 'z' if !in_class => {
                self.out.push('\\');
                self.out.push(one);
            }
            '0'..='7' => self.octal(one)?,
            one if one.is_ascii_alphanumeric() => {
                return Err(format!("invalid escape sequence: \\{one}"));
            }
            one => self.literal(one),
        }
        Ok(())
    }

    /// `\0`, `\012`, `\123`: octal; a single non-zero digit would be a backreference.
    fn octal(&mut self, first: char) -> Result<(), String> {
        let mut digits = String::from(first);
        while digits.len() < 3 {
            match self.rest.peek() {
                Some(digit @ '0'..='7') => {
                    digits.push(*digit);
                    self.rest.next();
                }
                _ => break,
            }
        }
        if first != '0' && digits.len() == 1 {
            return Err(format!("invalid escape sequence: \\{first}"));
        }
        let value = u32::from_str_radix(&digits, 8).map_err(|error| error.to_string())?;
        self.out.push_str(&format!("\\x{{{value:x}}}"));
        Ok(())
    }

    fn literal(&mut self, one: char) {
        if one.is_ascii_punctuation() {
            self.out.push('\\');
        }
        self.out.push(one);
    }

    fn quoted(&mut self) {
        while let Some(one) = self.rest.next() {
            if one == '\\' && self.rest.peek() == Some(&'E') {
                self.rest.next();
                return;
            }
            self.literal(one);
        }
    }

    fn class(&mut self) -> Result<(), String> {
        self.out.push('[');
        if self.rest.peek() == Some(&'^') {
            self.rest.next();
            self.out.push('^');
        }
        let mut first = true;
        loop {
            let Some(one) = self.rest.next() else {
                return Err("missing ]".into());
            };
            match one {
                ']' if !first => break,
                ']' => self.out.push_str("\\]"),
                '\\' => self.escape(true)?,
                '[' if self.rest.peek() == Some(&':') => self.named_class()?,
                '[' => self.out.push_str("\\["),
                // Operators of the crate, plain characters in RE2.
                '&' | '~' => {
                    self.out.push('\\');
                    self.out.push(one);
                }
                '-' if self.rest.peek() == Some(&'-') => self.out.push_str("\\-"),
                one => self.out.push(one),
            }
            first = false;
        }
        self.out.push(']');
        Ok(())
    }

    fn named_class(&mut self) -> Result<(), String> {
        let mut name = String::new();
        self.rest.next();
        loop {
            match self.rest.next() {
                Some(':') if self.rest.peek() == Some(&']') => {
                    self.rest.next();
                    break;
                }
                Some(one) if name.len() < 16 => name.push(one),
                _ => return Err("invalid character class range".into()),
            }
        }
        self.out.push_str(&format!("[:{name}:]"));
        Ok(())
    }

    fn group(&mut self) -> Result<(), String> {
        self.out.push('(');
        if self.rest.peek() != Some(&'?') {
            return Ok(());
        }
        self.rest.next();
        self.out.push('?');
        match self.rest.peek() {
            Some('P' | '<') => Ok(()),
            _ => {
                for flag in self.rest.by_ref() {
                    self.out.push(flag);
                    match flag {
                        'i' | 'm' | 's' | 'U' | '-' => {}
                        ':' | ')' => return Ok(()),
                        _ => return Err("invalid perl operator: (?".to_owned() + &flag.to_string()),
                    }
                }
                Err("missing )".into())
            }
        }
    }

    /// `{2,5}` is a repetition, `{x` a plain brace.
    fn repeat(&mut self) -> Result<bool, String> {
        let ahead: String = self.rest.clone().take_while(|one| *one != '}').collect();
        let closed = self.rest.clone().nth(ahead.chars().count()) == Some('}');
        let mut numbers = ahead.splitn(2, ',');
        let number = |text: Option<&str>| text.and_then(|text| text.parse::<u32>().ok());
        let low = number(numbers.next());
        let high = numbers.next();
        let is_repeat = closed
            && low.is_some()
            && high.is_none_or(|high| high.is_empty() || number(Some(high)).is_some());
        if !is_repeat {
            self.out.push_str("\\{");
            return Ok(false);
        }
        if low
            .max(number(high))
            .is_some_and(|count| count > MAX_REPEAT)
        {
            return Err(format!("bad repetition argument: {{{ahead}}}"));
        }
        self.out.push('{');
        self.out.push_str(&ahead);
        self.out.push('}');
        for _ in 0..=ahead.chars().count() {
            self.rest.next();
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches_as_re2() {
        for (pattern, value, want, why) in [
            ("a.c", &b"abc"[..], true, "dot"),
            ("a.c", b"a\nc", false, "dot is not a line end"),
            ("a.c", b"a\xffc", false, "dot is a character, not any byte"),
            ("ab", b"xaby", false, "the whole value"),
            ("a|b", b"b", true, "alternatives are anchored together"),
            (r"\d+", "٣".as_bytes(), false, "digits are ASCII"),
            (r"[\d-]+", b"1-2", true, "perl class in a class"),
            (r"[[]x", b"[x", true, "[ in a class is itself"),
            ("[a&&b]+", b"&a", true, "no class operators"),
            ("[[:alpha:]]+", b"ab", true, "named class"),
            (r"\Qa.b\E", b"a.b", true, "quoted"),
            (r"\Qa.b\E", b"axb", false, "quoted"),
            (r"\x41", b"A", true, "hexadecimal"),
            ("(?i)get", b"GET", true, "flags"),
            ("a{x", b"a{x", true, "a brace that is no repetition"),
            ("a{2,3}", b"aaa", true, "a repetition"),
            ("^/api/(v1|v2)/.*$", b"/api/v2/x?y", true, "own anchors"),
            ("", b"", true, "empty"),
        ] {
            let regex = Regex::new(pattern).expect(why);
            assert_eq!(regex.is_full_match(value), want, "{pattern}: {why}");
        }
    }

    #[test]
    fn refuses_what_re2_refuses() {
        for pattern in [
            "(",
            ")",
            "a)(b",
            "[a",
            "a**{",
            r"\",
            r"\1",
            r"\h",
            "(?x)a",
            "(?=a)",
            "(?<!a)",
            "a{1001}",
            "*",
            r"[z-a]",
            "((a{100}){100}){100}",
            "(?Pname)",
        ] {
            assert!(Regex::new(pattern).is_err(), "{pattern} must be refused");
        }
        assert!(Regex::new(&"a".repeat(TEXT_LIMIT + 1)).is_err(), "too long");
        assert!(Regex::new(&"(".repeat(5000)).is_err(), "deep nesting");
    }

    #[test]
    fn substitutes_every_match() {
        for (pattern, by, value, want) in [
            ("^/a/(.*)$", r"/b/\1", "/a/x/y", "/b/x/y"),
            ("o", "0", "foo", "f00"),
            ("(x)(y)?", r"\2\1\\", "x-xy", r"x\-yx\"),
            ("none", "z", "abc", "abc"),
        ] {
            let substitution =
                Substitution::new(Regex::new(pattern).expect("regex"), by).expect("substitution");
            assert_eq!(
                substitution.apply(value.as_bytes()),
                want.as_bytes(),
                "{pattern}"
            );
        }
        let regex = Regex::new("(a)").expect("regex");
        for by in [r"\2", r"\x", "\\", "a\nb"] {
            assert!(
                Substitution::new(regex.clone(), by).is_err(),
                "{by:?} must be refused"
            );
        }
    }
}
