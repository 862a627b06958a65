//! Whatever a stranger sends is refused or understood; what is understood is written and read the same.
#![no_main]

use bytes::Bytes;
use culvert_wire::Frame;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|message: &[u8]| {
    let Ok(frame) = Frame::decode(Bytes::copy_from_slice(message)) else { return };
    let written = frame.encode().expect("what was decoded is within every limit");
    let again = Frame::decode(written).expect("what was encoded decodes");
    assert_eq!(again, frame);
});
