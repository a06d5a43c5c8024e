//! Public keys, and the signatures that they verify: RS256, PS256 and ES256 of RFC 7518.

mod jwk;
#[cfg(test)]
mod vectors;

use std::ops::RangeInclusive;

use p256::ecdsa::signature::Verifier as _;
use p256::ecdsa::{Signature, VerifyingKey};
use rsa::BoxedUint;
use serde::{Deserialize, Serialize};
use sha2::Sha256;

/// A signature algorithm (RFC 7518 section 3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Algorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    Rs256,
    /// RSASSA-PSS with SHA-256, MGF1 with SHA-256, and a salt of 32 bytes.
    Ps256,
    /// ECDSA on P-256 with SHA-256.
    Es256,
}

impl Algorithm {
    /// Every algorithm, in the order in which the metadata names them.
    pub const ALL: [Self; 3] = [Self::Rs256, Self::Ps256, Self::Es256];

    /// The value of `alg` in a JWS header or a JWK.
    pub fn name(self) -> &'static str {
        match self {
            Self::Rs256 => "RS256",
            Self::Ps256 => "PS256",
            Self::Es256 => "ES256",
        }
    }

    /// The algorithm of this name; `None` for any other text, `none` and another case included.
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| algorithm.name() == name)
    }
}

/// A public key, which verifies signatures of exactly one algorithm.
///
/// It has only bytes that are cheap to check and to keep: a policy may have thousands of keys, and
/// a request uses few of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublicKey {
    algorithm: Algorithm,
    kid: Option<Box<str>>,
    /// As many bytes as a signature has. RSA: the modulus, big-endian and without leading zeros.
    /// P-256: x and y of a point on the curve.
    numbers: Box<[u8]>,
}

/// A mistake in a JWK, in the words of a mistake in the policy. It never contains a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JwkMistake {
    /// Name of the member that is wrong; empty if the mistake is about the whole JWK.
    pub member: &'static str,
    /// What is wrong, and what is expected instead.
    pub problem: &'static str,
}

/// Longest key id in bytes, in a JWK and in the header of an assertion.
pub(crate) const KID_BYTES: usize = 255;

/// Sizes of an RSA modulus in bits. RFC 7518 section 3.3 requires the smallest; the largest
/// bounds the work that a signature causes.
const RSA_BITS: RangeInclusive<usize> = 2048..=4096;

/// Public exponent of every RSA key. Others are as good as never used, and a large one makes
/// verifying slow.
const RSA_EXPONENT: u64 = 65_537;

impl PublicKey {
    /// The algorithm of the signatures that this key verifies. A header cannot choose another.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The key's id (RFC 7517 section 4.5), at most 255 bytes.
    pub fn kid(&self) -> Option<&str> {
        self.kid.as_deref()
    }

    /// Length of its signatures in bytes: 64 for P-256, 256 to 512 for RSA.
    pub fn signature_bytes(&self) -> usize {
        self.numbers.len()
    }

    /// Whether a signature could be this key's: by its algorithm, of its length and, for RSA,
    /// smaller than the modulus (RFC 8017 section 5.2.2).
    fn fits(&self, algorithm: Algorithm, signature: &[u8]) -> bool {
        let is_in_range = algorithm == Algorithm::Es256 || signature < &*self.numbers;
        self.algorithm == algorithm && self.numbers.len() == signature.len() && is_in_range
    }
}

/// Whether `signature` is the one that `key` made over `signed` with `algorithm`.
///
/// The work depends on `algorithm` and on the lengths, which the sender chooses. For ES256 and
/// PS256 it also depends on the numbers, by about 1 %. Without a key, or with one that the
/// signature does not fit, this function verifies against a decoy and returns false. So a caller's
/// name that the policy does not have can cost as much as one that it has.
pub fn verify(key: Option<&PublicKey>, algorithm: Algorithm, signed: &[u8], signature: &[u8]) -> bool {
    let key = key.filter(|key| key.fits(algorithm, signature));
    let numbers = key.map_or_else(|| decoy(algorithm, signature.len()), |key| &key.numbers);
    has_signed(numbers, algorithm, signed, signature) && key.is_some()
}

fn has_signed(numbers: &[u8], algorithm: Algorithm, signed: &[u8], signature: &[u8]) -> bool {
    match algorithm {
        Algorithm::Rs256 => {
            rsa_key(numbers).is_some_and(|key| key.pkcs1v15_verify::<Sha256>(signed, signature).is_ok())
        }
        Algorithm::Ps256 => rsa_key(numbers).is_some_and(|key| key.pss_verify::<Sha256>(signed, signature).is_ok()),
        // `Signature` refuses an r or s that is zero or not below the order of the curve
        // (CVE-2022-21449).
        Algorithm::Es256 => match (p256_key(numbers), Signature::from_slice(signature)) {
            (Some(key), Ok(signature)) => key.verify(signed, &signature).is_ok(),
            _ => false,
        },
    }
}

/// An RSA key with this modulus; `None` if the modulus is even, too small or too large.
fn rsa_key(modulus: &[u8]) -> Option<rsa::PublicKey> {
    let modulus = BoxedUint::from_be_slice_vartime(modulus);
    rsa::PublicKey::new_with_size_limits(modulus, RSA_EXPONENT.into(), RSA_BITS).ok()
}

/// A P-256 key with these coordinates; `None` if they are not a point on the curve.
fn p256_key(point: &[u8]) -> Option<VerifyingKey> {
    let point = p256::Sec1Point::from_untagged_bytes(point.try_into().ok()?);
    VerifyingKey::from_sec1_point(&point).ok()
}

/// Numbers of a key that has signed nothing, for a signature of `length` bytes; none if no key has
/// signatures of that length. No private key to them is known, and [`verify`] would accept nothing
/// signed with one.
fn decoy(algorithm: Algorithm, length: usize) -> &'static [u8] {
    match algorithm {
        Algorithm::Rs256 | Algorithm::Ps256 => DECOY_MODULUS.get(..length).unwrap_or_default(),
        Algorithm::Es256 => &DECOY_POINT,
    }
}

/// Arbitrary bytes, by xorshift64. Each is odd, so the first n of them are an odd number. The first
/// eight are 255, so that a signature which is smaller than a real key's modulus is smaller than
/// this one too.
static DECOY_MODULUS: [u8; *RSA_BITS.end() / 8] = {
    let mut bytes = [255; *RSA_BITS.end() / 8];
    let (mut state, mut place) = (1_u64, 8);
    while place < bytes.len() {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes[place] = state as u8 | 1;
        place += 1;
    }
    bytes
};

/// The point of the curve with the smallest positive x, which is 5, and the smaller y.
static DECOY_POINT: [u8; 64] = [
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5, //
    0x45, 0x92, 0x43, 0xb9, 0xaa, 0x58, 0x18, 0x06, 0xfe, 0x91, 0x3b, 0xce, 0x99, 0x81, 0x7a, 0xde, 0x11, 0xca, 0x50,
    0x3c, 0x64, 0xd9, 0xa3, 0xc5, 0x33, 0x41, 0x5c, 0x08, 0x32, 0x48, 0xfb, 0xcc,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decoy_is_a_key_for_every_length_of_a_signature() {
        for length in RSA_BITS.start() / 8..=RSA_BITS.end() / 8 {
            for algorithm in [Algorithm::Rs256, Algorithm::Ps256] {
                assert_eq!(decoy(algorithm, length).len(), length);
                assert!(rsa_key(decoy(algorithm, length)).is_some(), "{length}");
            }
        }
        assert!(p256_key(decoy(Algorithm::Es256, 64)).is_some());
    }

    #[test]
    fn signature_that_no_key_could_have_made_is_refused_without_a_key() {
        for algorithm in Algorithm::ALL {
            for length in [0, 1, 63, 64, 65, 255, 256, 512, 513, 9000] {
                for byte in [0, 1, 255] {
                    assert!(!verify(None, algorithm, b"signed", &vec![byte; length]), "{algorithm:?} {length}");
                }
            }
        }
    }

    #[test]
    fn signature_as_large_as_the_modulus_does_not_fit() {
        let numbers: Box<[u8]> = [1; 256].into();
        let key = PublicKey { algorithm: Algorithm::Rs256, kid: None, numbers };
        let mut signature = [1; 256];
        assert!(!key.fits(Algorithm::Rs256, &signature));
        signature[255] = 0;
        assert!(key.fits(Algorithm::Rs256, &signature));
        assert!(!key.fits(Algorithm::Ps256, &signature));
        assert!(!key.fits(Algorithm::Rs256, &signature[1..]));
    }
}
