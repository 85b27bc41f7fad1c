//! Whose events are wanted. Pure.

/// Names and beginnings of one filter.
const PATTERNS_MAX: usize = 1000;
/// Bytes of one: a name has no more, and a beginning ends in `*`.
const PATTERN_BYTES_MAX: usize = 256;

/// Agents by their names; by default all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter(Vec<String>);

/// Why something is no filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// There is nothing where a name should be.
    #[error("A name of an agent must not be empty")]
    Empty,
    /// It is longer than a name can be.
    #[error("A name of an agent has at most {} bytes", PATTERN_BYTES_MAX - 1)]
    TooLong,
    /// There are too many.
    #[error("At most {PATTERNS_MAX} agents can be named; a beginning with `*` stands for many")]
    TooMany,
}

impl Filter {
    /// A filter of names, and of beginnings that end in `*`; without any, everybody is wanted.
    ///
    /// # Errors
    /// When one is empty or too long, or there are too many.
    pub fn new(patterns: Vec<String>) -> Result<Self, FilterError> {
        if patterns.len() > PATTERNS_MAX {
            return Err(FilterError::TooMany);
        }
        for pattern in &patterns {
            match pattern.len() {
                0 => return Err(FilterError::Empty),
                1..=PATTERN_BYTES_MAX => {}
                _ => return Err(FilterError::TooLong),
            }
        }
        Ok(Self(patterns))
    }

    /// The filter that a parameter means: names with commas between them. `is_name` tells of the whole whether it is
    /// one name, which may have commas in it.
    ///
    /// # Errors
    /// As [`Filter::new`].
    pub fn parse(text: &str, is_name: impl Fn(&str) -> bool) -> Result<Self, FilterError> {
        if is_name(text) {
            return Self::new(vec![text.to_owned()]);
        }
        Self::new(text.split(',').take(PATTERNS_MAX + 1).map(str::to_owned).collect())
    }

    /// Whether events of the agent `name` are wanted.
    #[must_use]
    pub fn wants(&self, name: &str) -> bool {
        let is_meant = |pattern: &String| {
            pattern == name
                || pattern.strip_suffix('*').is_some_and(|begin| name.starts_with(begin))
        };
        self.0.is_empty() || self.0.iter().any(is_meant)
    }

    /// The only name that is wanted, if it is one name and no beginning.
    #[must_use]
    pub fn sole_name(&self) -> Option<&str> {
        match &*self.0 {
            [name] if !name.ends_with('*') => Some(name),
            _ => None,
        }
    }

    /// What it was made of.
    #[must_use]
    pub fn patterns(&self) -> &[String] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, wanted: &[&str], unwanted: &[&str]) {
        let filter = Filter::parse(text, |name| name == "a,b").unwrap();
        for name in wanted {
            assert!(filter.wants(name), "{text} wants {name}");
        }
        for name in unwanted {
            assert!(!filter.wants(name), "{text} does not want {name}");
        }
    }

    #[test]
    fn names_and_beginnings_are_wanted() {
        check("a", &["a"], &["b", "aa", "", "A"]);
        check("a,web-*", &["a", "web-", "web-1"], &["b", "we", "aweb-1"]);
        check("*", &["a", "b,c", "*"], &[]);
        check("a*,b", &["a*", "ab", "b"], &["b*"]);
        assert!(Filter::default().wants("any"));
    }

    #[test]
    fn a_name_with_a_comma_is_one_name() {
        check("a,b", &["a,b"], &["a", "b"]);
        check("a,b,c", &["a", "b", "c"], &["a,b"]);
    }

    #[test]
    fn one_name_alone_can_be_looked_for() {
        let sole = |text| Filter::parse(text, |_| false).unwrap().sole_name().map(str::to_owned);
        assert_eq!(sole("a"), Some("a".to_owned()));
        assert_eq!((sole("a*"), sole("a,b")), (None, None));
        assert_eq!(Filter::default().sole_name(), None);
    }

    #[test]
    fn what_no_agent_can_be_called_is_refused() {
        let parse = |text: &str| Filter::parse(text, |_| false).map(drop);
        assert_eq!(parse(""), Err(FilterError::Empty));
        assert_eq!(parse("a,,b"), Err(FilterError::Empty));
        assert_eq!(parse(&"a".repeat(257)), Err(FilterError::TooLong));
        assert_eq!(parse(&format!("{}*", "a".repeat(255))), Ok(()));
        assert_eq!(parse(&"a,".repeat(1001)), Err(FilterError::TooMany));
    }
}
