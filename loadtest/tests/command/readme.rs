//! What `README.md` says about figures is what the code says.
//!
//! `UPDATE_DOCS=1 cargo test -p culvert-loadtest --test command readme` writes it anew.

use std::path::Path;

use culvert_loadtest::report::{known, markdown};

/// Set to write the section instead of comparing it.
const UPDATE: &str = "UPDATE_DOCS";
/// Around the section.
const MARKERS: (&str, &str) = ("<!-- figures -->\n", "<!-- /figures -->");

fn readme() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")
}

#[test]
fn the_readme_says_what_every_number_means() {
    let text = std::fs::read_to_string(readme()).unwrap();
    let (before, rest) = text.split_once(MARKERS.0).expect("the section begins with its marker");
    let (found, after) = rest.split_once(MARKERS.1).expect("the section ends with its marker");
    let expected = format!("\n{}", markdown());
    if std::env::var_os(UPDATE).is_some() {
        let text = format!("{before}{}{expected}{}{after}", MARKERS.0, MARKERS.1);
        std::fs::write(readme(), text).unwrap();
        return;
    }
    assert!(
        found == expected,
        "README.md is stale: run {UPDATE}=1 cargo test -p culvert-loadtest --test command readme"
    );
}

#[test]
fn every_figure_has_one_name_and_a_sentence() {
    for (at, figure) in known().iter().enumerate() {
        assert!(figure.meaning.ends_with(['.', ';']), "{}: {}", figure.name, figure.meaning);
        assert!(
            figure.meaning.starts_with(|c: char| c.is_uppercase() || c.is_ascii_digit()),
            "{}",
            figure.name
        );
        assert!(known()[..at].iter().all(|other| other.name != figure.name), "{} twice", figure.name);
    }
}
