//! Finds tables and code blocks in the specification, and the annotated fields of the golden frames.

use std::fs;
use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER;

/// One table: its cells without blanks and back quotes around them.
pub(crate) struct Table {
    columns: Vec<String>,
    rows: Vec<Vec<String>>,
}

/// One annotated line of a golden frame.
pub(crate) struct Field {
    /// What stands behind `#`, up to a colon.
    pub(crate) name: String,
    pub(crate) bytes: Vec<u8>,
}

impl Table {
    /// The cells of these columns, row by row.
    pub(crate) fn columns<const N: usize>(&self, names: [&str; N]) -> Vec<[String; N]> {
        let at = names.map(|name| {
            self.columns
                .iter()
                .position(|column| column == name)
                .unwrap_or_else(|| panic!("no column {name}"))
        });
        self.rows.iter().map(|row| at.map(|at| row[at].clone())).collect()
    }
}

fn folder(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn specification() -> String {
    fs::read_to_string(folder("../docs/protocol.md")).unwrap()
}

fn cells(line: &str) -> Vec<String> {
    let inner = line.trim().trim_start_matches('|').trim_end_matches('|');
    inner.split('|').map(|cell| cell.replace('`', "").trim().to_owned()).collect()
}

fn tables(text: &str) -> Vec<Table> {
    let mut tables: Vec<Table> = Vec::new();
    let mut within = false;
    for line in text.lines() {
        if !line.starts_with('|') {
            within = false;
        } else if !within {
            within = true;
            tables.push(Table { columns: cells(line), rows: Vec::new() });
        } else if !line.starts_with("| ---") {
            let table = tables.last_mut().unwrap();
            let row = cells(line);
            assert_eq!(row.len(), table.columns.len(), "{line}");
            table.rows.push(row);
        }
    }
    tables
}

/// The only table whose columns begin with these.
pub(crate) fn table(columns: &[&str]) -> Table {
    let mut found = tables(&specification());
    found.retain(|table| table.columns.iter().zip(columns).all(|(column, wanted)| column == wanted));
    assert_eq!(found.len(), 1, "tables that begin with {columns:?}");
    found.remove(0)
}

/// The layout under the heading `### name`; `None` where the section has none.
pub(crate) fn layout(name: &str) -> Option<Table> {
    let text = specification();
    let heading = format!("\n### {name}\n");
    let section = text.split_once(&heading).unwrap_or_else(|| panic!("no section {name}")).1;
    let section = section.split("\n#").next().unwrap();
    tables(section).into_iter().find(|table| table.columns.first().is_some_and(|column| column == "At"))
}

/// The blocks of one language, in order, without line ends.
pub(crate) fn blocks(language: &str) -> Vec<String> {
    let text = specification();
    let fence = format!("\n```{language}\n");
    text.split(&fence).skip(1).map(|rest| rest.split("\n```").next().unwrap().replace('\n', "")).collect()
}

/// The names of the golden frames that begin with `prefix`.
pub(crate) fn golden_names(prefix: &str) -> Vec<String> {
    let files = fs::read_dir(folder("tests/golden")).unwrap().map(|entry| entry.unwrap().path());
    let mut names: Vec<String> = files
        .filter(|path| path.extension().is_some_and(|extension| extension == "hex"))
        .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
        .filter(|name| name.starts_with(prefix))
        .collect();
    names.sort();
    names
}

/// The fields of one golden frame, its header first.
pub(crate) fn golden(name: &str) -> Vec<Field> {
    let text = fs::read_to_string(folder("tests/golden").join(name).with_extension("hex")).unwrap();
    let mut fields: Vec<Field> = Vec::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (hex, label) = line.split_once('#').unwrap_or((line, ""));
        let bytes = HEXLOWER.decode(hex.replace(' ', "").as_bytes()).unwrap();
        if label.is_empty() {
            fields.last_mut().unwrap().bytes.extend(bytes);
        } else {
            let name = label.split(':').next().unwrap().trim().to_owned();
            fields.push(Field { name, bytes });
        }
    }
    fields
}
