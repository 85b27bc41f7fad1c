//! Words an operator may have meant.
//!
//! Invariant: pure, and cheap on long input.
//! Not here: which words there are.

/// What a word says about a switch; `None` when it says nothing.
pub(super) fn switch(word: &str) -> Option<bool> {
    match word.trim().to_ascii_lowercase().as_str() {
        "true" | "enabled" | "on" | "1" | "enable" | "yes" => Some(true),
        "false" | "disabled" | "off" | "0" | "disable" | "no" | "" => Some(false),
        _ => None,
    }
}

/// `; did you mean …?` with the nearest of `known`, or nothing when none is near.
pub(super) fn hint<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> String {
    let distance_max = word.chars().count().div_ceil(3).min(3);
    nearest(word, known, distance_max)
        .map_or_else(String::new, |near| format!("; did you mean `{near}`?"))
}

/// The one of `known` that differs least from `word`, in any letter case, by `distance_max` letters.
pub(super) fn nearest<'a>(
    word: &str,
    known: impl Iterator<Item = &'a str>,
    distance_max: usize,
) -> Option<&'a str> {
    /// Nobody mistypes a longer word into one of ours.
    const WORD_CHARS_MAX: usize = 40;
    /// Nor looks for it among so many.
    const KNOWN_MAX: usize = 1000;
    let word: Vec<char> = word.trim().to_lowercase().chars().take(WORD_CHARS_MAX + 1).collect();
    if word.len() > WORD_CHARS_MAX {
        return None;
    }
    known
        .take(KNOWN_MAX)
        .filter(|name| name.chars().count() <= WORD_CHARS_MAX)
        .map(|name| (distance(&word, &name.to_lowercase().chars().collect::<Vec<_>>()), name))
        .filter(|&(distance, _)| distance <= distance_max)
        .min_by_key(|&(distance, _)| distance)
        .map(|(_, name)| name)
}

/// How many letters must be put in, taken out or changed (Levenshtein).
fn distance(from: &[char], to: &[char]) -> usize {
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (index, letter) in from.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = index + 1;
        for (column, other) in to.iter().enumerate() {
            let changed = diagonal + usize::from(letter != other);
            diagonal = row[column + 1];
            row[column + 1] = changed.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use super::{hint, switch};

    #[test]
    fn a_near_word_is_offered_and_a_far_one_is_not() {
        let known = ["bindto", "port", "listen"];
        let check = |word: &str, expected: &str| {
            assert_eq!(hint(word, known.into_iter()), expected, "{word}");
        };
        check("lisen", "; did you mean `listen`?");
        check("Prot", "; did you mean `port`?");
        check("bind", "; did you mean `bindto`?");
        check("colour", "");
        check(&"x".repeat(5000), "");
    }

    #[test]
    fn a_switch_knows_its_words_in_any_case() {
        assert_eq!(switch("Enabled"), Some(true));
        assert_eq!(switch("NO"), Some(false));
        assert_eq!(switch("ture"), None);
    }
}
