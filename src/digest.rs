//! Hashes, and hexadecimal digits to and from bytes.

use std::hash::{Hash, Hasher};

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

/// A hash for lookups in memory, which compare the values as well. Never store it: a release may
/// compute another one.
pub(crate) fn in_memory_hash(value: impl Hash) -> u64 {
    let mut hasher = Folder(0);
    value.hash(&mut hasher);
    hasher.finish()
}

/// Takes eight bytes at a time, for a fraction of the instructions of the hash of `std`. Values with
/// one hash would only be slower to find, and a caller could gain nothing by choosing them: the
/// policy's names come from the operator, and memory has at most 256 tokens.
struct Folder(u64);

impl Folder {
    fn fold(&mut self, word: u64) {
        // The factor is 2^64 divided by the golden ratio. Neither it nor the shift loses a bit.
        let product = (self.0 ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = product ^ product >> 32;
    }
}

impl Hasher for Folder {
    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks();
        for word in words {
            self.fold(u64::from_le_bytes(*word));
        }
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        last[7] = rest.len() as u8;
        self.fold(u64::from_le_bytes(last));
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    let mut digits = vec![0; bytes.len() * 2];
    let digit = |value: u8| b"0123456789abcdef"[usize::from(value)];
    for (pair, byte) in digits.as_chunks_mut().0.iter_mut().zip(bytes) {
        *pair = [digit(byte >> 4), digit(byte & 15)];
    }
    String::from_utf8(digits).expect("digits")
}

/// A byte of 1 in each of eight places.
const ONES: u64 = u64::MAX / 255;

pub(crate) fn parse_digest(text: &str) -> Option<[u8; 32]> {
    let text: &[u8; 64] = text.as_bytes().try_into().ok()?;
    let mut digest = [0; 32];
    let mut are_digits = ONES << 7;
    // Eight digits at a time and no branches: digits of a digest cannot be predicted, and a policy may
    // have thousands.
    for (bytes, digits) in digest.as_chunks_mut::<4>().0.iter_mut().zip(text.as_chunks::<8>().0) {
        let digits = u64::from_le_bytes(*digits);
        // In a sum of two numbers below 128, the top bit tells whether it reaches 128. If a byte of the
        // text is larger, no sum counts.
        let reaches = |bytes: u64, least: u8| (bytes & !(ONES << 7)) + ONES * u64::from(128 - least);
        let in_lower_case = digits | ONES << 5;
        let is_letter = reaches(in_lower_case, b'a') & !reaches(in_lower_case, b'f' + 1);
        let is_decimal = reaches(digits, b'0') & !reaches(digits, b'9' + 1);
        are_digits &= (is_letter | is_decimal) & !digits;
        let values = (digits & (ONES * 15)) + ((is_letter >> 7) & ONES) * 9;
        let pairs = (values << 4 | values >> 8).to_le_bytes();
        *bytes = [pairs[0], pairs[2], pairs[4], pairs[6]];
    }
    (are_digits == ONES << 7).then_some(digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digest_of_digits_in_both_cases_is_parsed_and_any_other_byte_refused() {
        let digits = "0123456789abcdefABCDEF0123456789abcdefABCDEF0123456789abcdefABCD";
        let expected: Vec<_> =
            (0..32).map(|place| u8::from_str_radix(&digits[place * 2..][..2], 16).unwrap()).collect();
        assert_eq!(parse_digest(digits).unwrap()[..], expected);
        for place in 0..64 {
            for byte in 0..128_u8 {
                let mut text = digits.as_bytes().to_vec();
                text[place] = byte;
                let text = String::from_utf8(text).unwrap();
                assert_eq!(parse_digest(&text).is_some(), byte.is_ascii_hexdigit(), "{byte} at {place}");
            }
        }
        for text in ["", &digits[1..], &format!("{digits}0"), &format!("{}\u{e9}", &digits[2..])] {
            assert_eq!(parse_digest(text), None, "{text}");
        }
    }

    #[test]
    fn names_of_a_large_policy_have_different_hashes() {
        let mut hashes: Vec<_> = (0..100_000).map(|number| in_memory_hash(format!("another-job-{number}"))).collect();
        hashes.extend(["", "\0", "\0\0", "a", "aaaaaaaa", "aaaaaaaaa"].map(in_memory_hash));
        let count = hashes.len();
        hashes.sort_unstable();
        hashes.dedup();
        assert_eq!(hashes.len(), count);
    }

    #[test]
    fn hash_of_fields_depends_on_where_each_field_ends() {
        assert_ne!(sha256_of_fields([b"ab", b"c"]), sha256_of_fields([b"a", b"bc"]));
        assert_ne!(sha256_of_fields([b"a", b""]), sha256_of_fields([b"", b"a"]));
    }
}
