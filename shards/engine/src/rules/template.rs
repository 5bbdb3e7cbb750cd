//! Texts with captures: `$1`, `${name}`, `${ruri_user}`; `$$` is a dollar.

use super::Captured;
use super::request::{Field, Request};

#[derive(Debug, Clone, Default)]
pub(super) struct Template(Vec<Part>);

#[derive(Debug, Clone)]
enum Part {
    Text(Box<[u8]>),
    Field(Field),
    /// From 0 on.
    Capture(usize),
}

impl Template {
    /// `captures` are the names of the rule's captures in order; `header`: the rule has a condition on a header.
    pub(super) fn parse(text: &str, captures: &[Option<Box<str>>], header: bool) -> Result<Template, String> {
        let mut parts = vec![];
        let mut rest = text;
        while let Some(at) = rest.find('$') {
            push(&mut parts, &rest[..at]);
            rest = &rest[at + 1..];
            if let Some(after) = rest.strip_prefix('$') {
                push(&mut parts, "$");
                rest = after;
                continue;
            }
            let (name, after) = match rest.strip_prefix('{') {
                Some(inside) => inside.split_once('}').ok_or("a ${ is not closed; write } behind the name")?,
                None => rest.split_at(rest.bytes().take_while(u8::is_ascii_digit).count()),
            };
            if name.is_empty() {
                return Err("a $ stands alone; write $1, ${NAME}, or $$ for a dollar".to_owned());
            }
            parts.push(part(name, captures, header)?);
            rest = after;
        }
        push(&mut parts, rest);
        Ok(Template(parts))
    }

    /// The text, when it takes nothing from the request.
    pub(super) fn plain(&self) -> Option<String> {
        let text: Option<Vec<&[u8]>> =
            self.0.iter().map(|p| if let Part::Text(t) = p { Some(&**t) } else { None }).collect();
        Some(String::from_utf8_lossy(&text?.concat()).into_owned())
    }

    /// Writes the text for a request into `out`, in place of what is there.
    pub(super) fn render(&self, request: &Request<'_>, captured: &Captured, out: &mut Vec<u8>) {
        out.clear();
        for part in &self.0 {
            match part {
                Part::Text(text) => out.extend_from_slice(text),
                Part::Field(Field::Header) => out.extend_from_slice(captured.get(captured.header)),
                Part::Field(field) => out.extend_from_slice(&request.value(*field).unwrap_or_default()),
                #[cfg(mutant)]
                Part::Capture(i) if *i > 0 && strowger_dispatch::mutant::is("capture-shifted") => {
                    out.extend_from_slice(captured.get(captured.groups[i - 1]));
                }
                Part::Capture(i) => out.extend_from_slice(captured.get(captured.groups.get(*i).copied().flatten())),
            }
        }
    }
}

fn push(parts: &mut Vec<Part>, text: &str) {
    if !text.is_empty() {
        parts.push(Part::Text(text.as_bytes().into()));
    }
}

fn part(name: &str, captures: &[Option<Box<str>>], header: bool) -> Result<Part, String> {
    if name.bytes().all(|b| b.is_ascii_digit()) {
        return match name.parse::<usize>() {
            Ok(n) if (1..=captures.len()).contains(&n) => Ok(Part::Capture(n - 1)),
            _ => Err(format!("there is no capture ${name}; the patterns of this rule have {}", captures.len())),
        };
    }
    if let Some(i) = captures.iter().position(|c| c.as_deref() == Some(name)) {
        return Ok(Part::Capture(i));
    }
    match Field::ALL.into_iter().find(|f| f.name() == name) {
        Some(Field::Header) if !header => {
            Err("${header} is what the rule's condition on a header matched; add one".to_owned())
        }
        Some(field) => Ok(Part::Field(field)),
        None => {
            let known: Vec<&str> = Field::ALL.iter().map(|f| f.name()).collect();
            Err(format!(
                "there is no capture ${{{name}}}; write (?P<{name}>..) in a pattern, or one of {}",
                known.join(", ")
            ))
        }
    }
}
