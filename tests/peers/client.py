"""Runs requests-oauthlib, an OAuth 2.0 client of another project, against a running broker.

    BROKER_URL=... CLIENT_ID=... CLIENT_SECRET=... SCOPE='...' .venv/bin/python client.py [CHECK...]

SCOPE is a scope of the caller. Without arguments every check runs, except those named upstream_...:
they need a broker that cannot get a token. Each check prints `ok NAME` or `not ok NAME: why`; any
failure makes the exit status 1.
"""

import os
import sys
import time

# A test's broker listens on loopback without TLS. oauthlib reads this when it is imported.
os.environ["OAUTHLIB_INSECURE_TRANSPORT"] = "1"

from oauthlib.oauth2 import BackendApplicationClient, LegacyApplicationClient  # noqa: E402
from oauthlib.oauth2.rfc6749 import errors  # noqa: E402
from requests.auth import HTTPBasicAuth  # noqa: E402
from requests_oauthlib import OAuth2Session  # noqa: E402


def required(name):
    value = os.environ.get(name)
    if not value:
        sys.exit(f"client.py: {name} is not set")
    return value


BROKER = required("BROKER_URL").rstrip("/")
CLIENT_ID = required("CLIENT_ID")
SECRET = required("CLIENT_SECRET")
SCOPE = required("SCOPE").split()
TOKEN_URL = f"{BROKER}/oauth/token"
REVOCATION_URL = f"{BROKER}/oauth/revoke"
TIMEOUT = 30


def new_session(scope=SCOPE):
    return OAuth2Session(client=BackendApplicationClient(client_id=CLIENT_ID, scope=scope))


def obtain(session=None, secret=SECRET, in_body=False, **more):
    """Fetches a token. The library sends Basic by default, and the secret in the body if asked to."""
    session = session or new_session()
    how = {"include_client_id": True} if in_body else {}
    return session.fetch_token(TOKEN_URL, client_id=CLIENT_ID, client_secret=secret, timeout=TIMEOUT, **how, **more)


def is_token(token):
    assert token["access_token"], "there is no access_token"
    assert token["token_type"] == "Bearer", f"token_type is {token['token_type']}"
    assert 0 < token["expires_in"] <= 3600, f"expires_in is {token['expires_in']}"


def raises(kind, attempt):
    try:
        attempt()
    except kind as error:
        return error
    except Exception as error:
        raise AssertionError(f"no {kind.__name__}, but {error!r}") from error
    raise AssertionError(f"no {kind.__name__}")


def request_revocation(token, secret=SECRET):
    url, headers, body = BackendApplicationClient(CLIENT_ID).prepare_token_revocation_request(REVOCATION_URL, token)
    # withhold_token: the request is about the token, not made with it.
    return new_session().post(
        url, data=body, headers=headers, auth=HTTPBasicAuth(CLIENT_ID, secret), timeout=TIMEOUT, withhold_token=True
    )


def obtain_another(than):
    """Waits for a new token: an instance may return a revoked one from memory for up to 2 s."""
    for _ in range(20):
        token = obtain()
        if token["access_token"] != than:
            return token
        time.sleep(0.25)
    raise AssertionError("the broker still hands out the revoked token")


def obtain_basic():
    token = obtain()
    is_token(token)
    assert set(token["scope"]) == set(SCOPE), f"scope is {token['scope']}"


def obtain_body():
    token = obtain(in_body=True)
    is_token(token)
    assert set(token["scope"]) == set(SCOPE), f"scope is {token['scope']}"


def obtain_without_scope():
    token = obtain(new_session(scope=None))
    is_token(token)
    assert token["scope"], "there is no scope"


def reuse():
    first = obtain()
    second = obtain(new_session(scope=SCOPE[::-1]), in_body=True)
    assert second["access_token"] == first["access_token"], "the second token is another one"
    assert second["expires_in"] <= first["expires_in"], "expires_in has grown"


def refresh():
    """A session notices before it calls the API that its token has expired, and fetches a new one."""
    session = new_session()
    obtain(session)
    session.token = {**session.token, "expires_at": time.time() - 1}
    raises(errors.TokenExpiredError, lambda: session.get(BROKER))
    is_token(obtain(session))
    assert session.token["expires_at"] > time.time(), "the new token has run out, too"


def wrong_secret_basic():
    error = raises(errors.InvalidClientError, lambda: obtain(secret="not-the-secret"))
    assert error.status_code == 401, f"status is {error.status_code}"


def wrong_secret_body():
    error = raises(errors.InvalidClientError, lambda: obtain(secret="not-the-secret", in_body=True))
    assert error.status_code == 401, f"status is {error.status_code}"


def invalid_scope():
    raises(errors.InvalidScopeError, lambda: obtain(new_session(scope=[*SCOPE, "outside.every.policy"])))


def invalid_request():
    """Presents two different secrets. Of several classes for this error the library takes the first by name."""
    error = raises(errors.OAuth2Error, lambda: obtain(auth=HTTPBasicAuth(CLIENT_ID, "another"), in_body=True))
    assert error.error == "invalid_request", f"error is {error.error}"
    assert error.status_code == 400, f"status is {error.status_code}"


def unsupported_grant_type():
    session = OAuth2Session(client=LegacyApplicationClient(client_id=CLIENT_ID))
    raises(errors.UnsupportedGrantTypeError, lambda: obtain(session, username="a", password="b"))


def revoke_unknown_token():
    before = obtain()["access_token"]
    status = request_revocation("not-a-token").status_code
    assert status == 200, f"status is {status}"
    assert obtain()["access_token"] == before, "the token after it is another one"


def revoke_wrong_secret():
    answer = request_revocation("not-a-token", secret="not-the-secret")
    assert answer.status_code == 401, f"status is {answer.status_code}"
    assert answer.json()["error"] == "invalid_client", f"error is {answer.json()['error']}"


def revoke():
    """Uses the only revocation that the broker accepts per minute for this scope set."""
    before = obtain()["access_token"]
    status = request_revocation(before).status_code
    assert status == 200, f"status is {status}"
    after = obtain_another(before)
    is_token(after)
    again = request_revocation(after["access_token"])
    assert again.status_code == 503, f"status of a second revocation is {again.status_code}"
    assert int(again.headers["Retry-After"]) >= 1, f"Retry-After is {again.headers['Retry-After']}"
    # By now no instance has the previous token in memory.
    time.sleep(2.5)
    assert obtain()["access_token"] == after["access_token"], "a revocation that was put off has changed the token"


def upstream_unavailable():
    raises(errors.TemporarilyUnavailableError, obtain)


def upstream_refuses():
    raises(errors.ServerError, obtain)


CHECKS = {
    check.__name__: check
    for check in (
        obtain_basic,
        obtain_body,
        obtain_without_scope,
        reuse,
        refresh,
        wrong_secret_basic,
        wrong_secret_body,
        invalid_scope,
        invalid_request,
        unsupported_grant_type,
        revoke_unknown_token,
        revoke_wrong_secret,
        revoke,
        upstream_unavailable,
        upstream_refuses,
    )
}


def main(names):
    if unknown := [name for name in names if name not in CHECKS]:
        sys.exit(f"client.py: unknown check {', '.join(unknown)}, expected one of {', '.join(CHECKS)}")
    failed = False
    for name in names or [name for name in CHECKS if not name.startswith("upstream_")]:
        try:
            CHECKS[name]()
            print(f"ok {name}", flush=True)
        except Exception as error:
            why = str(error) if isinstance(error, AssertionError) else repr(error)
            print(f"not ok {name}: {' '.join(why.split())}", flush=True)
            failed = True
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
