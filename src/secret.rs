//! One type per secret.
//!
//! `Debug` prints `[redacted]`; there is no `Display`, no `Serialize` and no `PartialEq`. The text leaves only through
//! `expose()`, so that `grep 'expose()'` lists every place where a secret becomes plain text.

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
            /// Takes the text into safe keeping.
            pub fn new(text: impl Into<String>) -> Self {
                Self(text.into())
            }

            /// The secret itself. The caller answers for where it goes.
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
    /// What our credential proves itself with at OfficeRnD.
    ClientSecret;
    /// What a caller presented. Nothing is known about it yet.
    PresentedSecret;
    /// The text of a token.
    TokenText;
}

/// A token that OfficeRnD issued.
#[derive(Clone, Debug)]
pub struct AccessToken {
    text: TokenText,
    name: OnceCell<String>,
}

impl AccessToken {
    /// Takes the text into safe keeping.
    pub fn new(text: impl Into<String>) -> Self {
        Self { text: TokenText::new(text), name: OnceCell::new() }
    }

    /// The token itself. The caller answers for where it goes.
    pub fn expose(&self) -> &str {
        self.text.expose()
    }

    /// What the log calls it: the first 16 hexadecimal digits of its SHA-256, which tell it from others and not what it is.
    pub fn name(&self) -> &str {
        self.name.get_or_init(|| hex(&Sha256::digest(self.expose())[..8]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_nothing_of_a_secret() {
        let token = AccessToken::new("hunter2");
        assert_eq!(token.name(), "f52fbd32b2b3b86f");
        assert!(!format!("{token:?}").contains("hunter2"), "{token:?}");
        assert_eq!(format!("{:?}", ClientSecret::new("hunter2")), "[redacted]");
    }
}
