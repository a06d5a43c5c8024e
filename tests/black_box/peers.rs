//! Servers and clients of other projects, from `tests/peers`.

mod examples;
mod forged;
mod issuer;
mod signed;

use bytes::Bytes;
use http_body_util::Full;
use oauth2::basic::{BasicClient, BasicErrorResponseType};
use oauth2::{
    AuthType, ClientId, ClientSecret, HttpRequest, HttpResponse, RequestTokenError, RevocationUrl, Scope,
    StandardRevocableToken, TokenResponse, TokenUrl,
};
use serde_json::json;
use tests::{
    Broker, COMPANIES, MEMBERS, PAYMENTS, PeerServer, RESOURCES, Setup, exchange, random, run_peer, secret, set,
};

/// Starts a broker with a call quota of 100, because these tests are about the protocol.
async fn generous() -> Broker {
    let mut setup = Setup::default();
    setup.sandbox.calls_per_minute = 100;
    setup.variables.push(("upstream_calls_per_minute", "100".into()));
    // Schemathesis requests every path.
    let mut policy = setup.policy();
    set(&mut policy[&setup.nightly.name], json!({ "metrics": true }));
    setup.variables.push(("callers", policy.to_string()));
    setup.start().await
}

/// Runs one of the peers' programs, which block, against a new broker.
async fn run(command: &'static [&'static str], scope: &'static str) -> String {
    let broker = generous().await;
    let url = format!("http://{}", broker.server.addr());
    let caller = broker.setup.nightly.clone();
    tokio::task::spawn_blocking(move || run_peer(command, &url, &caller, scope))
        .await
        .unwrap_or_else(|error| panic!("{error}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_of_another_projects_oauth_server_are_served() {
    let mut setup = Setup::default();
    // RFC 6749 appendix A.1 and A.2: printable ASCII, which this server insists on.
    setup.application.id = random("application id&=+%");
    setup.application.secret = secret("application-secret&=+%/\"\\ ");
    // The server knows this scope but does not grant it, so the policy allows too much.
    setup.nightly.scopes.push(PAYMENTS.into());
    setup.application.scopes.retain(|scope| scope != PAYMENTS);
    let server = PeerServer::start(&setup, PAYMENTS);
    // The sandbox is not used in this test.
    setup.variables.push(("officernd_identity_url", server.url().to_owned()));
    let broker = setup.start().await;

    let answer = broker.nightly(&format!("{MEMBERS} {COMPANIES}")).await;
    assert_eq!(answer.scope(), format!("{COMPANIES} {MEMBERS}"));
    assert!((3590..=3600).contains(&answer.expires_in()), "{}", answer.expires_in());
    assert_eq!(broker.nightly(&format!("{COMPANIES} {MEMBERS}")).await.token(), answer.token());
    tests::eventually("the server has told of one request", || server.requests().len() == 1).await;
    let request = &server.requests()[0];
    assert_eq!(request["authorization"], false, "{request}");
    assert_eq!(request["parameters"], serde_json::json!(["client_id", "client_secret", "grant_type", "scope"]));

    let refused = broker.nightly(&format!("{MEMBERS} {PAYMENTS}")).await;
    assert_eq!((refused.status, refused.error().as_str()), (400, "invalid_scope"));

    // The server does not know this application.
    let mut stranger = Setup::default();
    stranger.variables.push(("officernd_identity_url", server.url().to_owned()));
    let refused = stranger.start().await.nightly(MEMBERS).await;
    assert_eq!((refused.status, refused.error().as_str()), (502, "server_error"));
    assert!(refused.retry_after().is_some());
    // The server's own words arrive through a pipe.
    tests::eventually("the server has told of three requests", || server.requests().len() == 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_oauthlib_gets_tokens_and_reads_every_error() {
    let printed = run(&[".venv/bin/python", "client.py"], MEMBERS).await;
    assert!(printed.contains("ok revoke"), "{printed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn oauth4webapi_gets_tokens_and_reads_every_error() {
    let printed = run(&["node", "client.mjs"], MEMBERS).await;
    assert!(printed.contains("ok discovery"), "{printed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn curl_gets_tokens_and_reads_every_error() {
    let printed = run(&["./client.sh"], MEMBERS).await;
    assert!(printed.contains("ok obtain_http_2"), "{printed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn examples_in_jobs_md_wait_out_a_pause_and_no_longer_than_the_page_says() {
    // The Go example must run only with `CI` set, because not every machine has Go.
    let command: &[&str] = match std::env::var_os("CI") {
        Some(_) => &[".venv/bin/python", "run_examples.py", "--all"],
        None => &[".venv/bin/python", "run_examples.py"],
    };
    let printed = run(command, MEMBERS).await;
    for title in ["job.py", "job.mjs", "job.sh", "nightly.yaml", "recover.sh", "revoke.sh"] {
        assert!(printed.contains(&format!("ok {title}: ")), "{printed}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn openapi_description_passes_schemathesis() {
    run(&["./run_schemathesis"], MEMBERS).await;
}

#[tokio::test]
async fn crate_oauth2_gets_tokens_and_reads_every_error() {
    let broker = generous().await;
    let addr = broker.server.addr();
    // The crate accepts only https for a revocation. This transport goes to the broker in any
    // case.
    let transport = async |request: HttpRequest| -> Result<HttpResponse, std::io::Error> {
        let answer =
            exchange(addr, request.map(|body| Full::new(Bytes::from(body)))).await.map_err(std::io::Error::other)?;
        let mut response = http::Response::builder().status(answer.status);
        for (name, value) in answer.headers {
            response = response.header(name, value);
        }
        response.body(answer.body.into()).map_err(std::io::Error::other)
    };
    let client = |secret: &str, auth_type: AuthType| {
        BasicClient::new(ClientId::new(broker.setup.nightly.name.clone()))
            .set_client_secret(ClientSecret::new(secret.to_owned()))
            .set_token_uri(TokenUrl::new(format!("http://{addr}/oauth/token")).unwrap())
            .set_revocation_url(RevocationUrl::new(format!("https://{addr}/oauth/revoke")).unwrap())
            .set_auth_type(auth_type)
    };
    let secret = broker.setup.nightly.secret.clone();
    let members = || Scope::new(MEMBERS.into());

    let basic = client(&secret, AuthType::BasicAuth);
    let token = basic.exchange_client_credentials().add_scope(members()).request_async(&transport).await.unwrap();
    assert_eq!(token.scopes().unwrap(), &[members()]);
    let body = client(&secret, AuthType::RequestBody);
    let same = body.exchange_client_credentials().add_scope(members()).request_async(&transport).await.unwrap();
    assert_eq!(same.access_token().secret(), token.access_token().secret());

    let check = async |secret: &str, scope: &str, expected: BasicErrorResponseType| {
        let client = client(secret, AuthType::BasicAuth);
        let scope = Scope::new(scope.to_owned());
        let refused = client.exchange_client_credentials().add_scope(scope).request_async(&transport).await;
        match refused {
            Err(RequestTokenError::ServerResponse(answer)) => assert_eq!(answer.error(), &expected),
            other => panic!("{expected:?} is not {other:?}"),
        }
    };
    check("guess", MEMBERS, BasicErrorResponseType::InvalidClient).await;
    check(&secret, RESOURCES, BasicErrorResponseType::InvalidScope).await;

    let revocable = StandardRevocableToken::from(token.access_token());
    basic.revoke_token(revocable).unwrap().request_async(&transport).await.unwrap();
    assert_eq!(broker.calls().len(), 1);
}
