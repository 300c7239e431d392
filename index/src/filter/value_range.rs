//! [`ValueRange`]: values between two bounds.

use std::ops::Bound;

use crate::FieldKind;
use crate::dates::{self, DateSpan};
use crate::fields::FieldValue;

/// Values of a field between two bounds. A written value is a range too: that of one value, or of the instants of a date.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct ValueRange {
    lower: Bound<FieldValue>,
    upper: Bound<FieldValue>,
}

impl ValueRange {
    /// All values.
    pub(super) fn all() -> Self {
        Self { lower: Bound::Unbounded, upper: Bound::Unbounded }
    }

    /// True if there are no bounds.
    pub(super) fn is_all(&self) -> bool {
        matches!((&self.lower, &self.upper), (Bound::Unbounded, Bound::Unbounded))
    }

    /// The range that a value stands for as it is written; `None` if it is of another type.
    pub(super) fn of_value(kind: FieldKind, text: &str) -> Option<Self> {
        if kind == FieldKind::Date {
            let DateSpan { first, end } = DateSpan::parse(text)?;
            let date = |nanos| FieldValue::Date(dates::clamped(nanos));
            // both ends may lie beyond 64 bits, on the same side: the range is then empty, or has the outermost instant
            return Some(Self { lower: Bound::Included(date(first)), upper: Bound::Excluded(date(end)) });
        }
        let value = FieldValue::of_text(kind, text)?;
        Some(Self { lower: Bound::Included(value.clone()), upper: Bound::Included(value) })
    }

    /// The first value of a range with an included lower bound.
    pub(super) fn first(self) -> Self {
        match self.lower {
            Bound::Included(first) => Self { lower: Bound::Included(first.clone()), upper: Bound::Included(first) },
            lower => Self { lower, upper: self.upper },
        }
    }

    /// Sets the lower bound to the first value of `range`.
    pub(super) fn starts_with(&mut self, range: Self) {
        self.lower = range.lower;
    }

    /// Sets the lower bound to the values after `range`.
    pub(super) fn starts_after(&mut self, range: Self) {
        self.lower = opposite(range.upper);
    }

    /// Sets the upper bound to the last value of `range`.
    pub(super) fn ends_with(&mut self, range: Self) {
        self.upper = range.upper;
    }

    /// Sets the upper bound to the values before `range`.
    pub(super) fn ends_before(&mut self, range: Self) {
        self.upper = opposite(range.lower);
    }

    /// True if a value of the same type is between the bounds.
    pub(super) fn contains(&self, value: &FieldValue) -> bool {
        let above = match &self.lower {
            Bound::Included(lower) => value.order(lower).is_ge(),
            Bound::Excluded(lower) => value.order(lower).is_gt(),
            Bound::Unbounded => true,
        };
        let below = match &self.upper {
            Bound::Included(upper) => value.order(upper).is_le(),
            Bound::Excluded(upper) => value.order(upper).is_lt(),
            Bound::Unbounded => true,
        };
        above && below
    }

    /// The bounds; `None` if no value is between them. Bounds of integers are included: tantivy adds 1 to excluded ones, which the
    /// largest does not allow.
    pub(super) fn bounds(&self) -> Option<(Bound<FieldValue>, Bound<FieldValue>)> {
        let lower = match &self.lower {
            Bound::Excluded(FieldValue::Int(value)) => Bound::Included(FieldValue::Int(value.checked_add(1)?)),
            bound => bound.clone(),
        };
        let upper = match &self.upper {
            Bound::Excluded(FieldValue::Int(value)) => Bound::Included(FieldValue::Int(value.checked_sub(1)?)),
            bound => bound.clone(),
        };
        let is_empty = match (&lower, &upper) {
            (Bound::Included(lower), Bound::Included(upper)) => lower.order(upper).is_gt(),
            (Bound::Included(lower) | Bound::Excluded(lower), Bound::Included(upper) | Bound::Excluded(upper)) => {
                lower.order(upper).is_ge()
            }
            _ => false,
        };
        (!is_empty).then_some((lower, upper))
    }
}

/// The bound of the values on the other side.
fn opposite(bound: Bound<FieldValue>) -> Bound<FieldValue> {
    match bound {
        Bound::Included(value) => Bound::Excluded(value),
        Bound::Excluded(value) => Bound::Included(value),
        Bound::Unbounded => Bound::Unbounded,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(kind: FieldKind, text: &str) -> ValueRange {
        ValueRange::of_value(kind, text).unwrap()
    }

    #[test]
    fn integers_at_the_ends_have_nothing_beyond() {
        let mut range = ValueRange::all();
        range.starts_after(of(FieldKind::Int, "9223372036854775807"));
        assert_eq!(range.bounds(), None);
        let mut range = ValueRange::all();
        range.ends_before(of(FieldKind::Int, "-9223372036854775808"));
        assert_eq!(range.bounds(), None);
        range.ends_before(of(FieldKind::Int, "3"));
        assert_eq!(range.bounds(), Some((Bound::Unbounded, Bound::Included(FieldValue::Int(2)))));
    }

    #[test]
    fn reversed_bounds_have_no_value() {
        for (kind, lower, upper, some) in [
            (FieldKind::Keyword, "b", "a", false),
            (FieldKind::Float, "1", "1", true),
            (FieldKind::Date, "2021", "2020", false),
            (FieldKind::Date, "2020", "2020-01-01", true),
            (FieldKind::Bool, "true", "false", false),
        ] {
            let mut range = ValueRange::all();
            range.starts_with(of(kind, lower));
            range.ends_with(of(kind, upper));
            assert_eq!(range.bounds().is_some(), some, "{kind} {lower} {upper}");
        }
    }
}
