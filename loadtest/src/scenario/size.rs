//! Sizes as people write them: 64B, 1KiB, 16KiB.

use std::fmt;
use std::str::FromStr;

use anyhow::{Result, ensure};
use bytesize::ByteSize;
use culvert_wire::Class;
use culvert_wire::limits::MAX_PAYLOAD;
use serde::{Deserialize, Serialize};

use crate::frames::STAMP_LEN;

/// Payload bytes of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Size(pub usize);

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no size: write 64B, 1KiB or 16KiB");
        let size: ByteSize = text.parse().map_err(|_| wrong())?;
        usize::try_from(size.as_u64()).map(Self).map_err(|_| wrong())
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}B", self.0)
    }
}

impl Size {
    /// Checks that a frame can have it.
    ///
    /// # Errors
    /// A sentence that names the setting.
    pub fn check(self, setting: &str) -> Result<()> {
        ensure!(
            (STAMP_LEN..=MAX_PAYLOAD).contains(&self.0),
            "{setting} must be from {STAMP_LEN}B, because every frame carries its number and its time, to \
             {}KiB, the largest payload of a frame",
            MAX_PAYLOAD / 1024
        );
        Ok(())
    }
}

/// Reads the name of a class.
///
/// # Errors
/// There is none of this name.
pub fn class(name: &str) -> Result<Class, String> {
    let class = Class::ALL.iter().copied().find(|class| class.name() == name);
    class.ok_or_else(|| format!("{name:?} is no class: write control, normal or bulk"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_as_people_write_them_and_nonsense_says_how() {
        assert_eq!("64".parse(), Ok(Size(64)));
        assert_eq!("64B".parse(), Ok(Size(64)));
        assert_eq!("16KiB".parse(), Ok(Size(16384)));
        assert!("large".parse::<Size>().unwrap_err().contains("16KiB"));
        assert!(Size(15).check("--size").unwrap_err().to_string().starts_with("--size must be from 16B"));
        assert!(Size(16385).check("--size").is_err());
        assert_eq!(class("bulk"), Ok(Class::Bulk));
        assert!(class("urgent").is_err());
    }
}
