//! Looks for secrets where none may be, in every disguise that a program could give them without meaning to.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};

/// A secret, and what it is, for the report.
#[derive(Clone, Debug)]
pub struct Secret {
    /// What it is.
    pub what: String,
    /// The secret.
    pub text: String,
}

impl Secret {
    /// A secret, and what it is.
    pub fn new(what: impl Into<String>, text: impl Into<String>) -> Self {
        let (what, text) = (what.into(), text.into());
        assert!(text.len() >= 16, "{what} is too short to be looked for: it could be there by accident");
        Self { what, text }
    }
}

/// What `text` contains of `secrets`, and in which disguise.
pub fn find_leaks(text: &[u8], secrets: &[Secret]) -> Vec<String> {
    let lower = text.to_ascii_lowercase();
    let mut found = Vec::new();
    for secret in secrets {
        for (disguise, looked_for) in disguises(&secret.text) {
            // Base64 is the only disguise in which the case of a letter matters; looking for it without costs nothing.
            if contains(&lower, &looked_for.to_ascii_lowercase()) {
                found.push(format!("{} {disguise}", secret.what));
            }
        }
    }
    found
}

fn contains(text: &[u8], looked_for: &[u8]) -> bool {
    text.windows(looked_for.len()).any(|window| window == looked_for)
}

/// The disguises of a secret: its name, and bytes that are in any text in which the secret is disguised so.
pub fn disguises(secret: &str) -> Vec<(&'static str, Vec<u8>)> {
    let bytes = secret.as_bytes();
    let hex = |separator: &str| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(separator);
    let escaped = serde_json::to_string(secret).expect("a string is JSON");
    let form: String = form_urlencoded::byte_serialize(bytes).collect();
    let mut disguises = vec![
        ("in plain", bytes.to_vec()),
        ("as JSON", escaped.trim_matches('"').into()),
        ("in Rust's quotes", secret.escape_debug().to_string().into()),
        ("as a field of a form", form.clone().into()),
        ("percent-encoded", form.replace('+', "%20").into()),
        ("in hex", hex("").into()),
        ("in hex with spaces", hex(" ").into()),
        ("as a list of bytes", bytes.iter().map(u8::to_string).collect::<Vec<_>>().join(", ").into()),
        ("in UTF-16", secret.encode_utf16().flat_map(u16::to_le_bytes).collect()),
        ("backwards", secret.chars().rev().collect::<String>().into()),
    ];
    // Inside a longer text (`id:secret`), what the base64 of a secret looks like depends on where it begins. The first and
    // the last digit can have bits of a neighbour.
    for before in 0..3 {
        let whole = [&vec![0; before][..], bytes].concat();
        let first = (before * 8).div_ceil(6);
        let last = whole.len() * 8 / 6;
        disguises.push(("in base64", STANDARD_NO_PAD.encode(&whole)[first..last].into()));
        disguises.push(("in base64url", URL_SAFE_NO_PAD.encode(&whole)[first..last].into()));
    }
    disguises
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_recognised_wherever_in_a_longer_text_the_secret_begins() {
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
}
