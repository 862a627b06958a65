//! The children of a labelled series.

use std::ops::Index;
use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, Key, Label, Level, Metadata, Recorder};

/// What a series hands out to be moved: a counter, a gauge or a histogram.
pub trait Handle: Clone {
    /// Creates the child with these labels in the recorder.
    fn create(recorder: &dyn Recorder, series: &'static str, labels: Vec<Label>) -> Self;

    /// A handle that moves nothing.
    fn noop() -> Self;
}

/// How the names of counters of seconds end.
pub(super) const SECONDS_SUFFIX: &str = "_seconds_total";

const METADATA: Metadata<'static> = Metadata::new("culvert", Level::INFO, None);

impl Handle for Counter {
    fn create(recorder: &dyn Recorder, series: &'static str, labels: Vec<Label>) -> Self {
        recorder.register_counter(&Key::from_parts(series, labels), &METADATA)
    }

    fn noop() -> Self {
        Counter::noop()
    }
}

impl Handle for Gauge {
    fn create(recorder: &dyn Recorder, series: &'static str, labels: Vec<Label>) -> Self {
        recorder.register_gauge(&Key::from_parts(series, labels), &METADATA)
    }

    fn noop() -> Self {
        Gauge::noop()
    }
}

impl Handle for Histogram {
    fn create(recorder: &dyn Recorder, series: &'static str, labels: Vec<Label>) -> Self {
        recorder.register_histogram(&Key::from_parts(series, labels), &METADATA)
    }

    fn noop() -> Self {
        Histogram::noop()
    }
}

/// A counter of seconds. The recorder counts in whole numbers, so it is a gauge there; what is exported is
/// a counter.
#[derive(Clone)]
pub struct Seconds(Gauge);

impl Seconds {
    /// Sets it to a time that never becomes shorter.
    pub fn absolute(&self, time: Duration) {
        self.0.set(time.as_secs_f64());
    }
}

impl Handle for Seconds {
    fn create(recorder: &dyn Recorder, series: &'static str, labels: Vec<Label>) -> Self {
        debug_assert!(series.ends_with(SECONDS_SUFFIX), "{series} is exported as a gauge");
        Self(Gauge::create(recorder, series, labels))
    }

    fn noop() -> Self {
        Self(Gauge::noop())
    }
}

/// A label: its key, all its values and the text of each.
#[derive(Debug, Clone, Copy)]
pub struct Labels<L: 'static> {
    /// Label name.
    pub key: &'static str,
    /// Every value; each gets a child.
    pub all: &'static [L],
    /// Text of a value.
    pub name: fn(L) -> &'static str,
}

impl<L: Copy> Labels<L> {
    fn label(&self, value: L) -> Label {
        Label::from_static_parts(self.key, (self.name)(value))
    }
}

/// One handle per label value, indexed by the value.
///
/// The list is searched from the front: label enums have a handful of values, and comparing those is
/// cheaper than hashing one.
#[derive(Clone)]
pub struct Family<L, H> {
    children: Vec<(L, H)>,
    /// Stands in for a value that is missing from the list given as "all": metrics never end a process.
    missing: H,
}

impl<L: Copy + PartialEq, H: Handle> Family<L, H> {
    /// Creates one child per value.
    pub fn one(recorder: &dyn Recorder, series: &'static str, labels: Labels<L>) -> Self {
        let children = labels
            .all
            .iter()
            .map(|&value| (value, H::create(recorder, series, vec![labels.label(value)])))
            .collect();
        Self { children, missing: H::noop() }
    }
}

impl<A: Copy + PartialEq, B: Copy + PartialEq, H: Handle> Family<(A, B), H> {
    /// Creates one child per pair of values.
    pub fn two(recorder: &dyn Recorder, series: &'static str, a: Labels<A>, b: Labels<B>) -> Self {
        let pairs = a.all.iter().flat_map(|&one| b.all.iter().map(move |&two| (one, two)));
        let children = pairs
            .map(|(one, two)| ((one, two), H::create(recorder, series, vec![a.label(one), b.label(two)])))
            .collect();
        Self { children, missing: H::noop() }
    }
}

impl<L: Copy + PartialEq, H> Index<L> for Family<L, H> {
    type Output = H;

    fn index(&self, value: L) -> &H {
        match self.children.iter().find(|(child, _)| *child == value) {
            Some((_, handle)) => handle,
            None => {
                debug_assert!(false, "a label value is missing from the list of all values");
                &self.missing
            }
        }
    }
}
