//! One type per secret.
//!
//! `Debug` prints `[redacted]`; there is no `Display`, no `Serialize` and no `PartialEq`. The text leaves only through
//! `expose()`, so that `grep 'expose()'` lists every place where a secret becomes plain text.

use std::fmt;

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
    /// A token that OfficeRnD issued.
    AccessToken;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_nothing_of_a_secret() {
        assert_eq!(format!("{:?}", ClientSecret::new("hunter2")), "[redacted]");
        assert_eq!(format!("{:?}", Some(AccessToken::new("hunter2"))), "Some([redacted])");
    }
}
