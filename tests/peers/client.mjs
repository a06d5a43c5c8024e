// Runs oauth4webapi, an OAuth 2.0 client of another project, against a running broker.
//
//     BROKER_URL=... CLIENT_ID=... CLIENT_SECRET=... SCOPE='...' node client.mjs [CHECK...]
//
// SCOPE is a scope of the caller. Without arguments every check runs, except those named
// upstream_...: they need a broker that cannot get a token. Each check prints `ok NAME` or
// `not ok NAME: why`; any failure makes the exit status 1.

import * as oauth from 'oauth4webapi';

const required = (name) => {
  const value = process.env[name];
  if (!value) {
    console.error(`client.mjs: ${name} is not set`);
    process.exit(2);
  }
  return value;
};

const broker = new URL(required('BROKER_URL'));
const client = { client_id: required('CLIENT_ID') };
const secret = required('CLIENT_SECRET');
const scope = required('SCOPE');

const basic = oauth.ClientSecretBasic(secret);
const body = oauth.ClientSecretPost(secret);
const options = {
  // A test's broker listens on loopback without TLS.
  [oauth.allowInsecureRequests]: true,
  signal: () => AbortSignal.timeout(30_000),
};
// Metadata that a job writes if it knows only the URL; `discovery` compares it with the broker's own.
const server = {
  issuer: broker.href,
  token_endpoint: new URL('/oauth/token', broker).href,
  revocation_endpoint: new URL('/oauth/revoke', broker).href,
};

const assert = (condition, why) => {
  if (!condition) throw new Error(why);
};
const equal = (found, expected, what) => assert(found === expected, `${what} is ${found}, not ${expected}`);
const words = (text) => text.split(' ').sort().join(' ');

const obtain = async (authentication, parameters = { scope }) => {
  const response = await oauth.clientCredentialsGrantRequest(server, client, authentication, parameters, options);
  return oauth.processClientCredentialsResponse(server, client, response);
};

const isToken = (answer) => {
  assert(answer.access_token, 'there is no access_token');
  // The library converts token_type to lower case, as RFC 6749 section 5.1 allows.
  equal(answer.token_type, 'bearer', 'token_type');
  assert(answer.expires_in > 0 && answer.expires_in <= 3600, `expires_in is ${answer.expires_in}`);
};

// The library reads a 401 with a challenge as WWWAuthenticateChallengeError, and every other 4xx
// as ResponseBodyError.
const isRefused = async (attempt, error) => {
  const thrown = await attempt.then(() => undefined, (thrown) => thrown);
  assert(thrown instanceof oauth.ResponseBodyError, `no ResponseBodyError, but ${thrown}`);
  equal(thrown.error, error, 'error');
  equal(thrown.status, 400, 'status');
};

const isChallenged = async (attempt) => {
  const thrown = await attempt.then(() => undefined, (thrown) => thrown);
  assert(thrown instanceof oauth.WWWAuthenticateChallengeError, `no WWWAuthenticateChallengeError, but ${thrown}`);
  equal(thrown.status, 401, 'status');
  equal(thrown.cause[0].scheme, 'basic', 'scheme of the challenge');
  assert(thrown.cause[0].parameters.realm, 'the challenge has no realm');
  equal((await thrown.response.clone().json()).error, 'invalid_client', 'error');
};

// The library returns the response of a 5xx to its caller unread.
const isTrouble = async (attempt, status, error) => {
  const thrown = await attempt.then(() => undefined, (thrown) => thrown);
  assert(thrown instanceof oauth.OperationProcessingError, `no OperationProcessingError, but ${thrown}`);
  const response = thrown.cause;
  equal(response.status, status, 'status');
  assert(Number(response.headers.get('retry-after')) >= 1, `Retry-After is ${response.headers.get('retry-after')}`);
  equal((await response.json()).error, error, 'error');
};

const revoke = async (token) => {
  const response = await oauth.revocationRequest(server, client, basic, token, options);
  return oauth.processRevocationResponse(response);
};

// An instance may return a revoked token from memory for up to 2 s.
const obtainAnother = async (than) => {
  for (let i = 0; i < 20; i += 1) {
    const answer = await obtain(basic);
    if (answer.access_token !== than) return answer;
    await new Promise((resolve) => setTimeout(resolve, 250));
  }
  throw new Error('the broker still hands out the revoked token');
};

const checks = {
  async discovery() {
    const response = await oauth.discoveryRequest(broker, { algorithm: 'oauth2', ...options });
    const found = await oauth.processDiscoveryResponse(broker, response);
    equal(found.token_endpoint, server.token_endpoint, 'token_endpoint');
    equal(found.revocation_endpoint, server.revocation_endpoint, 'revocation_endpoint');
    const has = (name, value) => assert(found[name]?.includes(value), `${name} has no ${value}`);
    has('grant_types_supported', 'client_credentials');
    has('token_endpoint_auth_methods_supported', 'client_secret_basic');
    has('token_endpoint_auth_methods_supported', 'client_secret_post');
    has('revocation_endpoint_auth_methods_supported', 'client_secret_basic');
    has('revocation_endpoint_auth_methods_supported', 'client_secret_post');
    // RFC 8414 section 2: required, and empty for a server without an authorization endpoint.
    equal(JSON.stringify(found.response_types_supported), '[]', 'response_types_supported');
  },

  async obtain_basic() {
    const answer = await obtain(basic);
    isToken(answer);
    equal(words(answer.scope), words(scope), 'scope');
  },

  async obtain_body() {
    const answer = await obtain(body);
    isToken(answer);
    equal(words(answer.scope), words(scope), 'scope');
  },

  async obtain_without_scope() {
    const answer = await obtain(basic, {});
    isToken(answer);
    // RFC 6749 section 5.1: required, because it differs from the requested scope.
    assert(answer.scope, 'there is no scope');
  },

  async reuse() {
    const first = await obtain(basic);
    const second = await obtain(body, { scope: scope.split(' ').reverse().join(' ') });
    equal(second.access_token, first.access_token, 'the second token');
    assert(second.expires_in <= first.expires_in, 'expires_in has grown');
  },

  async concurrent() {
    const answers = await Promise.all(Array.from({ length: 16 }, () => obtain(basic)));
    equal(new Set(answers.map((answer) => answer.access_token)).size, 1, 'the number of tokens');
  },

  wrong_secret_basic: () => isChallenged(obtain(oauth.ClientSecretBasic('not-the-secret'))),

  wrong_secret_body: () => isChallenged(obtain(oauth.ClientSecretPost('not-the-secret'))),

  invalid_scope: () => isRefused(obtain(basic, { scope: `${scope} outside.every.policy` }), 'invalid_scope'),

  invalid_request: () => isRefused(obtain(basic, [['scope', scope], ['scope', scope]]), 'invalid_request'),

  async unsupported_grant_type() {
    const attempt = async () => {
      const parameters = { username: 'a', password: 'b' };
      const response = await oauth.genericTokenEndpointRequest(server, client, basic, 'password', parameters, options);
      return oauth.processGenericTokenEndpointResponse(server, client, response);
    };
    await isRefused(attempt(), 'unsupported_grant_type');
  },

  async revoke_unknown_token() {
    const before = await obtain(basic);
    await revoke('not-a-token');
    equal((await obtain(basic)).access_token, before.access_token, 'the token after it');
  },

  revoke_wrong_secret: () =>
    isChallenged(
      oauth
        .revocationRequest(server, client, oauth.ClientSecretBasic('not-the-secret'), 'not-a-token', options)
        .then(oauth.processRevocationResponse),
    ),

  // Uses the only revocation that the broker accepts per minute for this scope set.
  async revoke() {
    const before = await obtain(basic);
    await revoke(before.access_token);
    const after = await obtainAnother(before.access_token);
    isToken(after);
    await isTrouble(revoke(after.access_token), 503, 'temporarily_unavailable');
    // By now no instance has the previous token in memory.
    await new Promise((resolve) => setTimeout(resolve, 2500));
    equal((await obtain(basic)).access_token, after.access_token, 'the token after a revocation that was put off');
  },

  upstream_unavailable: () => isTrouble(obtain(basic), 503, 'temporarily_unavailable'),

  upstream_refuses: () => isTrouble(obtain(basic), 502, 'server_error'),
};

const names = process.argv.slice(2);
const unknown = names.filter((name) => !(name in checks));
if (unknown.length > 0) {
  console.error(`client.mjs: unknown check ${unknown.join(', ')}, expected one of ${Object.keys(checks).join(', ')}`);
  process.exit(2);
}
for (const name of names.length > 0 ? names : Object.keys(checks).filter((name) => !name.startsWith('upstream_'))) {
  try {
    await checks[name]();
    console.log(`ok ${name}`);
  } catch (error) {
    console.log(`not ok ${name}: ${error.message.replaceAll('\n', ' ')}`);
    process.exitCode = 1;
  }
}
