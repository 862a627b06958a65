//! What was promised, beside what was measured.

use std::fmt;

/// A bound of a figure.
#[derive(Clone, Copy)]
pub(crate) enum Bound {
    /// The figure must not be above it.
    AtMost(f64),
    /// The figure must not be below it.
    AtLeast(f64),
}

/// One promise.
pub(crate) struct Verdict {
    what: String,
    measured: f64,
    unit: &'static str,
    bound: Bound,
}

/// All promises that were looked at, in order.
#[derive(Default)]
pub(crate) struct Verdicts(Vec<Verdict>);

impl Bound {
    fn holds(self, measured: f64) -> bool {
        match self {
            Bound::AtMost(bound) => measured <= bound,
            Bound::AtLeast(bound) => measured >= bound,
        }
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Bound::AtMost(bound) => write!(f, "at most {bound}"),
            Bound::AtLeast(bound) => write!(f, "at least {bound}"),
        }
    }
}

impl Verdicts {
    /// Looks at one.
    pub(crate) fn judge(&mut self, what: impl Into<String>, measured: f64, unit: &'static str, bound: Bound) {
        self.0.push(Verdict { what: what.into(), measured, unit, bound });
    }

    /// Whether there are any.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for Verdicts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<58} {:>9}           target", "", "measured")?;
        for Verdict { what, measured, unit, bound } in &self.0 {
            let met = if bound.holds(*measured) { "met" } else { "NOT MET" };
            writeln!(f, "{what:<58} {measured:>9.2} {unit:<9} {:<16} {met}", bound.to_string())?;
        }
        let missed = self.0.iter().filter(|verdict| !verdict.bound.holds(verdict.measured)).count();
        write!(f, "{} of {} targets met", self.0.len() - missed, self.0.len())
    }
}
