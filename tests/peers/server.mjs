// An OAuth 2.0 server of another project (npm's oidc-provider) in OfficeRnD's place.
//
// The environment configures its client: CLIENT_ID, CLIENT_SECRET, and SCOPES, the granted scopes,
// separated by spaces. OTHER_SCOPES exist too, but are not granted. EXPIRES_IN is a token's
// lifetime in seconds, 3600 if unset.
//
// Standard output has one JSON object per line: first {"url": ...}, then one for each request to
// {url}/oauth/token, written before the answer is sent. The server ends when its standard input
// does, so that it never outlives the test that started it.

import { createHash } from 'node:crypto';
import { createServer } from 'node:http';
import { once } from 'node:events';
import Provider from 'oidc-provider';

const TOKEN_PATH = '/oauth/token';

// oidc-provider's notices about its development defaults are for people, so they go to stderr.
console.info = console.error;

const print = (value) => process.stdout.write(`${JSON.stringify(value)}\n`);

const required = (name) => {
  const value = process.env[name];
  if (!value) {
    console.error(`server.mjs: ${name} is not set`);
    process.exit(2);
  }
  return value;
};

const words = (text) => text.split(' ').filter(Boolean);

const clientId = required('CLIENT_ID');
const clientSecret = required('CLIENT_SECRET');
const granted = words(required('SCOPES'));
const others = words(process.env.OTHER_SCOPES ?? '');
const expiresIn = Number(process.env.EXPIRES_IN ?? 3600);

// Describes a request and its answer without the secret and the token, because test logs show it.
const describe = ({ request, oidc, response }) => {
  const parameters = oidc?.body ?? {};
  return {
    method: request.method,
    content_type: request.get('content-type'),
    authorization: request.get('authorization') !== '',
    parameters: Object.keys(parameters),
    client_id: parameters.client_id,
    secret_sha256: parameters.client_secret && createHash('sha256').update(parameters.client_secret).digest('hex'),
    grant_type: parameters.grant_type,
    scope: parameters.scope,
    status: response.status,
    error: response.body?.error,
  };
};

const server = createServer();
server.listen(0, '127.0.0.1');
await once(server, 'listening');
// The issuer contains the port, so the server listens first.
const url = `http://127.0.0.1:${server.address().port}`;

const provider = new Provider(url, {
  clients: [
    {
      client_id: clientId,
      client_secret: clientSecret,
      token_endpoint_auth_method: 'client_secret_post',
      grant_types: ['client_credentials'],
      response_types: [],
      redirect_uris: [],
      scope: granted.join(' '),
    },
  ],
  scopes: [...granted, ...others],
  clientAuthMethods: ['client_secret_post'],
  features: {
    clientCredentials: { enabled: true },
    devInteractions: { enabled: false },
    resourceIndicators: { enabled: false },
  },
  routes: { token: TOKEN_PATH },
  ttl: { ClientCredentials: expiresIn },
});

provider.use(async (context, next) => {
  await next();
  if (context.path === TOKEN_PATH) {
    print(describe(context));
  }
});

server.on('request', provider.callback());
process.stdin.on('end', () => process.exit(0)).resume();
print({ url });
