"""Gets tokens with assertions of Authlib and requests-oauth2client, OAuth 2.0 clients of other projects.

    BROKER_URL=... AUDIENCE=... CLIENT_ID=... KEYS=FOLDER SCOPE='...' .venv/bin/python signed.py

FOLDER is that of make_keys. Each check prints `ok NAME` or `not ok NAME: why`; any failure makes
the exit status 1.
"""

import os
import sys
from pathlib import Path

from authlib.integrations.base_client import OAuthError
from authlib.integrations.requests_client import OAuth2Session
from authlib.oauth2.rfc7523 import PrivateKeyJWT
from joserfc.jwk import import_key
from jwskate import Jwk
from requests_oauth2client import InvalidClient, OAuth2Client, PrivateKeyJwt

BROKER, AUDIENCE, CLIENT_ID, KEYS, SCOPE = (
    os.environ[name] for name in ("BROKER_URL", "AUDIENCE", "CLIENT_ID", "KEYS", "SCOPE")
)
TOKEN_URL, REVOCATION_URL = f"{BROKER}/oauth/token", f"{BROKER}/oauth/revoke"


def authlib(algorithm, pem, audience, kid=None):
    """This library sends no client_id, and its assertions live for an hour."""
    headers = {"kid": kid} if kid else None
    key = import_key(pem, "EC" if algorithm == "ES256" else "RSA")
    method = PrivateKeyJWT(audience, headers=headers, alg=algorithm)
    with OAuth2Session(CLIENT_ID, key, token_endpoint_auth_method=method, scope=SCOPE) as session:
        session.revocation_endpoint_auth_method = method
        try:
            token = session.fetch_token(TOKEN_URL, grant_type="client_credentials")
        except OAuthError as error:
            return error.error
        assert session.revoke_token(REVOCATION_URL, "not-a-token").status_code == 200, "the revocation is refused"
        return token["scope"]


def requests_oauth2client(algorithm, pem, audience, kid):
    """This library names its key always, and takes the endpoint for the audience unless told."""
    method = PrivateKeyJwt(CLIENT_ID, Jwk.from_pem(pem, kid=kid), alg=algorithm, aud=audience)
    # testing: a test's broker listens on loopback without TLS.
    client = OAuth2Client(TOKEN_URL, revocation_endpoint=REVOCATION_URL, auth=method, testing=True)
    try:
        token = client.client_credentials(scope=SCOPE)
    except InvalidClient as error:
        return error.error
    assert client.revoke_access_token("not-a-token"), "the revocation is refused"
    return token.scope


def main():
    failed = False

    def check(library, what, expected, *arguments):
        nonlocal failed
        name = f"{library.__name__} {arguments[0]}{what}"
        try:
            found = library(*arguments)
        except Exception as error:
            found = repr(error)
        print(f"ok {name}" if found == expected else f"not ok {name}: {found}")
        failed |= found != expected

    for algorithm in ("ES256", "RS256", "PS256"):
        pem = Path(KEYS, f"{algorithm}.pem").read_text()
        check(authlib, "", SCOPE, algorithm, pem, AUDIENCE)
        check(authlib, " with kid", SCOPE, algorithm, pem, AUDIENCE, algorithm)
        check(authlib, " for the endpoint is refused", "invalid_client", algorithm, pem, TOKEN_URL)
        check(requests_oauth2client, " with kid", SCOPE, algorithm, pem, AUDIENCE, algorithm)
        check(requests_oauth2client, " for the endpoint is refused", "invalid_client", algorithm, pem, None, algorithm)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
