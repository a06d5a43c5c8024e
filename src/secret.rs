//! One type per kind of secret, so that none is printed by accident.
//!
//! `Debug` prints `[redacted]`; `Display`, `Serialize` and `PartialEq` are not implemented.
//! Only `expose()` returns the text, so `grep 'expose()'` lists every place where a secret
//! becomes plain text.

use std::cell::OnceCell;
use std::fmt;

use sha2::{Digest, Sha256};

use crate::digest::hex;

macro_rules! secrets {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone)]
        pub struct $name(String);

        impl $name {
            /// Wraps a secret text.
            pub fn new(text: impl Into<String>) -> Self {
                Self(text.into())
            }

            /// The secret text. The calling code is responsible for where it goes.
            pub fn expose(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("[redacted]")
            }
        }
    )*};
}

secrets! {
    /// Client secret of an application at OfficeRnD.
    ClientSecret;
    /// Secret or token that a caller presents, not yet verified.
    PresentedSecret;
    /// Text of an access token.
    TokenText;
}

/// Access token as issued by OfficeRnD.
#[derive(Clone, Debug)]
pub struct AccessToken {
    text: TokenText,
    name: OnceCell<String>,
}

impl AccessToken {
    /// Wraps the text of a token.
    pub fn new(text: impl Into<String>) -> Self {
        Self { text: TokenText::new(text), name: OnceCell::new() }
    }

    /// The token's text. The calling code is responsible for where it goes.
    pub fn expose(&self) -> &str {
        self.text.expose()
    }

    /// The token's name in the log: the first 16 hexadecimal digits of its SHA-256, which
    /// identify it without revealing it.
    pub fn name(&self) -> &str {
        self.name.get_or_init(|| hex(&Sha256::digest(self.expose())[..8]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_output_of_a_secret_is_redacted() {
        let token = AccessToken::new("hunter2");
        assert_eq!(token.name(), "f52fbd32b2b3b86f");
        assert!(!format!("{token:?}").contains("hunter2"), "{token:?}");
        assert_eq!(format!("{:?}", ClientSecret::new("hunter2")), "[redacted]");
    }
}
