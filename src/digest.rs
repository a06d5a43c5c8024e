//! Hashes, and hexadecimal digits to and from bytes.

use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher, Hash};

use sha2::{Digest, Sha256};

/// SHA-256 over fields, each preceded by its length, so that two different lists never give the
/// same input (CVE-2023-35941 had no lengths).
pub(crate) fn sha256_of_fields<const N: usize>(fields: [&[u8]; N]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for field in fields {
        hash.update((field.len() as u64).to_be_bytes());
        hash.update(field);
    }
    hash.finalize().into()
}

/// A hash for lookups in memory. Never store it: another release of Rust may compute another
/// one.
pub(crate) fn in_memory_hash(value: impl Hash) -> u64 {
    BuildHasherDefault::<DefaultHasher>::default().hash_one(value)
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    let mut digits = vec![0; bytes.len() * 2];
    let digit = |value: u8| b"0123456789abcdef"[usize::from(value)];
    for (pair, byte) in digits.as_chunks_mut().0.iter_mut().zip(bytes) {
        *pair = [digit(byte >> 4), digit(byte & 15)];
    }
    String::from_utf8(digits).expect("digits")
}

/// Value of each byte as a hexadecimal digit; [`NO_DIGIT`] for other bytes.
static DIGITS: [u8; 256] = {
    let mut digits = [NO_DIGIT; 256];
    let mut value = 0;
    while value < 16 {
        digits[b"0123456789abcdef"[value] as usize] = value as u8;
        digits[b"0123456789ABCDEF"[value] as usize] = value as u8;
        value += 1;
    }
    digits
};

const NO_DIGIT: u8 = 16;

pub(crate) fn parse_digest(text: &str) -> Option<[u8; 32]> {
    let text: &[u8; 64] = text.as_bytes().try_into().ok()?;
    let mut digest = [0; 32];
    let mut seen = 0;
    // No branches: digits of a digest cannot be predicted, and a policy may have thousands.
    for (byte, &[high, low]) in digest.iter_mut().zip(text.as_chunks().0) {
        let (high, low) = (DIGITS[usize::from(high)], DIGITS[usize::from(low)]);
        *byte = high << 4 | low;
        seen |= high | low;
    }
    (seen < NO_DIGIT).then_some(digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hash_of_fields_depends_on_where_each_field_ends() {
        assert_ne!(sha256_of_fields([b"ab", b"c"]), sha256_of_fields([b"a", b"bc"]));
        assert_ne!(sha256_of_fields([b"a", b""]), sha256_of_fields([b"", b"a"]));
    }
}
