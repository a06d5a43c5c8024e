// Gets tokens with assertions of openid-client and oauth4webapi, OAuth 2.0 clients of other projects.
//
//     BROKER_URL=... AUDIENCE=... CLIENT_ID=... KEYS=FOLDER SCOPE='...' node signed.mjs
//
// FOLDER is that of make_keys. Each check prints `ok NAME` or `not ok NAME: why`; any failure makes
// the exit status 1.

import { readFile } from 'node:fs/promises';
import { importPKCS8 } from 'jose';
import * as oauth from 'oauth4webapi';
import * as openid from 'openid-client';

const { BROKER_URL, AUDIENCE, CLIENT_ID, KEYS, SCOPE } = process.env;
const client = { client_id: CLIENT_ID };
// A test's broker listens on loopback without TLS.
const options = { [oauth.allowInsecureRequests]: true, signal: () => AbortSignal.timeout(30_000) };
// The test's broker has another address than the one that `public_url` names.
const endpoints = { token_endpoint: `${BROKER_URL}/oauth/token`, revocation_endpoint: `${BROKER_URL}/oauth/revoke` };
const response = await oauth.discoveryRequest(new URL(BROKER_URL), { algorithm: 'oauth2', ...options });
const metadata = await oauth.processDiscoveryResponse(new URL(AUDIENCE), response);
const server = { ...metadata, ...endpoints };

const refusal = (error) => [error.status ?? error.cause?.status, error.cause?.[0]?.scheme].join(' ');

const libraries = {
  async oauth4webapi(authentication, issuer) {
    const as = { ...server, issuer };
    const answer = await oauth.clientCredentialsGrantRequest(as, client, authentication, { scope: SCOPE }, options);
    const token = await oauth.processClientCredentialsResponse(as, client, answer);
    await oauth.processRevocationResponse(
      await oauth.revocationRequest(as, client, authentication, 'not-a-token', options),
    );
    return token;
  },

  async 'openid-client'(authentication, issuer) {
    const config = new openid.Configuration({ ...server, issuer }, CLIENT_ID, undefined, authentication);
    openid.allowInsecureRequests(config);
    const token = await openid.clientCredentialsGrant(config, { scope: SCOPE });
    await openid.tokenRevocation(config, 'not-a-token');
    return token;
  },
};

let failed = false;
const check = async (name, attempt) => {
  const why = await attempt().catch((error) => error.message);
  console.log(why ? `not ok ${name}: ${why}` : `ok ${name}`);
  failed ||= Boolean(why);
};

for (const endpoint of ['token', 'revocation']) {
  await check(`metadata of the ${endpoint} endpoint`, async () => {
    const methods = metadata[`${endpoint}_endpoint_auth_methods_supported`];
    const algorithms = metadata[`${endpoint}_endpoint_auth_signing_alg_values_supported`];
    return methods?.includes('private_key_jwt') && algorithms?.includes('ES256') ? '' : JSON.stringify(metadata);
  });
}
for (const algorithm of ['ES256', 'RS256', 'PS256']) {
  const key = await importPKCS8(await readFile(`${KEYS}/${algorithm}.pem`, 'utf8'), algorithm);
  for (const [name, obtain] of Object.entries(libraries)) {
    const { PrivateKeyJwt } = name === 'openid-client' ? openid : oauth;
    await check(`${name} ${algorithm}`, async () => {
      const token = await obtain(PrivateKeyJwt(key), AUDIENCE);
      return token.access_token && token.scope === SCOPE ? '' : `the scope is ${token.scope}`;
    });
    await check(`${name} ${algorithm} with kid`, async () => {
      await obtain(PrivateKeyJwt({ key, kid: algorithm }), AUDIENCE);
    });
    await check(`${name} ${algorithm} for the endpoint is refused`, async () => {
      const thrown = await obtain(PrivateKeyJwt(key), server.token_endpoint).catch(refusal);
      return thrown === '401 basic' ? '' : `not 401 with a challenge, but ${JSON.stringify(thrown)}`;
    });
  }
}
process.exitCode = failed ? 1 : 0;
