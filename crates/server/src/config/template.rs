//! Takes a value apart into text and `${…}` references.
//!
//! Invariant: no piece holds an unread `$$` or `${`; references nest no deeper than 16.
//! Not here: what a reference names (`value`).

/// A reference's name may itself hold references, so deep.
const DEPTH_MAX: usize = 16;

/// A part of a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Piece {
    /// Plain text.
    Text(String),
    /// `${…}`: what stands between the braces.
    Reference(Vec<Piece>),
}

/// Takes `text` apart; `Err` says what is wrong with it.
pub(super) fn parse(text: &str) -> Result<Vec<Piece>, String> {
    let mut rest = text;
    pieces(&mut rest, 0)
}

fn pieces(rest: &mut &str, depth: usize) -> Result<Vec<Piece>, String> {
    let mut found = Vec::new();
    let mut text = String::new();
    let signs: &[char] = if depth > 0 { &['$', '}'] } else { &['$'] };
    while let Some(at) = rest.find(signs) {
        text.push_str(&rest[..at]);
        let tail = &rest[at..];
        if let Some(tail) = tail.strip_prefix("${") {
            if depth == DEPTH_MAX {
                return Err(format!("references inside references, more than {DEPTH_MAX} deep"));
            }
            push_text(&mut found, &mut text);
            *rest = tail;
            found.push(Piece::Reference(pieces(rest, depth + 1)?));
        } else if let Some(tail) = tail.strip_prefix("$$") {
            text.push('$');
            *rest = tail;
        } else {
            *rest = &tail[1..];
            if tail.starts_with('}') {
                push_text(&mut found, &mut text);
                return Ok(found);
            }
            // A lone `$` means itself: passwords and patterns are full of them.
            text.push('$');
        }
    }
    if depth > 0 {
        return Err("a `${` without its `}` (write `$$` for the sign itself)".to_owned());
    }
    text.push_str(rest);
    push_text(&mut found, &mut text);
    Ok(found)
}

fn push_text(found: &mut Vec<Piece>, text: &mut String) {
    if !text.is_empty() {
        found.push(Piece::Text(std::mem::take(text)));
    }
}

/// Splits at each `separator` that stands in plain text, never inside a reference.
pub(super) fn split(pieces: &[Piece], separator: fn(char) -> bool) -> Vec<Vec<Piece>> {
    let mut parts = vec![Vec::new()];
    for piece in pieces {
        let Piece::Text(text) = piece else {
            push(&mut parts, piece.clone());
            continue;
        };
        for (index, part) in text.split(separator).enumerate() {
            if index > 0 {
                parts.push(Vec::new());
            }
            if !part.is_empty() {
                push(&mut parts, Piece::Text(part.to_owned()));
            }
        }
    }
    parts
}

/// Splits at the first `=` that stands in plain text.
pub(super) fn split_at_equals(pieces: &[Piece]) -> Option<(Vec<Piece>, Vec<Piece>)> {
    let at = pieces.iter().position(|p| matches!(p, Piece::Text(text) if text.contains('=')))?;
    let Piece::Text(text) = &pieces[at] else {
        return None;
    };
    let (before, after) = text.split_once('=')?;
    let filled = |text: &str| (!text.is_empty()).then(|| Piece::Text(text.to_owned()));
    let name = pieces[..at].iter().cloned().chain(filled(before)).collect();
    let value = filled(after).into_iter().chain(pieces[at + 1..].iter().cloned()).collect();
    Some((name, value))
}

/// The pieces without the text `prefix` that they begin with, and without white space after it.
pub(super) fn strip_prefix(pieces: &[Piece], prefix: &str) -> Option<Vec<Piece>> {
    let Some(Piece::Text(first)) = pieces.first() else {
        return None;
    };
    let rest = first.strip_prefix(prefix)?.trim_start();
    let mut stripped = pieces[1..].to_vec();
    if !rest.is_empty() {
        stripped.insert(0, Piece::Text(rest.to_owned()));
    }
    Some(stripped)
}

fn push(parts: &mut [Vec<Piece>], piece: Piece) {
    if let Some(part) = parts.last_mut() {
        part.push(piece);
    }
}

#[cfg(test)]
mod tests {
    use super::{Piece, parse, split, split_at_equals};

    /// Pieces as text again, references in angle brackets.
    fn shown(pieces: &[Piece]) -> String {
        let one = |piece: &Piece| match piece {
            Piece::Text(text) => text.clone(),
            Piece::Reference(inner) => format!("<{}>", shown(inner)),
        };
        pieces.iter().map(one).collect::<Vec<_>>().join("|")
    }

    fn check(text: &str, expected: &str) {
        let found = parse(text).map_or_else(|error| format!("ERROR {error}"), |p| shown(&p));
        assert_eq!(found, expected, "{text}");
    }

    #[test]
    fn text_and_references_come_apart() {
        check("", "");
        check("a${b:c}d", "a|<b:c>|d");
        check("${a:${b}}}", "<a:|<b>>|}");
        check("$${a} $ 5$ %", "${a} $ 5$ %");
    }

    #[test]
    fn an_unfinished_reference_is_an_error() {
        check("a${b", "ERROR a `${` without its `}` (write `$$` for the sign itself)");
        check(&"${".repeat(100_000), "ERROR references inside references, more than 16 deep");
    }

    #[test]
    fn separators_inside_a_reference_do_not_split() {
        let pieces = parse("a=${x&y=z}&b").unwrap();
        let parts: Vec<String> = split(&pieces, |c| c == '&').iter().map(|p| shown(p)).collect();
        assert_eq!(parts, ["a=|<x&y=z>", "b"]);
        let (name, value) = split_at_equals(&pieces).unwrap();
        assert_eq!((shown(&name), shown(&value)), ("a".to_owned(), "<x&y=z>|&b".to_owned()));
    }
}
