//! A broker to try: the sandbox instead of OfficeRnD, and one caller with a secret made on the spot.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::Variables;
use crate::sandbox::{Application, Config, Sandbox};

/// The variables that lead to OfficeRnD. Without any of them there is only the demo to run.
pub const OFFICERND_VARIABLES: [&str; 4] =
    ["officernd_client_id", "officernd_client_secret", "officernd_identity_url", "callers"];

const CALLER: &str = "nightly-sync";

const CALLER_SCOPES: [&str; 2] = ["flex.community.members.read", "flex.community.companies.read"];

/// What the demo application has been granted: more than its caller may have.
const APPLICATION_SCOPES: [&str; 4] = [
    "flex.community.members.read",
    "flex.community.companies.read",
    "flex.billing.payments.read",
    "flex.space.resources.read",
];

/// A sandbox, and the caller whose policy is in the variables.
pub struct Demo {
    sandbox: Sandbox,
    caller_secret: String,
}

impl Demo {
    /// Starts a sandbox and points `variables` to it.
    ///
    /// # Errors
    ///
    /// When the sandbox does not start.
    pub async fn start(variables: &Variables) -> anyhow::Result<Self> {
        let (client_id, client_secret) = ("demo-application".to_owned(), random_secret());
        let caller_secret = random_secret();
        let sandbox = Sandbox::start(Config {
            applications: vec![Application {
                id: client_id.clone(),
                secret: client_secret.clone(),
                scopes: APPLICATION_SCOPES.map(String::from).to_vec(),
            }],
            ..Config::default()
        })
        .await?;
        let callers = json!({ CALLER: { "secret_sha256": [sha256_hex(&caller_secret)], "scopes": CALLER_SCOPES } });
        variables.set("officernd_client_id", client_id);
        variables.set("officernd_client_secret", client_secret);
        variables.set("officernd_identity_url", sandbox.url());
        variables.set("callers", callers.to_string());
        Ok(Self { sandbox, caller_secret })
    }

    /// Where the sandbox is.
    pub fn url(&self) -> String {
        self.sandbox.url()
    }

    /// A command line that gets a token from the broker that listens on `broker`.
    pub fn curl(&self, broker: SocketAddr) -> String {
        let secret = &self.caller_secret;
        format!(
            "curl --silent --show-error --user {CALLER}:{secret} --data grant_type=client_credentials http://{}/oauth/token",
            reachable(broker)
        )
    }
}

/// The address to connect to for one that listens: nobody can connect to 0.0.0.0 everywhere.
fn reachable(addr: SocketAddr) -> SocketAddr {
    let ip = match addr.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, addr.port())
}

/// 256 random bits, as the broker's callers have them.
fn random_secret() -> String {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).expect("the operating system has random bytes");
    URL_SAFE_NO_PAD.encode(bytes)
}

fn sha256_hex(text: &str) -> String {
    Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_printed_secret_is_the_one_in_the_policy() {
        let variables = Variables::default();
        let demo = Demo::start(&variables).await.unwrap();
        let curl = demo.curl(SocketAddr::from(([0, 0, 0, 0], 3000)));
        let secret = curl.split_once("nightly-sync:").unwrap().1.split_once(' ').unwrap().0;
        assert!(curl.ends_with(" http://127.0.0.1:3000/oauth/token"), "{curl}");
        assert_eq!(secret.len(), 43);
        let callers: serde_json::Value = serde_json::from_str(&variables.lookup("callers").unwrap().unwrap()).unwrap();
        assert_eq!(callers["nightly-sync"]["secret_sha256"][0], sha256_hex(secret));
        assert_eq!(variables.lookup("officernd_identity_url").unwrap(), Some(demo.url()));
    }

    #[test]
    fn sha256_is_written_as_64_hex_digits() {
        assert_eq!(sha256_hex("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }
}
