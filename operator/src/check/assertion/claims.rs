//! Header and claims of an assertion as they stand, also if the broker refuses them. For messages only.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use officernd_token_broker::assertion::ASSERTION_BYTES;
use officernd_token_broker::config::escape;
use officernd_token_broker::secret::PresentedSecret;
use serde_json::{Map, Value};

/// Whether a claim has the right type.
type IsRight = fn(&Value) -> bool;

/// What an assertion says. Nothing here is verified.
pub(super) struct Presented {
    header: Option<Map<String, Value>>,
    claims: Option<Map<String, Value>>,
}

impl Presented {
    pub(super) fn read(text: &PresentedSecret) -> Self {
        let mut parts = text.expose().split('.').map(decode);
        Self { header: parts.next().flatten(), claims: parts.next().flatten() }
    }

    /// A member of the header.
    pub(super) fn member(&self, name: &str) -> Option<&Value> {
        self.header.as_ref()?.get(name)
    }

    pub(super) fn claim(&self, name: &str) -> Option<&Value> {
        self.claims.as_ref()?.get(name)
    }

    /// A claim and its value, as a message names them.
    pub(super) fn named(&self, claim: &str) -> String {
        match self.claim(claim) {
            None => format!("{claim} is missing"),
            Some(value) => format!("{claim} is {}", shown(value)),
        }
    }

    pub(super) fn type_problem(&self) -> String {
        match (self.member("cty"), self.member("typ")) {
            (Some(_), _) => "the header has cty, so another JWT is inside, expected none".into(),
            (None, typ) => {
                let typ = typ.map_or("missing".into(), shown);
                format!("typ is {typ}, expected none, JWT or client-authentication+jwt")
            }
        }
    }

    /// Why the text is no assertion: the first rule that it breaks.
    pub(super) fn shape_problem(&self, text: &PresentedSecret) -> String {
        let text = text.expose();
        let is_of_jwt = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        let parts: Vec<_> = text.split('.').collect();
        if text.is_empty() {
            "the file is empty, expected a JWT".into()
        } else if text.len() > ASSERTION_BYTES {
            format!("it has {} bytes, expected at most {ASSERTION_BYTES}", text.len())
        } else if !text.bytes().all(is_of_jwt) {
            "it has a character that no JWT has, such as a space, a quotation mark or =, expected only the JWT".into()
        } else if parts.len() == 5 {
            "it has five parts, so it is encrypted, expected a signed JWT of three".into()
        } else if parts.len() != 3 || parts.contains(&"") {
            format!("it has {} parts, some perhaps empty, expected a JWT of three with dots between", parts.len())
        } else {
            self.content_problem()
        }
    }

    fn content_problem(&self) -> String {
        let is_text: IsRight = |value| value.is_string();
        let is_date: IsRight = |value| value.is_number();
        let is_audience: IsRight =
            |value| value.is_string() || value.as_array().is_some_and(|list| list.iter().all(Value::is_string));
        let (Some(header), Some(claims)) = (&self.header, &self.claims) else {
            let part = if self.header.is_none() { "header" } else { "payload" };
            return format!("its {part} is not a JSON object in base64url");
        };
        if header.contains_key("crit") {
            return "the header has crit, an extension that the broker does not know, expected none".into();
        }
        if let Some(name) = ["alg", "kid", "typ"].iter().find(|name| header.get(**name).is_some_and(|v| !is_text(v))) {
            return format!("{name} in the header is not text");
        }
        let checks: [(&str, bool, IsRight, &str); 6] = [
            ("iss", true, is_text, "text"),
            ("sub", true, is_text, "text"),
            ("aud", true, is_audience, "text or a list of texts"),
            ("exp", true, is_date, "seconds since 1970"),
            ("nbf", false, is_date, "nothing or seconds since 1970"),
            ("iat", false, is_date, "nothing or seconds since 1970"),
        ];
        for (name, is_required, is_right, expected) in checks {
            match claims.get(name) {
                None if is_required => return format!("{name} is missing, expected {expected}"),
                Some(value) if !is_right(value) => return format!("{}, expected {expected}", self.named(name)),
                _ => {}
            }
        }
        "it has no alg, a kid of over 255 bytes, a header of over 1 KiB, a name twice, over 100 claims, a date out of \
         range, or base64url with padding or further bits"
            .into()
    }
}

/// A value for the operator's terminal: escaped and truncated, text in quotation marks.
pub(super) fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => format!("\"{}\"", escape(text)),
        Value::Array(list) if list.iter().all(Value::is_string) => {
            let texts: Vec<_> = list.iter().take(8).map(shown).collect();
            format!("a list of {}: {}", list.len(), texts.join(", "))
        }
        Value::Array(_) => "a list".into(),
        Value::Object(_) => "an object".into(),
        Value::Number(number) => format!("the number {number}"),
        Value::Bool(_) | Value::Null => format!("{value} without quotation marks"),
    }
}

fn decode(part: &str) -> Option<Map<String, Value>> {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).ok()?).ok()
}
