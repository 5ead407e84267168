//! JSON lines: one operator alone keeps its type, text around it makes a string, a missing value
//! is null or, with `omit_empty_values`, left out. Keys are sorted, as in Envoy.

use prost_types::value::Kind;

use super::Input;
use super::format::Format;
use super::operator::Value;

#[derive(Debug)]
pub struct JsonFormat {
    root: Node,
    omit_empty: bool,
}

#[derive(Debug)]
enum Node {
    Object(Vec<(String, Node)>),
    List(Vec<Node>),
    /// Already JSON.
    Fixed(String),
    Format(Format),
}

const MAX_DEPTH: usize = 32;

impl JsonFormat {
    pub fn parse(fields: &prost_types::Struct, omit_empty: bool) -> Result<JsonFormat, String> {
        Ok(JsonFormat {
            root: object(fields, omit_empty, 0)?,
            omit_empty,
        })
    }

    /// The object and a line end.
    pub fn write(&self, input: &Input<'_>, out: &mut Vec<u8>) {
        self.root.write(input, self.omit_empty, out);
        out.push(b'\n');
    }
}

fn object(fields: &prost_types::Struct, omit: bool, depth: usize) -> Result<Node, String> {
    if depth > MAX_DEPTH {
        return Err("json_format: nested too deep".into());
    }
    // A BTreeMap: sorted already.
    let members = fields.fields.iter().map(|(key, value)| {
        Ok::<_, String>((json_string(key.as_bytes()), node(value, omit, depth)?))
    });
    Ok(Node::Object(members.collect::<Result<_, _>>()?))
}

fn node(value: &prost_types::Value, omit: bool, depth: usize) -> Result<Node, String> {
    Ok(match &value.kind {
        Some(Kind::StringValue(text)) => Node::Format(Format::parse_with(text, omit)?),
        Some(Kind::StructValue(fields)) => object(fields, omit, depth + 1)?,
        Some(Kind::ListValue(list)) => {
            let members = list.values.iter().map(|value| node(value, omit, depth + 1));
            Node::List(members.collect::<Result<_, String>>()?)
        }
        None | Some(Kind::NullValue(_)) => Node::Fixed("null".into()),
        Some(Kind::BoolValue(_) | Kind::NumberValue(_)) => {
            Node::Fixed(crate::parse::metadata::to_json(value).to_string())
        }
    })
}

impl Node {
    fn write(&self, input: &Input<'_>, omit: bool, out: &mut Vec<u8>) {
        match self {
            Node::Fixed(text) => out.extend_from_slice(text.as_bytes()),
            Node::Object(members) => {
                out.push(b'{');
                let mut first = true;
                for (key, node) in members {
                    if omit && node.is_missing(input) {
                        continue;
                    }
                    if !std::mem::take(&mut first) {
                        out.push(b',');
                    }
                    out.extend_from_slice(key.as_bytes());
                    out.push(b':');
                    node.write(input, omit, out);
                }
                out.push(b'}');
            }
            Node::List(members) => {
                out.push(b'[');
                let mut first = true;
                for node in members {
                    if !std::mem::take(&mut first) {
                        out.push(b',');
                    }
                    node.write(input, omit, out);
                }
                out.push(b']');
            }
            Node::Format(format) => match format.single(input) {
                Some((Value::Missing, _)) => out.extend_from_slice(b"null"),
                Some((Value::Number(number), None)) => {
                    out.extend_from_slice(number.to_string().as_bytes());
                }
                Some((Value::Json(json), None)) => {
                    out.extend_from_slice(json.to_string().as_bytes());
                }
                Some((value, length)) => {
                    let mut text = Vec::new();
                    value.write(length, &mut text);
                    out.extend_from_slice(json_string(&text).as_bytes());
                }
                None => out.extend_from_slice(json_string(&format.render(input)).as_bytes()),
            },
        }
    }

    fn is_missing(&self, input: &Input<'_>) -> bool {
        match self {
            Node::Format(format) => matches!(format.single(input), Some((Value::Missing, _))),
            _ => false,
        }
    }
}

fn json_string(bytes: &[u8]) -> String {
    serde_json::Value::from(String::from_utf8_lossy(bytes).into_owned()).to_string()
}
