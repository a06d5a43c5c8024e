//! The demo: a broker that uses the sandbox in place of OfficeRnD and has one caller with a new
//! secret.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use broker_operator::RandomSecret;
use serde_json::json;

use crate::sandbox::{Application, Config, Sandbox};
use crate::variables::Variables;

/// Variables that point the broker to OfficeRnD. If none of them is set, the demo runs.
pub const OFFICERND_VARIABLES: [&str; 7] = [
    "officernd_client_id",
    "officernd_client_secret",
    "officernd_client_id_next",
    "officernd_client_secret_next",
    "officernd_identity_url",
    "applications",
    "callers",
];

const CALLER: &str = "nightly-sync";

const CALLER_SCOPES: [&str; 2] = ["flex.community.members.read", "flex.community.companies.read"];

/// Scopes of the demo application: more than the policy grants to its caller.
const APPLICATION_SCOPES: [&str; 4] = [
    "flex.community.members.read",
    "flex.community.companies.read",
    "flex.billing.payments.read",
    "flex.space.resources.read",
];

/// A running sandbox, and the secret of the caller that the policy names.
pub struct Demo {
    sandbox: Sandbox,
    caller_secret: RandomSecret,
}

impl Demo {
    /// Starts a sandbox and sets `variables` so that the broker uses it.
    ///
    /// # Errors
    ///
    /// If the sandbox does not start.
    pub async fn start(variables: &Variables) -> anyhow::Result<Self> {
        let client_id = "demo-application".to_owned();
        let client_secret = RandomSecret::generate().expose().to_owned();
        let caller_secret = RandomSecret::generate();
        let sandbox = Sandbox::start(Config {
            applications: vec![Application {
                id: client_id.clone(),
                secret: client_secret.clone(),
                scopes: APPLICATION_SCOPES.map(String::from).to_vec(),
            }],
            ..Config::default()
        })
        .await?;
        let callers = json!({ CALLER: { "secret_sha256": [caller_secret.sha256()], "scopes": CALLER_SCOPES } });
        variables.set("officernd_client_id", client_id);
        variables.set("officernd_client_secret", client_secret);
        variables.set("officernd_identity_url", sandbox.url());
        variables.set("callers", callers.to_string());
        Ok(Self { sandbox, caller_secret })
    }

    /// Address of the sandbox, as the broker's identity URL.
    pub fn url(&self) -> String {
        self.sandbox.url()
    }

    /// Returns a command line that gets a token from the broker that listens on `broker`.
    pub fn curl(&self, broker: SocketAddr) -> String {
        let secret = self.caller_secret.expose();
        format!(
            "curl --silent --show-error --user {CALLER}:{secret} --data grant_type=client_credentials http://{}/oauth/token",
            reachable(broker)
        )
    }
}

/// Address to connect to, for an address that a server listens on: not every system can connect
/// to 0.0.0.0.
fn reachable(addr: SocketAddr) -> SocketAddr {
    let ip = match addr.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, addr.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn curl_line_has_the_secret_whose_digest_is_in_the_policy() {
        let variables = Variables::default();
        let demo = Demo::start(&variables).await.unwrap();
        let curl = demo.curl(SocketAddr::from(([0, 0, 0, 0], 3000)));
        let secret = demo.caller_secret.expose();
        assert!(curl.contains(&format!(" --user nightly-sync:{secret} ")), "{curl}");
        assert!(curl.ends_with(" http://127.0.0.1:3000/oauth/token"), "{curl}");
        let callers: serde_json::Value = serde_json::from_str(&variables.lookup("callers").unwrap().unwrap()).unwrap();
        assert_eq!(callers["nightly-sync"]["secret_sha256"][0], demo.caller_secret.sha256());
        assert_eq!(variables.lookup("officernd_identity_url").unwrap(), Some(demo.url()));
    }
}
