//! Tokens of outside issuers in the form that GitHub and Kubernetes give them, with all of their
//! claims.

use serde_json::{Value, json};

use crate::assertion::{Draft, PrivateKey, seconds_since_epoch};
use crate::random;

/// `iss` of GitHub's tokens.
pub const GITHUB: &str = "https://token.actions.githubusercontent.com";

/// `iss` of the tokens of many Kubernetes clusters.
pub const CLUSTER: &str = "https://kubernetes.default.svc.cluster.local";

/// An issuer of a test, with its key.
#[derive(Clone)]
pub struct TestIssuer {
    /// `iss` of its tokens.
    pub identifier: &'static str,
    /// Key that signs its tokens.
    pub key: PrivateKey,
    /// `kid` of the key.
    pub kid: String,
}

impl TestIssuer {
    /// An issuer with a new id for its key.
    pub fn new(identifier: &'static str, key: PrivateKey) -> Self {
        Self { identifier, key, kid: random("kid") }
    }

    /// Its public keys (RFC 7517 section 5). Some issuers list keys that the broker cannot use.
    pub fn jwks(&self) -> Value {
        let other = json!({ "kty": "OKP", "crv": "Ed25519", "kid": "other", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo" });
        json!({ "keys": [other, self.key.jwk(json!({ "kid": self.kid, "use": "sig" }))] })
    }

    /// A token for `audience`, with these claims, that lives for five minutes.
    pub fn token(&self, audience: Value, claims: Value) -> Draft {
        let now = seconds_since_epoch();
        Draft { header: json!({ "alg": self.key.algorithm(), "kid": self.kid }), claims }.claims(json!({
            "iss": self.identifier,
            "aud": audience,
            "iat": now,
            "nbf": now,
            "exp": now + 300,
            "jti": random("jti"),
        }))
    }
}

/// The claims of a token that GitHub gives a job which is deployed to `production`. Repositories that
/// were made since July 2026 have their ids in `sub`.
pub fn github_claims() -> Value {
    json!({
        "sub": "repo:octo-org@65/octo-repo@74:environment:production",
        "ref": "refs/heads/main",
        "sha": "f9dcdbfba3a4bfb5a5d0d1c2bd0d2e5c6dfb1a55",
        "repository": "octo-org/octo-repo",
        "repository_owner": "octo-org",
        "actor_id": "12",
        "repository_visibility": "private",
        "repository_id": "74",
        "repository_owner_id": "65",
        "run_id": "12345678901",
        "run_number": "10",
        "run_attempt": "2",
        "runner_environment": "github-hosted",
        "actor": "octocat",
        "workflow": "nightly sync",
        "head_ref": "",
        "base_ref": "",
        "event_name": "schedule",
        "ref_protected": "true",
        "ref_type": "branch",
        "workflow_ref": "octo-org/octo-repo/.github/workflows/nightly.yml@refs/heads/main",
        "workflow_sha": "f9dcdbfba3a4bfb5a5d0d1c2bd0d2e5c6dfb1a55",
        "job_workflow_ref": "octo-org/octo-repo/.github/workflows/nightly.yml@refs/heads/main",
        "job_workflow_sha": "f9dcdbfba3a4bfb5a5d0d1c2bd0d2e5c6dfb1a55",
        "environment": "production",
        "environment_node_id": "EN_kwDOJ0zbHs4A",
        "enterprise": "octo-enterprise",
        "enterprise_id": "3",
        "check_run_id": "45678901234",
    })
}

/// The claims of a token that Kubernetes projects into a pod of a service account.
pub fn kubernetes_claims(namespace: &str, account: &str) -> Value {
    json!({
        "sub": format!("system:serviceaccount:{namespace}:{account}"),
        "kubernetes.io": {
            "namespace": namespace,
            "node": { "name": "node-1", "uid": "b4f2a3b0-5d32-4c0f-9a0b-7a0f2ed3c9aa" },
            "pod": { "name": "nightly-sync-29071234-x7k2p", "uid": "8b2d1c55-2f6a-4a51-9e0d-0f9a0d4b6d11" },
            "serviceaccount": { "name": account, "uid": "0e4b8c72-66a5-4b36-8f50-1d9d2f0b7f21" },
            "warnafter": seconds_since_epoch() + 240,
        },
    })
}
