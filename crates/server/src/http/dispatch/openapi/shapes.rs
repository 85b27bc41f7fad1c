//! What values look like.

/// A kind of value.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    /// Any JSON value.
    Any,
    Null,
    Bool,
    /// This one.
    Is(bool),
    Text,
    /// Text of at least one byte and at most so many.
    Short(usize),
    /// So many hexadecimal digits.
    Hex(usize),
    /// A number as text.
    Id,
    /// A whole number between these.
    Whole(i64, u64),
    /// A whole number from this on; a setting is the limit above.
    AtLeast(i64),
    /// Milliseconds since 1970.
    Time,
    /// `1` is on.
    Switch,
    OneOf(&'static [&'static str]),
    Nullable(&'static Kind),
    List(&'static Kind),
    /// An object from names to these.
    Map(&'static Kind),
    Object(&'static [Field]),
    /// An object with these fields and any others.
    Open(&'static [Field]),
}

/// A field of an object, or a header of an answer.
#[derive(Clone, Copy)]
pub(super) struct Field {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) is_always: bool,
    pub(super) about: &'static str,
}

impl Field {
    /// How every answer begins.
    pub(super) const NO_ERROR: Self = Self::new("error", Kind::Is(false), "");

    /// One that is always there.
    pub(super) const fn new(name: &'static str, kind: Kind, about: &'static str) -> Self {
        Self { name, kind, is_always: true, about }
    }

    /// One that may be missing.
    pub(super) const fn maybe(name: &'static str, kind: Kind, about: &'static str) -> Self {
        Self { name, kind, is_always: false, about }
    }
}
