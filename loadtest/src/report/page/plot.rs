//! One plot: lines over a common axis, drawn as SVG and written as a table.
//!
//! The colours of the drawing are those of the light page; the page's style sheet replaces each by its twin
//! in the dark. Text is laid out for [`SIZE`], which is about the size at which plots are shown.

use std::fmt::Write;
use std::ops::Range;

use anyhow::{Result, anyhow};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::scale::Scale;
use crate::report::unit::Unit;

/// Width and height at which it is drawn; the page scales it.
const SIZE: (u32, u32) = (560, 290);
/// Height of the labels below.
const BELOW: u32 = 30;
/// Width of a character of a label, on the safe side.
const CHARACTER: u32 = 8;
/// Plotters draws text at 1 / 1.24 of the size that it is told.
const TEXT: f64 = 13.0 * 1.24;
/// The thinnest band is one in so many of the width.
const THINNEST: f64 = 250.0;
/// Numbers of faults closer together than this would overlap.
const BETWEEN_NUMBERS: i32 = 17;

/// Colours of lines, in the light and in the dark.
pub(super) const LINES: [(RGBColor, &str); 8] = [
    (RGBColor(0x25, 0x63, 0xEB), "#60A5FA"),
    (RGBColor(0xC2, 0x41, 0x0C), "#FB923C"),
    (RGBColor(0x04, 0x78, 0x57), "#34D399"),
    (RGBColor(0x7C, 0x3A, 0xED), "#A78BFA"),
    (RGBColor(0xBE, 0x12, 0x3C), "#FB7185"),
    (RGBColor(0x0E, 0x74, 0x90), "#22D3EE"),
    (RGBColor(0xA1, 0x62, 0x07), "#FACC15"),
    (RGBColor(0x47, 0x55, 0x69), "#94A3B8"),
];
/// Colours of everything else, in the light and in the dark.
const LABEL: (RGBColor, &str) = (RGBColor(0x4B, 0x55, 0x63), "#A3ADBA");
const GRID: (RGBColor, &str) = (RGBColor(0xE5, 0xE7, 0xEB), "#2B3442");
const AXIS: (RGBColor, &str) = (RGBColor(0x9C, 0xA3, 0xAF), "#566071");
const FAULT: (RGBColor, &str) = (RGBColor(0xDC, 0x26, 0x26), "#F87171");

/// What the values across are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Across {
    /// Seconds since the beginning of what is measured.
    Time,
    /// One in so many values is above: 100 is the 99th percentile.
    Nines,
}

/// One line.
#[derive(Debug, Clone)]
pub(super) struct Line {
    pub(super) name: String,
    /// A value for each of the plot's values across, absent where nothing was measured.
    pub(super) values: Vec<Option<f64>>,
}

/// A part of the time that is marked.
#[derive(Debug, Clone, Copy)]
pub(super) struct Band {
    pub(super) number: usize,
    pub(super) from: f64,
    pub(super) to: f64,
}

/// One plot.
#[derive(Debug)]
pub(super) struct Plot {
    /// Unique in the page.
    pub(super) id: &'static str,
    pub(super) title: String,
    /// How to read it, a sentence.
    pub(super) caption: String,
    pub(super) across: Across,
    pub(super) unit: Unit,
    /// Whether values lie decades apart, and the usual ones matter as much as the worst.
    pub(super) spread: bool,
    /// Where the axis across ends, if it is of time.
    pub(super) until: f64,
    pub(super) at: Vec<f64>,
    pub(super) lines: Vec<Line>,
    pub(super) bands: Vec<Band>,
}

impl Plot {
    /// Whether there is something to draw.
    pub(super) fn has_values(&self) -> bool {
        self.lines.iter().any(|line| line.values.iter().flatten().count() > 1)
    }

    fn values(&self) -> impl Iterator<Item = f64> {
        self.lines.iter().flat_map(|line| line.values.iter().flatten().copied())
    }

    /// Values that span decades get a logarithmic axis: the usual would lie on the ground if the worst fit.
    fn up(&self) -> Scale {
        let most = self.values().fold(0.0, f64::max);
        let least = self.values().filter(|value| *value > 0.0).fold(f64::INFINITY, f64::min);
        if self.spread && least.is_finite() && most / least > 12.0 {
            Scale::logarithmic(self.unit, least, most)
        } else {
            Scale::linear(self.unit, most)
        }
    }

    fn across(&self) -> Scale {
        match self.across {
            Across::Time => Scale::time(self.until),
            // There are fewer values than fit.
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
            Across::Nines => Scale::nines(self.at.iter().copied().fold(1.0, f64::max) as u64),
        }
    }

    /// Whether the axis up is logarithmic, which its reader must know.
    pub(super) fn is_logarithmic(&self) -> bool {
        self.up().is_logarithmic()
    }

    /// The drawing.
    ///
    /// # Errors
    /// Plotters cannot draw it.
    pub(super) fn svg(&self) -> Result<String> {
        let mut drawn = String::new();
        self.draw(&mut drawn).map_err(|error| anyhow!("cannot draw {}: {error}", self.title))?;
        // Plotters has no way to say what a drawing shows.
        let inside = drawn.split_once(">\n").map(|(_, inside)| inside).unwrap_or_default();
        let (id, (width, height)) = (self.id, SIZE);
        Ok(format!(
            "<svg viewBox=\"0 0 {width} {height}\" role=\"img\" aria-labelledby=\"{id}-title {id}-desc\">\n\
             <title id=\"{id}-title\">{}</title>\n<desc id=\"{id}-desc\">{}</desc>\n{inside}",
            escaped(&self.title),
            escaped(&format!("{} {}", self.caption, self.summary())),
        ))
    }

    /// What someone who cannot see it should hear.
    fn summary(&self) -> String {
        let mut text = String::new();
        for line in &self.lines {
            let values = || line.values.iter().flatten().copied();
            let (least, most) = (values().reduce(f64::min), values().reduce(f64::max));
            if let (Some(least), Some(most)) = (least, most) {
                // Writing to a string cannot fail.
                let _ = write!(
                    text,
                    "{} from {} to {}. ",
                    line.name,
                    self.unit.show(least),
                    self.unit.show(most)
                );
            }
        }
        text
    }

    fn draw(&self, into: &mut String) -> Result<(), DrawingAreaErrorKind<std::io::Error>> {
        let (across, up) = (self.across(), self.up());
        let left = u32::try_from(up.widest()).unwrap_or(8) * CHARACTER + 18;
        let area = SVGBackend::with_string(into, SIZE).into_drawing_area();
        let mut chart = ChartBuilder::on(&area)
            .margin_top(22)
            .margin_right(36)
            .x_label_area_size(BELOW)
            .y_label_area_size(left)
            .build_cartesian_2d(across.clone(), up.clone())?;
        let label = ("sans-serif", TEXT).into_font().color(&LABEL.0);
        let nothing = TRANSPARENT.stroke_width(0);
        chart
            .configure_mesh()
            .light_line_style(nothing)
            .bold_line_style(GRID.0.stroke_width(1))
            .axis_style(AXIS.0.stroke_width(1))
            .label_style(label.clone())
            .x_label_formatter(&|value| across.label(*value))
            .y_label_formatter(&|value| up.label(*value))
            .set_all_tick_mark_size(4)
            .draw()?;
        let Range { start: bottom, end: top } = Ranged::range(&up);
        for band in &self.bands {
            // One of a few milliseconds is to be seen, too.
            let to = band.to.max(band.from + self.until / THINNEST);
            let corners = [(band.from, bottom), (to, top)];
            chart.draw_series([Rectangle::new(corners, FAULT.0.mix(0.14).filled())])?;
        }
        for (line, (colour, _)) in self.lines.iter().zip(LINES.iter().cycle()) {
            for piece in pieces(&self.at, &line.values) {
                let style = colour.stroke_width(2);
                match piece.as_slice() {
                    // A line of one point would not be seen.
                    [point] => drop(chart.draw_series([Circle::new(*point, 2, colour.filled())])?),
                    _ => drop(chart.draw_series(LineSeries::new(piece, style))?),
                }
            }
        }
        let centred = ("sans-serif", TEXT * 0.85).into_font().color(&FAULT.0);
        let centred = centred.pos(Pos::new(HPos::Center, VPos::Bottom));
        let mut last = i32::MIN / 2;
        for band in &self.bands {
            let (x, y) = chart.backend_coord(&((band.from + band.to) / 2.0, top));
            if x - last >= BETWEEN_NUMBERS {
                area.draw(&Text::new(band.number.to_string(), (x, y - 3), centred.clone()))?;
                last = x;
            }
        }
        area.present()
    }

    /// The same as a table: the heading of what is across, and rows.
    pub(super) fn rows(&self) -> Vec<Vec<String>> {
        let row = |(at, across): (usize, &f64)| {
            let first = match self.across {
                Across::Time => format!("{across:.1} s"),
                Across::Nines => share(*across),
            };
            let cells = self.lines.iter().map(|line| match line.values.get(at).copied().flatten() {
                Some(value) => self.unit.show(value),
                None => "–".to_owned(),
            });
            std::iter::once(first).chain(cells).collect()
        };
        self.at.iter().enumerate().map(row).collect()
    }
}

/// One in so many above, as a share below: 1,000 is 99.9 %.
fn share(one_in: f64) -> String {
    let percent = 100.0 - 100.0 / one_in;
    let text = format!("{percent:.6}");
    format!("{} %", text.trim_end_matches('0').trim_end_matches('.'))
}

/// A line without the places where nothing was measured.
fn pieces(at: &[f64], values: &[Option<f64>]) -> Vec<Vec<(f64, f64)>> {
    let mut pieces = vec![Vec::new()];
    for (x, y) in at.iter().zip(values) {
        match (y, pieces.last_mut()) {
            (Some(y), Some(piece)) => piece.push((*x, *y)),
            _ => pieces.push(Vec::new()),
        }
    }
    pieces.retain(|piece| !piece.is_empty());
    pieces
}

/// Rules that give the drawing its colours in the dark.
pub(super) fn dark_rules() -> String {
    let mut rules = String::new();
    for (light, dark) in LINES.iter().chain(&[LABEL, GRID, AXIS, FAULT]) {
        let light = hex(*light);
        // Writing to a string cannot fail.
        let _ =
            write!(rules, "svg [stroke=\"{light}\"]{{stroke:{dark}}}svg [fill=\"{light}\"]{{fill:{dark}}}");
    }
    rules
}

/// Rules for the swatches of legends: the light ones, the dark ones.
pub(super) fn swatch_rules() -> [String; 2] {
    let rules = |colour: &dyn Fn(usize) -> String| {
        (0..LINES.len()).map(|at| format!(".c{at}{{--c:{}}}", colour(at))).collect()
    };
    [rules(&|at| hex(LINES[at].0)), rules(&|at| LINES[at].1.to_owned())]
}

fn hex(colour: RGBColor) -> String {
    format!("#{:02X}{:02X}{:02X}", colour.0, colour.1, colour.2)
}

fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '&' => escaped.push_str("&amp;"),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plot(values: Vec<Option<f64>>) -> Plot {
        Plot {
            id: "p",
            title: "a < b".into(),
            caption: "How to read it.".into(),
            across: Across::Time,
            unit: Unit::Seconds,
            spread: true,
            until: 5.0,
            at: vec![1.0, 2.0, 3.0, 4.0, 5.0],
            lines: vec![Line { name: "<p50>".into(), values }],
            bands: vec![Band { number: 1, from: 2.0, to: 2.5 }],
        }
    }

    #[test]
    fn a_line_breaks_where_nothing_was_measured() {
        let drawn = plot(vec![Some(0.1), Some(0.2), None, Some(0.1), Some(0.3)]).svg().unwrap();
        assert_eq!(drawn.matches("stroke=\"#2563EB\"").count(), 2, "{drawn}");
    }

    #[test]
    fn a_drawing_says_what_it_shows_and_escapes_it() {
        let drawn = plot(vec![Some(0.1); 5]).svg().unwrap();
        assert!(drawn.contains("<title id=\"p-title\">a &lt; b</title>"), "{drawn}");
        assert!(drawn.contains("How to read it. &lt;p50&gt; from 100 ms to 100 ms."), "{drawn}");
        assert!(drawn.contains("0.14") && drawn.trim_end().ends_with("</svg>"), "{drawn}");
    }

    #[test]
    fn every_colour_has_a_twin_in_the_dark() {
        let drawn = plot(vec![Some(0.1); 5]).svg().unwrap();
        let rules = dark_rules();
        for (at, _) in drawn.match_indices("=\"#") {
            let colour = &drawn[at + 1..at + 10];
            assert!(rules.contains(colour), "{colour} is not in {rules}");
        }
    }

    #[test]
    fn the_table_has_what_the_drawing_has() {
        let plot = plot(vec![Some(0.1), None, None, None, Some(0.0005)]);
        assert_eq!(plot.rows()[0], ["1.0 s", "100 ms"]);
        assert_eq!(plot.rows()[1], ["2.0 s", "–"]);
        assert!(plot.is_logarithmic(), "times that span decades");
    }

    #[test]
    fn shares_are_named_by_their_nines() {
        for (one_in, name) in [(1.0, "0 %"), (2.0, "50 %"), (1000.0, "99.9 %"), (1e5, "99.999 %")] {
            assert_eq!(share(one_in), name);
        }
    }
}
