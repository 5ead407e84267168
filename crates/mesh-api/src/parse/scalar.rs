//! What a plain YAML scalar means: the rules of Kubernetes' YAML reader (sigs.k8s.io/yaml, which
//! is YAML 1.1 for booleans and numbers), so that a file means the same here as with kubectl.

use serde_json::Number;

use crate::node::Value;

/// Gives an unquoted, untagged scalar its type.
pub fn resolve(text: &str) -> Result<Value, String> {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Ok(Value::Null),
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => {
            return Ok(Value::Bool(true));
        }
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => {
            return Ok(Value::Bool(false));
        }
        _ => {}
    }
    let first = text.bytes().next().unwrap_or(b' ');
    if !(first.is_ascii_digit() || matches!(first, b'+' | b'-' | b'.')) {
        return Ok(Value::String(text.to_owned()));
    }
    let lower = text.to_ascii_lowercase();
    if matches!(lower.as_str(), ".nan" | ".inf" | "-.inf" | "+.inf") {
        return Err(format!("{text} has no form in JSON"));
    }
    let plain = text.replace('_', "");
    if let Some(number) = integer(&plain).or_else(|| float(&plain)) {
        return Ok(Value::Number(number));
    }
    Ok(Value::String(text.to_owned()))
}

/// Go's `strconv.ParseInt(text, 0, 64)`, then `ParseUint`.
fn integer(text: &str) -> Option<Number> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let (radix, digits) = match digits.get(..2).map(str::to_ascii_lowercase).as_deref() {
        Some("0x") => (16, &digits[2..]),
        Some("0o") => (8, &digits[2..]),
        Some("0b") => (2, &digits[2..]),
        Some(_) if digits.starts_with('0') => (8, &digits[1..]),
        _ => (10, digits),
    };
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_alphanumeric()) {
        return None;
    }
    let size = u64::from_str_radix(digits, radix).ok()?;
    if !negative {
        return Some(Number::from(size));
    }
    let value = -i128::from(size);
    i64::try_from(value).ok().map(Number::from)
}

/// `[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?`
fn float(text: &str) -> Option<Number> {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (unsigned, None),
    };
    let digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let mantissa_is_good =
        digits(whole) && digits(fraction) && !(whole.is_empty() && fraction.is_empty());
    let exponent_is_good = exponent.is_none_or(|exponent| {
        let exponent = exponent.strip_prefix(['-', '+']).unwrap_or(exponent);
        !exponent.is_empty() && digits(exponent)
    });
    if !mantissa_is_good || !exponent_is_good {
        return None;
    }
    let value: f64 = text.parse().ok()?;
    if value.fract() == 0.0 && value.abs() < 9e15 {
        return Some(Number::from(value as i64));
    }
    Number::from_f64(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn plain_scalars_have_the_types_kubectl_gives_them() {
        for (input, want, why) in [
            ("yes", json!(true), "YAML 1.1 boolean"),
            ("off", json!(false), "YAML 1.1 boolean"),
            ("y", json!(true), "one letter"),
            ("yEs", json!("yEs"), "only three spellings"),
            ("null", json!(null), "null"),
            ("~", json!(null), "null"),
            ("0777", json!(511), "leading zero: octal"),
            ("0o17", json!(15), "octal"),
            ("0x1F", json!(31), "hexadecimal"),
            ("0b11", json!(3), "binary"),
            ("089", json!(89), "not octal, so a float that is whole"),
            ("1_000", json!(1000), "underscores"),
            ("-5", json!(-5), "negative"),
            ("+5", json!(5), "signed"),
            ("1.0", json!(1), "a whole float is written without decimals"),
            ("1.5", json!(1.5), "float"),
            (".5", json!(0.5), "no whole part"),
            ("1e3", json!(1000), "exponent"),
            ("18446744073709551615", json!(u64::MAX), "64 bits, unsigned"),
            ("1.2.3.4", json!("1.2.3.4"), "an address is a string"),
            ("10.0.0.0/8", json!("10.0.0.0/8"), "a range is a string"),
            ("2026-01-01", json!("2026-01-01"), "a date stays a string"),
            ("1s", json!("1s"), "a duration is a string"),
            ("-", json!("-"), "a sign is a string"),
            ("0x", json!("0x"), "no digits"),
            (".", json!("."), "no digits"),
        ] {
            let got = resolve(input).map(|value| crate::node::Node {
                value,
                ..Default::default()
            });
            assert_eq!(got.map(|node| node.to_json()), Ok(want), "{input}: {why}");
        }
        assert!(
            resolve(".inf").is_err() && resolve(".NaN").is_err(),
            "not in JSON"
        );
    }
}
