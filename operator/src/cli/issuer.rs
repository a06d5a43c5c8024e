//! `issuer`: adds an issuer to the variable `issuers`.

use std::io::{self, Write as _};
use std::path::PathBuf;

use anyhow::{Context as _, anyhow};
use clap::Subcommand;
use serde_json::{Map, Value};

use super::terminal::read;
use crate::issuers::{IssuerList, discover};

const OUTPUT: &str = "Prints the whole new value of the variable `issuers` to stdout, and to stderr the origin that one of the \
                      variables keys_origin_1 to keys_origin_4 must have. Writes no file: do not redirect stdout to FILE, \
                      because the shell would empty FILE first.";

/// Add an outside issuer, whose tokens are identities of callers
#[derive(Subcommand)]
pub enum Issuer {
    /// Add an issuer
    ///
    /// Fetches URL/.well-known/openid-configuration and the keys that it names, with the limits of the
    /// broker. The issuer in the answer must be URL.
    #[command(after_help = OUTPUT)]
    New {
        /// Name of the issuer in the policy
        name: String,
        /// The claim `iss` of its tokens, exactly: https://HOST or https://HOST/PATH
        url: String,
        /// File with its public keys, a JWK Set that is put into the variable; nothing is fetched
        #[arg(long, value_name = "FILE")]
        jwks: Option<PathBuf>,
        /// Audience of its tokens, if it cannot be the broker's public_url
        #[arg(long)]
        audience: Option<String>,
        /// Longest life that its tokens may have left, 60 to 86400 [default: 3600]
        #[arg(long, value_name = "SECONDS")]
        max_lifetime_seconds: Option<u32>,
        /// File with the present value of the variable `issuers`; - reads stdin [default: none, so
        /// the new issuer is the only one]
        #[arg(long, value_name = "FILE")]
        issuers: Option<PathBuf>,
    },
}

impl Issuer {
    pub(super) fn run(&self) -> anyhow::Result<()> {
        let Self::New { name, url, jwks, audience, max_lifetime_seconds, issuers } = self;
        let list = match issuers {
            Some(file) => {
                let (file, text) = read(file)?;
                IssuerList::parse(&text).map_err(|mistakes| anyhow!("{file} is not valid:\n{mistakes}"))?
            }
            None => IssuerList::parse("")?,
        };
        let mut entry = Map::from_iter([("issuer".to_owned(), Value::from(url.as_str()))]);
        let origin = match jwks {
            Some(file) => {
                let (file, text) = read(file)?;
                // The parser's own error would quote the file.
                let keys =
                    serde_json::from_str(&text).map_err(|_| anyhow!("{file} is not JSON, expected a JWK Set"))?;
                entry.insert("jwks".to_owned(), keys);
                None
            }
            None => {
                let (uri, origin) = discover(url)?;
                entry.insert("jwks_uri".to_owned(), uri.into());
                Some(origin)
            }
        };
        entry.extend(audience.iter().map(|audience| ("audience".to_owned(), audience.as_str().into())));
        entry.extend(max_lifetime_seconds.map(|seconds| ("max_lifetime_seconds".to_owned(), seconds.into())));
        let list = list.add(name, entry)?;
        let mut stdout = io::stdout();
        writeln!(stdout, "{list}").and_then(|()| stdout.flush()).context("cannot write to stdout")?;
        if let Some(origin) = origin {
            let origin = origin.as_str();
            writeln!(
                io::stderr(),
                "Put the origin of its keys into a keys_origin that is free, such as:\n\nkeys_origin_1 = '{origin}'"
            )
            .context("cannot write to stderr")?;
        }
        Ok(())
    }
}
