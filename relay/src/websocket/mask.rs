//! The mask of RFC 6455 section 5.3.

/// Applies `mask` to `bytes`, whose first byte is under the mask's first.
pub(super) fn apply(bytes: &mut [u8], mask: [u8; 4]) {
    let [a, b, c, d] = mask;
    // Eight bytes at a time, which the compiler makes vectors of.
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (chunks, rest) = bytes.as_chunks_mut();
    for chunk in chunks {
        *chunk = (u64::from_ne_bytes(*chunk) ^ wide).to_ne_bytes();
    }
    for (byte, mask) in rest.iter_mut().zip(wide.to_ne_bytes()) {
        *byte ^= mask;
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_length_is_masked_byte_by_byte() {
        let mask = [0x6d, 0xb6, 0xb2, 0x80];
        for len in 0..100 {
            let plain: Vec<u8> = (0..len).collect();
            let mut masked = plain.clone();
            super::apply(&mut masked, mask);
            let expected: Vec<u8> = plain.iter().enumerate().map(|(n, byte)| byte ^ mask[n % 4]).collect();
            assert_eq!(masked, expected);
        }
    }
}
