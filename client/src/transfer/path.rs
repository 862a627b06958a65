//! Names that a stranger chose, before anything on this disk gets them.
//!
//! Names that can only be an attack (`..`, separators, an absolute path) are refused and end the
//! transfer. Names that are merely awkward here (control and direction characters, what Windows
//! reserves) are replaced, so that a harmless file is not lost. Folders on the way must be folders:
//! a symbolic link inside the output folder is never followed.

use std::path::{Path, PathBuf};
use std::{fs, io};

/// Most bytes of a whole path.
pub(super) const MAX_PATH: usize = 1024;
/// Deepest path.
pub(super) const MAX_DEPTH: usize = 64;
/// Longest name in bytes: what file systems take (255), less the longest suffix of a partial file.
pub(super) const MAX_NAME: usize = 224;

/// A path that nothing honest sends.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum PathError {
    #[error("an empty path")]
    Empty,
    #[error("a path that is too long or too deep")]
    TooLong,
    #[error("a name with `/`, or `.`, `..` or nothing as a name")]
    Escapes,
}

/// A path that is safe under any folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SafePath {
    components: Vec<String>,
    /// Whether a name had to be replaced.
    pub(super) renamed: bool,
}

impl SafePath {
    /// Checks and cleans the components as they came.
    pub(super) fn new(components: &[String]) -> Result<Self, PathError> {
        if components.is_empty() {
            return Err(PathError::Empty);
        }
        let bytes: usize = components.iter().map(|c| c.len() + 1).sum();
        if components.len() > MAX_DEPTH || bytes > MAX_PATH {
            return Err(PathError::TooLong);
        }
        let mut clean = Vec::with_capacity(components.len());
        for name in components {
            if matches!(name.as_str(), "" | "." | "..") || name.contains(['/', '\0']) {
                return Err(PathError::Escapes);
            }
            clean.push(clean_name(name));
        }
        if clean.iter().any(|name| name.len() > MAX_NAME) {
            return Err(PathError::TooLong);
        }
        let renamed = clean != components;
        Ok(Self { components: clean, renamed })
    }

    /// The first component: what appears in the output folder.
    pub(super) fn top(&self) -> &str {
        &self.components[0]
    }

    /// As it is shown.
    pub(super) fn display(&self) -> String {
        self.components.join("/")
    }

    /// Where it goes. Creates the folders above it, refusing links and files in their place.
    pub(super) fn locate(&self, out: &Path) -> io::Result<PathBuf> {
        let (name, folders) = self.components.split_last().expect("a safe path is not empty");
        let mut path = out.to_owned();
        for folder in folders {
            path.push(folder);
            make_folder(&path)?;
        }
        path.push(name);
        Ok(path)
    }
}

/// Creates a folder unless it is there. A link in its place is an error, wherever it points.
pub(super) fn make_folder(path: &Path) -> io::Result<()> {
    match fs::create_dir(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let meta = fs::symlink_metadata(path)?;
            if meta.is_dir() {
                Ok(())
            } else {
                let kind = if meta.is_symlink() { "a symbolic link" } else { "not a folder" };
                Err(io::Error::new(io::ErrorKind::NotADirectory, format!("{} is {kind}", path.display())))
            }
        }
        Err(error) => Err(error),
    }
}

/// Removes what could disturb a terminal from a text that is only shown.
pub(super) fn harmless(text: &str) -> String {
    text.chars().filter(|c| !is_hidden(*c)).take(MAX_PATH).collect()
}

fn clean_name(name: &str) -> String {
    let mut clean: String =
        name.chars().map(|c| if is_hidden(c) || "\\:*?\"<>|".contains(c) { '_' } else { c }).collect();
    if clean.ends_with(['.', ' ']) {
        clean.pop();
        clean.push('_');
    }
    let stem = clean.split('.').next().unwrap_or_default().trim_end().to_ascii_uppercase();
    let numbered = |prefix: &str| {
        stem.strip_prefix(prefix).is_some_and(|n| n.len() == 1 && n.as_bytes()[0].is_ascii_digit())
    };
    if matches!(stem.as_str(), "CON" | "PRN" | "AUX" | "NUL") || numbered("COM") || numbered("LPT") {
        clean.insert(0, '_');
    }
    clean
}

/// Control characters, and those that change the direction of the text around them.
fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn safe(components: &[&str]) -> Result<SafePath, PathError> {
        SafePath::new(&components.iter().map(|c| (*c).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn paths_that_leave_the_folder_are_refused() {
        assert_eq!(safe(&[]), Err(PathError::Empty));
        for bad in ["..", ".", "", "/etc/passwd", "a/../b", "/", "a\0b"] {
            assert_eq!(safe(&["ok", bad]), Err(PathError::Escapes), "{bad:?}");
        }
        assert_eq!(safe(&["a"; MAX_DEPTH + 1]), Err(PathError::TooLong));
        assert_eq!(safe(&[&"a".repeat(MAX_NAME + 1)]), Err(PathError::TooLong));
    }

    #[test]
    fn awkward_names_become_harmless_ones() {
        for (from, to) in [
            ("..\\..\\evil.exe", ".._.._evil.exe"),
            ("C:\\Windows", "C__Windows"),
            ("a\u{1b}[2Jb", "a_[2Jb"),
            ("invoice\u{202e}fdp.exe", "invoice_fdp.exe"),
            ("nul", "_nul"),
            ("COM1.txt", "_COM1.txt"),
            ("trailing. ", "trailing._"),
            ("...", ".._"),
            ("x\ny", "x_y"),
        ] {
            let path = safe(&[from]).unwrap();
            assert_eq!(path.display(), to, "{from:?}");
            assert!(path.renamed);
        }
        assert!(!safe(&["plain name.tar.gz", "común", "com"]).unwrap().renamed);
    }

    #[cfg(unix)]
    #[test]
    fn a_link_inside_the_output_folder_is_not_followed() {
        let out = tempfile::tempdir().unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(elsewhere.path(), out.path().join("dir")).unwrap();
        let error = safe(&["dir", "file"]).unwrap().locate(out.path()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotADirectory);
        assert!(error.to_string().contains("symbolic link"), "{error}");
    }

    proptest! {
        #[test]
        fn no_name_leaves_the_folder(components in proptest::collection::vec(".{0,12}", 1..5)) {
            if let Ok(path) = SafePath::new(&components) {
                let mut located = PathBuf::from("/out");
                located.extend(&path.components);
                prop_assert!(located.starts_with("/out"));
                prop_assert_eq!(located.components().count(), 2 + components.len());
                let normal = |c| matches!(c, std::path::Component::Normal(_));
                prop_assert!(located.components().skip(1).all(normal));
            }
        }
    }
}
