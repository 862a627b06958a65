//! The documents name what exists: links lead somewhere, and what the architecture walks through is code.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Every file with this ending below a folder.
fn files(folder: &Path, ending: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(files(&path, ending)?);
        } else if path.extension().is_some_and(|extension| extension == ending) {
            found.push(path);
        }
    }
    Ok(found)
}

/// The targets of a document's links.
fn links(text: &str) -> impl Iterator<Item = &str> {
    text.split("](").skip(1).filter_map(|rest| rest.split(')').next())
}

/// What a document has between back quotes and looks like `Type::function`.
fn functions(text: &str) -> BTreeSet<(&str, &str)> {
    let code = text.split('`').skip(1).step_by(2);
    let is_type = |name: &str| name.starts_with(|c: char| c.is_ascii_uppercase());
    // `Event::Reachable(false)` is a variant with a value, `Reader::join(topic)` a call.
    code.filter_map(|code| code.split('(').next())
        .filter_map(|code| code.split_once("::"))
        .filter(|(name, _)| is_type(name))
        .collect()
}

#[test]
fn every_link_between_documents_leads_somewhere() -> Result<()> {
    let mut documents = files(&repository().join("docs"), "md")?;
    documents.push(repository().join("README.md"));
    for document in documents {
        let text = fs::read_to_string(&document)?;
        for link in links(&text).filter(|link| !link.contains("://") && !link.starts_with('#')) {
            let target = link.split('#').next().unwrap_or(link);
            let folder = document.parent().context("a folder")?;
            assert!(folder.join(target).exists(), "{} links to {link}", document.display());
        }
    }
    Ok(())
}

#[test]
fn the_functions_that_the_architecture_walks_through_exist() -> Result<()> {
    let mut code = String::new();
    for part in ["wire", "broker-wire", "session", "service-kit", "relay", "broker-api", "client", "cli"] {
        for file in files(&repository().join(part).join("src"), "rs")? {
            code.push_str(&fs::read_to_string(file)?);
        }
    }
    let architecture = fs::read_to_string(repository().join("docs/architecture.md"))?;
    let named = functions(&architecture);
    assert!(named.len() > 20, "only {} functions are named", named.len());
    for (name, function) in named {
        let is_declared =
            ["struct", "enum", "trait"].iter().any(|kind| code.contains(&format!("{kind} {name}")));
        assert!(is_declared, "there is no {name}");
        let exists = [format!("fn {function}("), format!("fn {function}<"), format!("    {function}")];
        assert!(exists.iter().any(|text| code.contains(text)), "{name} has no {function}");
    }
    Ok(())
}
