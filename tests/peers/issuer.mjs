// An outside issuer of another project (npm's oidc-provider): gives jobs signed tokens (RFC 9068),
// and rotates its keys.
//
// CLIENT_ID and CLIENT_SECRET are the credentials of its one job, AUDIENCE is the audience of its
// tokens.
//
// Standard output has one JSON object per line: first {"url": ...}, then one for each request for
// the keys. Each line on standard input is a step of a rotation: `announce` adds a new key that
// does not sign yet, `switch` signs with it, `withdraw` removes the old one; the answer is a line
// with the step. The server ends when its standard input does.

import { once } from 'node:events';
import { createServer } from 'node:http';
import { createInterface } from 'node:readline';
import { exportJWK, generateKeyPair } from 'jose';
import Provider from 'oidc-provider';

console.info = console.error;

const print = (value) => process.stdout.write(`${JSON.stringify(value)}\n`);
const { AUDIENCE, CLIENT_ID, CLIENT_SECRET } = process.env;

const server = createServer();
server.listen(0, '127.0.0.1');
await once(server, 'listening');
const url = `http://127.0.0.1:${server.address().port}`;

let keysMade = 0;
const makeKey = async (alg) => {
  const { privateKey } = await generateKeyPair(alg, { extractable: true });
  return { ...(await exportJWK(privateKey)), kid: `key-${(keysMade += 1)}`, alg, use: 'sig' };
};

// The provider signs with the first key.
const provider = (keys) =>
  new Provider(url, {
    clients: [
      {
        client_id: CLIENT_ID,
        client_secret: CLIENT_SECRET,
        token_endpoint_auth_method: 'client_secret_post',
        id_token_signed_response_alg: keys[0].alg,
        grant_types: ['client_credentials'],
        response_types: [],
        redirect_uris: [],
      },
    ],
    clientAuthMethods: ['client_secret_post'],
    jwks: { keys },
    features: {
      clientCredentials: { enabled: true },
      devInteractions: { enabled: false },
      resourceIndicators: {
        enabled: true,
        getResourceServerInfo: () => ({
          scope: '',
          audience: AUDIENCE,
          accessTokenFormat: 'jwt',
          accessTokenTTL: 7200,
          jwt: { sign: { alg: keys[0].alg } },
        }),
      },
    },
  }).callback();

let keys = [await makeKey('RS256')];
let answer = provider(keys);
const steps = {
  announce: async () => [...keys, await makeKey('ES256')],
  switch: async () => [...keys].reverse(),
  withdraw: async () => keys.slice(0, 1),
};

server.on('request', (request, response) => {
  if (request.url === '/jwks') {
    print({ jwks: keys.map(({ kid }) => kid) });
  }
  answer(request, response);
});
const lines = createInterface({ input: process.stdin });
lines.on('line', async (step) => {
  keys = await steps[step]();
  answer = provider(keys);
  print({ step });
});
lines.on('close', () => process.exit(0));
print({ url });
