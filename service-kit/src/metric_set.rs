//! The series of a crate, declared once.
//!
//! [`metric_set!`](crate::metric_set!) turns a struct of series into their registration, their
//! documentation and the handles that the code moves: the doc comment of a field is the help text of its
//! series, so the two cannot disagree. Every child (one per combination of label values) is created when
//! the set is registered. Moving one costs an index into a short list, never a lookup by label text, and a
//! series that has not moved yet is exported as zero rather than missing.
//!
//! Sets are registered with a [`Registry`], of which each node has its own: several nodes run in one
//! process in tests and in `culvert dev`, and their numbers must not mix.

mod docs;
mod family;
mod registry;

pub use docs::{LabelDoc, SeriesDoc, SeriesKind, markdown_table};
pub use family::{Family, Handle, Labels, Seconds};
pub use registry::{BYTES_BUCKETS, Registry, SECONDS_BUCKETS};

pub use metrics::{Counter, Gauge, Histogram, Recorder};

/// Declares the series of a crate as one struct.
///
/// ```
/// use culvert_service_kit::metric_set::Registry;
///
/// #[derive(Clone, Copy, PartialEq)]
/// pub enum Class { Normal, Bulk }
///
/// impl Class {
///     const ALL: &[Class] = &[Class::Normal, Class::Bulk];
///     fn name(self) -> &'static str {
///         match self { Class::Normal => "normal", Class::Bulk => "bulk" }
///     }
/// }
///
/// culvert_service_kit::metric_set! {
///     /// Series of the example.
///     pub struct Metrics {
///         /// Frames taken from peers.
///         pub frames: counter "example_frames_total" { class: Class = Class::ALL, Class::name },
///         /// Connections open now.
///         pub connections: gauge "example_connections",
///     }
/// }
///
/// let registry = Registry::new();
/// let metrics = Metrics::register(registry.recorder());
/// metrics.frames[Class::Bulk].increment(3);
/// assert!(registry.render().contains(r#"example_frames_total{class="bulk"} 3"#));
/// assert!(registry.render().contains(r#"example_frames_total{class="normal"} 0"#));
/// ```
///
/// The kinds are `counter`, `gauge`, `histogram`, and `seconds` for a counter of time, whose name ends in
/// `_seconds_total`. A labelled field is a [`Family`] that is indexed by the label's value. Two labels are separated by a
/// semicolon, `{ a: A = A::ALL, A::name; b: B = B::ALL, B::name }`, and indexed by a pair. Labels are
/// enums, given as the list of all values and a function to their text, so that the number of children is
/// fixed.
///
/// The struct gets `register(&dyn Recorder) -> Self` and `SERIES`, the documentation of every field.
#[macro_export]
macro_rules! metric_set {
    (
        $(#[$attribute:meta])*
        $visibility:vis struct $set:ident {
            $(
                $(#[doc = $help:literal])+
                $field_visibility:vis $field:ident : $kind:ident $series:literal $({ $($label:tt)* })?
            ),* $(,)?
        }
    ) => {
        $(#[$attribute])*
        #[derive(Clone)]
        $visibility struct $set {
            $(
                $(#[doc = $help])+
                $field_visibility $field: $crate::metric_set!(@type $kind $({ $($label)* })?),
            )*
        }

        impl $set {
            /// Every series of this set, in the order of its fields.
            $visibility const SERIES: &'static [$crate::metric_set::SeriesDoc] = &[
                $($crate::metric_set::SeriesDoc {
                    name: $series,
                    kind: $crate::metric_set!(@kind $kind),
                    help: concat!($($help),+).trim_ascii(),
                    labels: $crate::metric_set!(@docs $({ $($label)* })?),
                }),*
            ];

            /// Creates every series of this set in the recorder, all children at zero.
            $visibility fn register(recorder: &dyn $crate::metric_set::Recorder) -> Self {
                for series in Self::SERIES {
                    series.describe(recorder);
                }
                Self {
                    $($field: $crate::metric_set!(@new recorder, $series $({ $($label)* })?),)*
                }
            }
        }

        impl ::std::fmt::Debug for $set {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                f.debug_struct(stringify!($set)).finish_non_exhaustive()
            }
        }
    };

    (@type $kind:ident) => { $crate::metric_set!(@handle $kind) };
    (@type $kind:ident { $key:ident : $label:ty = $all:expr, $name:expr $(,)? }) => {
        $crate::metric_set::Family<$label, $crate::metric_set!(@handle $kind)>
    };
    (@type $kind:ident {
        $key_a:ident : $label_a:ty = $all_a:expr, $name_a:expr;
        $key_b:ident : $label_b:ty = $all_b:expr, $name_b:expr $(,)?
    }) => {
        $crate::metric_set::Family<($label_a, $label_b), $crate::metric_set!(@handle $kind)>
    };

    (@handle counter) => { $crate::metric_set::Counter };
    (@handle seconds) => { $crate::metric_set::Seconds };
    (@handle gauge) => { $crate::metric_set::Gauge };
    (@handle histogram) => { $crate::metric_set::Histogram };

    (@kind counter) => { $crate::metric_set::SeriesKind::Counter };
    (@kind seconds) => { $crate::metric_set::SeriesKind::Seconds };
    (@kind gauge) => { $crate::metric_set::SeriesKind::Gauge };
    (@kind histogram) => { $crate::metric_set::SeriesKind::Histogram };

    (@docs) => { &[] };
    (@docs { $($key:ident : $label:ty = $all:expr, $name:expr);+ $(,)? }) => {
        &[$($crate::metric_set::LabelDoc {
            key: stringify!($key),
            values: || {
                let all: &[$label] = $all;
                all.iter().copied().map($name).collect()
            },
        }),+]
    };

    (@new $recorder:ident, $series:literal) => {
        $crate::metric_set::Handle::create($recorder, $series, ::std::vec::Vec::new())
    };
    (@new $recorder:ident, $series:literal {
        $key:ident : $label:ty = $all:expr, $name:expr $(,)?
    }) => {
        $crate::metric_set::Family::one(
            $recorder,
            $series,
            $crate::metric_set::Labels { key: stringify!($key), all: $all, name: $name },
        )
    };
    (@new $recorder:ident, $series:literal {
        $key_a:ident : $label_a:ty = $all_a:expr, $name_a:expr;
        $key_b:ident : $label_b:ty = $all_b:expr, $name_b:expr $(,)?
    }) => {
        $crate::metric_set::Family::two(
            $recorder,
            $series,
            $crate::metric_set::Labels { key: stringify!($key_a), all: $all_a, name: $name_a },
            $crate::metric_set::Labels { key: stringify!($key_b), all: $all_b, name: $name_b },
        )
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Clone, Copy, PartialEq)]
    enum Class {
        Normal,
        Bulk,
    }

    impl Class {
        const ALL: &[Class] = &[Class::Normal, Class::Bulk];

        fn name(self) -> &'static str {
            match self {
                Class::Normal => "normal",
                Class::Bulk => "bulk",
            }
        }
    }

    #[derive(Debug, Clone, Copy, PartialEq)]
    enum Reason {
        Gone,
        Full,
    }

    impl Reason {
        const ALL: &[Reason] = &[Reason::Gone, Reason::Full];

        const fn name(self) -> &'static str {
            match self {
                Reason::Gone => "gone",
                Reason::Full => "full",
            }
        }
    }

    metric_set! {
        /// Series for these tests.
        struct Metrics {
            /// Connections open now,
            /// counted after the handshake.
            connections: gauge "test_connections",
            /// Frames by class.
            frames: counter "test_frames_total" { class: Class = Class::ALL, Class::name },
            /// Drops by class and reason.
            drops: counter "test_drops_total" {
                class: Class = Class::ALL, Class::name;
                reason: Reason = Reason::ALL, Reason::name
            },
            /// Seconds from accept to welcome.
            handshake: histogram "test_handshake_seconds",
            /// Seconds spent in tests.
            spent: seconds "test_spent_seconds_total",
        }
    }

    #[test]
    fn every_child_is_exported_as_zero_before_it_moves() {
        let registry = Registry::new();
        let _metrics = Metrics::register(registry.recorder());
        let text = registry.render();
        for line in [
            "test_connections 0",
            r#"test_frames_total{class="normal"} 0"#,
            r#"test_drops_total{class="bulk",reason="full"} 0"#,
            r#"test_handshake_seconds_count 0"#,
            "# HELP test_connections Connections open now, counted after the handshake.",
            "# TYPE test_frames_total counter",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} not in\n{text}");
        }
    }

    #[test]
    fn a_family_moves_the_child_of_its_index_only() {
        let registry = Registry::new();
        let metrics = Metrics::register(registry.recorder());
        metrics.drops[(Class::Bulk, Reason::Gone)].increment(7);
        metrics.frames[Class::Normal].increment(1);
        let text = registry.render();
        assert!(text.contains(r#"test_drops_total{class="bulk",reason="gone"} 7"#), "{text}");
        assert!(text.contains(r#"test_drops_total{class="normal",reason="gone"} 0"#), "{text}");
        assert!(text.contains(r#"test_frames_total{class="normal"} 1"#), "{text}");
        assert!(text.contains(r#"test_frames_total{class="bulk"} 0"#), "{text}");
    }

    #[test]
    fn two_registries_do_not_share_numbers() {
        let (one, two) = (Registry::new(), Registry::new());
        let first = Metrics::register(one.recorder());
        let _second = Metrics::register(two.recorder());
        first.connections.set(5);
        assert!(one.render().contains("test_connections 5"));
        assert!(two.render().contains("test_connections 0"));
    }

    #[test]
    fn the_documentation_lists_series_labels_and_values() {
        let names: Vec<&str> = Metrics::SERIES.iter().map(|s| s.name).collect();
        assert_eq!(
            names,
            [
                "test_connections",
                "test_frames_total",
                "test_drops_total",
                "test_handshake_seconds",
                "test_spent_seconds_total"
            ]
        );
        let drops = &Metrics::SERIES[2];
        assert_eq!(drops.labels[1].key, "reason");
        assert_eq!((drops.labels[1].values)(), ["gone", "full"]);
        let table = markdown_table(Metrics::SERIES);
        assert!(
            table.contains(
                "| `test_drops_total` | counter | `class` = normal, bulk; `reason` = gone, full | Drops by class and reason. |"
            ),
            "{table}"
        );
    }

    #[test]
    fn a_counter_of_seconds_keeps_their_fractions_and_is_exported_as_a_counter() {
        let registry = Registry::new();
        let metrics = Metrics::register(registry.recorder());
        metrics.spent.absolute(std::time::Duration::from_millis(1250));
        let text = registry.render();
        assert!(
            text.contains("# TYPE test_spent_seconds_total counter\ntest_spent_seconds_total 1.25"),
            "{text}"
        );
        assert!(text.contains("# TYPE test_connections gauge"), "{text}");
    }

    #[test]
    fn seconds_are_exported_in_buckets() {
        let registry = Registry::new();
        let metrics = Metrics::register(registry.recorder());
        metrics.handshake.record(0.003);
        let text = registry.render();
        assert!(text.contains(r#"test_handshake_seconds_bucket{le="0.005"} 1"#), "{text}");
        assert!(text.contains(r#"test_handshake_seconds_bucket{le="0.0025"} 0"#), "{text}");
    }
}
