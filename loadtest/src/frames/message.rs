//! Frames as WebSocket messages of a client.

use anyhow::Result;
use culvert_wire::limits::HEADER_LEN;
use culvert_wire::{Frame, Header};

/// Most bytes that a message has beside its payload: WebSocket header, mask, frame header.
pub const OVERHEAD: usize = 8 + HEADER_LEN;

/// The frame as a client's WebSocket message.
///
/// # Errors
/// The frame is larger than a frame may be.
pub fn message(frame: &Frame) -> Result<Vec<u8>> {
    let body = frame.encode()?;
    let mut out = Vec::with_capacity(body.len() + 8);
    head(body.len(), &mut out)?;
    out.extend_from_slice(&body);
    Ok(out)
}

/// Appends a message with this header and this payload.
///
/// # Errors
/// The payload is larger than a message of this kind may be.
pub fn send_message(header: Header, payload: &[u8], out: &mut Vec<u8>) -> Result<()> {
    head(HEADER_LEN + payload.len(), out)?;
    out.extend_from_slice(&header.to_bytes());
    out.extend_from_slice(payload);
    Ok(())
}

/// The WebSocket header of a masked, final, binary message, and a mask of zeros.
fn head(len: usize, out: &mut Vec<u8>) -> Result<()> {
    out.push(0x82);
    match u8::try_from(len) {
        Ok(len) if len <= 125 => out.push(0x80 | len),
        _ => {
            out.push(0x80 | 126);
            out.extend_from_slice(&u16::try_from(len)?.to_be_bytes());
        }
    }
    out.extend_from_slice(&[0; 4]);
    Ok(())
}
