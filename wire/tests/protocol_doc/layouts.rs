//! Layouts: every table of fields against the annotated golden frames, which are the code's own bytes.

use culvert_wire::limits::{HEADER_LEN, MEMBER_LEN};
use culvert_wire::{Frame, Kind};

use crate::document::{Field, Table, golden, golden_names, layout, table};

/// A row of a layout.
struct Row {
    at: Option<usize>,
    size: Size,
    name: String,
}

enum Size {
    Fixed(usize),
    /// So many entries of so many bytes, or so many bytes, as this field says.
    Counted {
        entry: usize,
        by: String,
    },
    Rest,
    /// What the admission or the notice has; see the table of those.
    Chosen,
}

fn rows(table: &Table) -> Vec<Row> {
    let parse = |[at, size, name]: [String; 3]| {
        let counted =
            |entry: &str, by: &str| Size::Counted { entry: entry.parse().unwrap(), by: by.to_owned() };
        let size = match size.split_once(" × ") {
            Some((entry, by)) => counted(entry, by),
            None if size == "rest" => Size::Rest,
            None if size.starts_with("by ") => Size::Chosen,
            None => size.parse().map_or_else(|_| counted("1", &size), Size::Fixed),
        };
        Row { at: at.parse().ok(), size, name }
    };
    table.columns(["At", "Size", "Field"]).into_iter().map(parse).collect()
}

/// A list like "`mac` [32], `ticket`": names with their sizes where they are fixed.
fn chosen(cell: &str) -> Vec<(String, Option<usize>)> {
    let field = |field: &str| match field.split_once(" [") {
        Some((name, size)) => (name.to_owned(), Some(size.trim_end_matches(']').parse().unwrap())),
        None => (field.to_owned(), None),
    };
    cell.split(", ").filter(|field| !field.is_empty()).map(field).collect()
}

fn number(bytes: &[u8]) -> usize {
    bytes.iter().fold(0, |number, byte| number << 8 | usize::from(*byte))
}

/// Takes the fields that the rows describe from the front of `fields`; what is left is unexplained.
fn explain(name: &str, rows: &[Row], choice: &[(String, Option<usize>)], fields: &mut Vec<Field>) {
    let mut at = Some(HEADER_LEN);
    let mut counts: Vec<(String, usize)> = Vec::new();
    let take = |fields: &mut Vec<Field>, wanted: &str| {
        assert!(!fields.is_empty(), "{name}: the bytes end before {wanted}");
        let field = fields.remove(0);
        assert_eq!(field.name, wanted, "{name}");
        field.bytes
    };
    for row in rows {
        if row.at.is_some() {
            assert_eq!(row.at, at, "{name}: offset of {}", row.name);
        }
        match &row.size {
            Size::Fixed(size) => {
                let bytes = take(fields, &row.name);
                assert_eq!(bytes.len(), *size, "{name}: size of {}", row.name);
                counts.push((row.name.clone(), number(&bytes)));
                at = at.map(|at| at + size);
            }
            Size::Counted { entry, by } => {
                let (_, count) = counts.iter().find(|(name, _)| name == by).unwrap();
                let mut left = entry * count;
                while left > 0 {
                    left -= take(fields, &row.name).len();
                }
                at = None;
            }
            Size::Rest => {
                if fields.first().is_some_and(|field| field.name == row.name) {
                    fields.remove(0);
                }
            }
            Size::Chosen => {
                for (field, size) in choice {
                    let len = take(fields, field).len();
                    assert!(size.is_none_or(|size| size == len), "{name}: size of {field}");
                }
                at = None;
            }
        }
    }
}

/// What the variant of this golden frame has in the place of `by admission` and `by notice`.
fn choice(name: &str) -> Vec<(String, Option<usize>)> {
    for (kind, columns) in
        [("hello-", ["Admission", "Name", "Proof"]), ("notice-", ["Notice", "Name", "Value"])]
    {
        if let Some(variant) = name.strip_prefix(kind) {
            let known = table(&columns).columns(["Name", columns[2]]);
            let row = known.iter().find(|[name, _]| name == variant);
            return row.map(|[_, cell]| chosen(cell)).unwrap_or_default();
        }
    }
    Vec::new()
}

#[test]
fn every_golden_frame_is_explained_by_its_layout() {
    for kind in Kind::ALL {
        let rows = layout(kind.name()).map(|table| rows(&table)).unwrap_or_default();
        let names = golden_names(kind.name());
        let mut explained = 0;
        for name in names {
            let mut fields = golden(&name);
            let header = fields.remove(0);
            assert_eq!(header.bytes.len(), HEADER_LEN, "{name}");
            if header.bytes[0] != kind.number() {
                continue;
            }
            explain(&name, &rows, &choice(&name), &mut fields);
            let left: Vec<&str> = fields.iter().map(|field| field.name.as_str()).collect();
            assert!(left.is_empty(), "{name}: {left:?} are not in the layout");
            explained += 1;
        }
        assert!(explained > 0, "{} has no golden frame", kind.name());
    }
}

#[test]
fn the_header_is_as_long_as_its_fields() {
    let end = rows(&layout("Header").unwrap()).into_iter().fold(0, |end, row| {
        assert_eq!(row.at, Some(end), "{}", row.name);
        let Size::Fixed(size) = row.size else { panic!("{}", row.name) };
        end + size
    });
    assert_eq!(end, HEADER_LEN);
}

#[test]
fn notices_and_admissions_are_numbered_as_in_the_golden_frames() {
    let mut notices: Vec<[String; 2]> = Vec::new();
    for name in golden_names("notice-") {
        if let Some(variant) = name.strip_prefix("notice-").filter(|variant| *variant != "other") {
            notices.push([golden(&name)[1].bytes[0].to_string(), variant.to_owned()]);
        }
    }
    notices.sort();
    assert_eq!(table(&["Notice"]).columns(["Notice", "Name"]), notices);

    let mut admissions: Vec<[String; 2]> = Vec::new();
    for name in golden_names("hello-") {
        let bytes: Vec<u8> = golden(&name).into_iter().flat_map(|field| field.bytes).collect();
        let Frame::Hello(hello) = Frame::decode(bytes.into()).unwrap() else { panic!("{name}") };
        admissions.push([hello.admission.number().to_string(), hello.admission.name().to_owned()]);
    }
    admissions.sort();
    assert_eq!(table(&["Admission", "Name"]).columns(["Admission", "Name"]), admissions);
}

#[test]
fn a_member_entry_is_as_long_as_its_fields() {
    for list in ["joined", "peers"] {
        let meaning = layout(list).unwrap().columns(["Field", "Meaning"]);
        let [_, members] = meaning.iter().find(|[field, _]| field == "members").unwrap();
        let sizes = members.split(['[', ']']).filter_map(|part| part.parse::<usize>().ok());
        assert_eq!(sizes.sum::<usize>(), MEMBER_LEN, "{list}");
    }
}
