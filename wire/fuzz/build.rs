//! Turns the golden frames of the tests into the corpus that `cargo fuzz run decode` starts from.
//!
//! libFuzzer wants raw bytes, people want annotated hexadecimal; this keeps the second the only one.
//! The corpus is not committed: the fuzzer adds to it.

use std::error::Error;
use std::fs;
use std::path::Path;

use data_encoding::HEXLOWER;

fn main() -> Result<(), Box<dyn Error>> {
    let golden = Path::new("../tests/golden");
    let corpus = Path::new("corpus/decode");
    println!("cargo::rerun-if-changed={}", golden.display());
    fs::create_dir_all(corpus)?;
    for entry in fs::read_dir(golden)? {
        let path = entry?.path();
        let (Some(name), true) = (path.file_stem(), path.extension().is_some_and(|ext| ext == "hex")) else {
            continue;
        };
        let text = fs::read_to_string(&path)?;
        let digits: String = text
            .lines()
            .map(|line| line.split_once('#').map_or(line, |(bytes, _)| bytes))
            .flat_map(str::split_whitespace)
            .collect();
        fs::write(corpus.join(name), HEXLOWER.decode(digits.as_bytes())?)?;
    }
    Ok(())
}
