//! Search for secrets in text that must not contain any, in every encoding that a program could
//! give them by accident.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};

use crate::hex::hex;

/// A secret, and a name for it that a report may print.
#[derive(Clone, Debug)]
pub struct Secret {
    /// Name for reports.
    pub what: String,
    /// The secret itself.
    pub text: String,
}

impl Secret {
    /// Takes a secret and a name for it.
    pub fn new(what: impl Into<String>, text: impl Into<String>) -> Self {
        let (what, text) = (what.into(), text.into());
        assert!(text.len() >= 16, "{what} is too short to search for: it could appear by accident");
        Self { what, text }
    }
}

/// Lists the secrets that `text` contains, each with its encoding.
pub fn find_leaks(text: &[u8], secrets: &[Secret]) -> Vec<String> {
    let lower = text.to_ascii_lowercase();
    let mut found = Vec::new();
    for secret in secrets {
        for (encoding, looked_for) in encodings(&secret.text) {
            // Only in base64 does the case of a letter matter. Ignoring case there finds no
            // less.
            if contains(&lower, &looked_for.to_ascii_lowercase()) {
                found.push(format!("{} {encoding}", secret.what));
            }
        }
    }
    found
}

fn contains(text: &[u8], looked_for: &[u8]) -> bool {
    text.windows(looked_for.len()).any(|window| window == looked_for)
}

/// Lists the encodings of a secret: a name, and bytes that appear in any text with the secret
/// in this encoding.
pub fn encodings(secret: &str) -> Vec<(&'static str, Vec<u8>)> {
    let bytes = secret.as_bytes();
    let in_hex = |separator: &str| bytes.iter().map(|byte| hex([*byte])).collect::<Vec<_>>().join(separator);
    let escaped = serde_json::to_string(secret).expect("a string is JSON");
    let form: String = form_urlencoded::byte_serialize(bytes).collect();
    let mut encodings = vec![
        ("in plain", bytes.to_vec()),
        ("as JSON", escaped.trim_matches('"').into()),
        ("in Rust's quotes", secret.escape_debug().to_string().into()),
        ("as a field of a form", form.clone().into()),
        ("percent-encoded", form.replace('+', "%20").into()),
        ("in hex", in_hex("").into()),
        ("in hex with spaces", in_hex(" ").into()),
        ("as a list of bytes", bytes.iter().map(u8::to_string).collect::<Vec<_>>().join(", ").into()),
        ("in UTF-16", secret.encode_utf16().flat_map(u16::to_le_bytes).collect()),
        ("backwards", secret.chars().rev().collect::<String>().into()),
    ];
    // Inside a longer text (`id:secret`), the base64 of a secret depends on its offset. Its
    // first and last digit can hold bits of a neighbour, so they are cut off.
    for before in 0..3 {
        let whole = [&vec![0; before][..], bytes].concat();
        let first = (before * 8).div_ceil(6);
        let last = whole.len() * 8 / 6;
        encodings.push(("in base64", STANDARD_NO_PAD.encode(&whole)[first..last].into()));
        encodings.push(("in base64url", URL_SAFE_NO_PAD.encode(&whole)[first..last].into()));
    }
    encodings
}

/// How many bytes of an encoded secret the search compares: enough random ones that they appear
/// nowhere by accident.
const LOOKED_FOR: usize = 32;

/// Many secrets at once, each by its last 32 characters, which are random: one table lookup per
/// position of a text finds any of them.
#[derive(Default)]
struct Sentinels(HashMap<[u8; LOOKED_FOR], String>);

impl Sentinels {
    fn add(&mut self, what: &str, secret: &str) {
        let begin = secret.len().checked_sub(LOOKED_FOR).expect("a secret ends in 32 random characters");
        for (encoding, bytes) in encodings(&secret[begin..]) {
            let lower = bytes.to_ascii_lowercase();
            let looked_for = lower.first_chunk().expect("no encoding is shorter than the secret");
            self.0.insert(*looked_for, format!("{what} {encoding}"));
        }
    }

    fn find(&self, text: &[u8]) -> Vec<&str> {
        let lower = text.to_ascii_lowercase();
        let is_there = |window: &[u8]| self.0.get(window).map(String::as_str);
        lower.windows(LOOKED_FOR).filter_map(is_there).collect()
    }
}

/// Every secret that this process has made or received, and the text that is not searched yet.
static WATCHED: Mutex<Option<(Sentinels, Vec<u8>)>> = Mutex::new(None);

fn watched<T>(act: impl FnOnce(&mut Sentinels, &mut Vec<u8>) -> T) -> T {
    let mut watched: MutexGuard<'_, _> = WATCHED.lock().expect("nothing panics while it holds the secrets");
    let (sentinels, written) = watched.get_or_insert_default();
    act(sentinels, written)
}

/// Declares a secret: from now on no searched text may contain it.
pub fn keep_secret(what: &str, secret: &str) {
    watched(|sentinels, _| sentinels.add(what, secret));
}

/// Notes a text that must not contain a secret. The next [`search`] searches it.
pub fn saw(text: &str) {
    watched(|_, written| written.extend([text.as_bytes(), b"\n"].concat()));
}

/// Searches the noted texts, and `texts`, for every declared secret.
///
/// # Panics
/// If it finds one.
#[track_caller]
pub fn search(texts: &[&[u8]]) {
    let leaks: Vec<String> = watched(|sentinels, written| {
        let seen = std::mem::take(written);
        let all = texts.iter().copied().chain([seen.as_slice()]);
        all.flat_map(|text| sentinels.find(text).into_iter().map(str::to_owned)).collect()
    });
    // Panicking again while a failed test unwinds would abort the process.
    assert!(leaks.is_empty() || std::thread::panicking(), "secrets in text that must not have any: {leaks:?}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secret_in_base64_is_found_at_every_offset_of_a_longer_text() {
        let secret = "secret-0123456789abcdef";
        for before in 0..7 {
            for after in 0..4 {
                let text = format!("{}{secret}{}", "x".repeat(before), "y".repeat(after));
                let found = find_leaks(STANDARD_NO_PAD.encode(&text).as_bytes(), &[Secret::new("it", secret)]);
                assert!(found.iter().any(|found| found == "it in base64"), "{text}: {found:?}");
            }
        }
        assert!(find_leaks(b"another text, c2VjcmV0LTAxMjM0NTY3ODlhYmNk", &[Secret::new("it", secret)]).is_empty());
    }

    #[test]
    fn planted_secret_in_any_encoding_is_found_among_many() {
        let secrets: Vec<_> = (0..50).map(|_| crate::setup::random("planted&=+%/\"\\ \u{e9}")).collect();
        secrets.iter().for_each(|secret| keep_secret("a planted secret", secret));
        search(&[b"nothing", &[0; 1000], crate::setup::random("innocent").as_bytes()]);
        for (encoding, bytes) in secrets.iter().flat_map(|secret| encodings(secret)) {
            let text = [b"before ".as_slice(), &bytes, b" after"].concat();
            assert!(watched(|sentinels, _| !sentinels.find(&text).is_empty()), "{encoding}");
        }
        std::panic::catch_unwind(|| search(&[secrets[0].as_bytes()])).expect_err("the text has a secret");
        saw(&format!("an answer with {} in it", secrets[0]));
        std::panic::catch_unwind(|| search(&[])).expect_err("the noted text has a secret");
        search(&[]);
    }
}
