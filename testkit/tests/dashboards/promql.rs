//! As much of PromQL as it takes to see which series, labels and label values a query asks for.

/// A series that a query asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Selector {
    pub(crate) series: String,
    /// Label, operator and value.
    pub(crate) matchers: Vec<(String, String, String)>,
}

/// Words that are neither series nor functions.
const WORDS: &[&str] = &["and", "or", "unless", "bool", "offset", "atan2", "inf", "nan"];
/// Words that a list of labels follows.
const LISTS: &[&str] = &["by", "without", "on", "ignoring", "group_left", "group_right"];

/// Every series in a query that Prometheus accepts.
pub(crate) fn selectors(query: &str) -> Vec<Selector> {
    let (mut found, mut rest) = (Vec::new(), query);
    while let Some(first) = rest.chars().next() {
        match first {
            '[' => rest = after(rest, ']').1,
            '"' => rest = after(&rest[1..], '"').1,
            c if c.is_ascii_digit() => {
                rest = rest.trim_start_matches(|c: char| c.is_ascii_alphanumeric() || c == '.');
            }
            c if c.is_ascii_alphabetic() || "_:".contains(c) => {
                let end = rest
                    .find(|c: char| !(c.is_ascii_alphanumeric() || "_:".contains(c)))
                    .unwrap_or(rest.len());
                let (word, behind) = rest.split_at(end);
                rest = behind.trim_start();
                if LISTS.contains(&word) {
                    rest = if rest.starts_with('(') { after(rest, ')').1 } else { rest };
                } else if !WORDS.contains(&word) && !is_function(rest) {
                    let braces = if rest.starts_with('{') { after_braces(rest) } else { ("", rest) };
                    rest = braces.1;
                    found.push(Selector { series: word.to_owned(), matchers: matchers(braces.0) });
                }
            }
            c => rest = &rest[c.len_utf8()..],
        }
    }
    found
}

/// Whether this follows the name of a function or of an aggregation, which may name its labels first.
fn is_function(rest: &str) -> bool {
    let lists = ["by", "without"].into_iter().filter_map(|list| rest.strip_prefix(list));
    std::iter::once(rest).chain(lists).any(|rest| rest.trim_start().starts_with('('))
}

fn after(text: &str, end: char) -> (&str, &str) {
    text.split_once(end).unwrap_or_else(|| panic!("no {end} in {text}"))
}

/// What is between braces, in which a text may hold a brace, and what follows.
fn after_braces(text: &str) -> (&str, &str) {
    let mut quoted = false;
    for (at, c) in text.char_indices() {
        quoted ^= c == '"';
        if c == '}' && !quoted {
            return (&text[1..at], &text[at + 1..]);
        }
    }
    panic!("no end of {text}")
}

fn matchers(mut text: &str) -> Vec<(String, String, String)> {
    let mut found = Vec::new();
    while let Some((head, rest)) = text.split_once('"') {
        let key_end = head.find(['=', '!']).unwrap_or_else(|| panic!("no matcher: {head}"));
        let (value, rest) = after(rest, '"');
        let key = head[..key_end].trim_matches([' ', ',']);
        found.push((key.to_owned(), head[key_end..].trim().to_owned(), value.to_owned()));
        text = rest;
    }
    found
}

#[test]
fn a_query_is_taken_apart_into_its_series() {
    let query = r#"histogram_quantile(0.99, sum by (le, job) (rate(a_bucket{x=~"1|2",y!="}"}[5m] offset 1h)))
        / ignoring (z) group_left () job:b:rate5m > 14.4 * 1e3 and up{job="c"} == 0"#;
    let matcher = |key: &str, operator: &str, value: &str| (key.into(), operator.into(), value.into());
    let expected = [
        ("a_bucket", vec![matcher("x", "=~", "1|2"), matcher("y", "!=", "}")]),
        ("job:b:rate5m", vec![]),
        ("up", vec![matcher("job", "=", "c")]),
    ];
    let expected = expected.map(|(series, matchers)| Selector { series: series.to_owned(), matchers });
    assert_eq!(selectors(query), expected);
}
