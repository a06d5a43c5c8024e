#!/usr/bin/env bash
# Runs curl against a running broker. The credentials are on standard input, because other users
# can see a command line.
#
#     BROKER_URL=... CLIENT_ID=... CLIENT_SECRET=... SCOPE='...' client.sh [CHECK...]
#
# SCOPE is a scope of the caller. Without arguments every check runs, except those named
# upstream_...: they need a broker that cannot get a token. Each check prints `ok NAME` or
# `not ok NAME: why`; any failure makes the exit status 1.
set -euo pipefail
: "${BROKER_URL:?}" "${CLIENT_ID:?}" "${CLIENT_SECRET:?}" "${SCOPE:?}"
BROKER_URL=${BROKER_URL%/}

fail() {
    printf '%s\n' "$*" >&2
    exit 1
}

# ask PATH [CURL ARGUMENT...]: prints status, version, headers and body as one JSON object.
ask() {
    local path=$1 shape='{"status":%{http_code},"version":"%{http_version}","headers":%{header_json}}'
    shift
    # Without an answer, curl's own message, "(7) Failed to connect", is the reason.
    curl --silent --show-error --no-progress-meter --max-time 30 --write-out "\n$shape" "$@" "$BROKER_URL$path" |
        jq --slurp --compact-output '.[-1] + {body: (if length > 1 then .[0] else null end)}'
}

# Credentials as curl's config on standard input. A caller's secret is base64url and needs no escape.
basic() { printf 'user = "%s:%s"\n' "$CLIENT_ID" "${1-$CLIENT_SECRET}"; }
token() { basic "${secret-$CLIENT_SECRET}" | ask /oauth/token --config - --data-urlencode "scope=${scope-$SCOPE}" "$@"; }
obtain() { token --data grant_type=client_credentials "$@"; }
post() {
    printf 'data-urlencode = "client_secret=%s"\n' "${1-$CLIENT_SECRET}" |
        ask /oauth/token --config - --data-urlencode "client_id=$CLIENT_ID" --data-urlencode "scope=$SCOPE" \
            --data grant_type=client_credentials
}
request_revocation() { basic "${2-$CLIENT_SECRET}" | ask /oauth/revoke --config - --data-urlencode "token=$1"; }

# expect JSON FILTER: fails unless jq's filter is true for the answer.
expect() {
    jq --exit-status "$2" <<< "$1" > /dev/null || fail "not ($2): $(jq --compact-output 'del(.body.access_token?)' <<< "$1")"
}
access_token() { jq --raw-output .body.access_token <<< "$1"; }

is_token='.status == 200 and .body.token_type == "Bearer" and (.body.access_token | length > 0)
    and (.body.expires_in | . > 0 and . <= 3600)'
is_never_stored='.headers["cache-control"] == ["no-store"] and .headers.pragma == ["no-cache"]
    and (.headers | keys | any(startswith("access-control-")) | not)'
is_challenge='.status == 401 and .body.error == "invalid_client"
    and (.headers["www-authenticate"][0] | startswith("Basic realm="))'
is_later='(.headers["retry-after"][0] | tonumber >= 1)'

obtain_basic() {
    local answer
    answer=$(obtain)
    expect "$answer" "$is_token"
    expect "$answer" "$is_never_stored"
}

obtain_body() {
    local answer
    answer=$(post)
    expect "$answer" "$is_token"
    expect "$answer" "$is_never_stored"
}

obtain_http_1_0() { expect "$(obtain --http1.0)" "$is_token"; }

# HTTP/2 without TLS, and so without negotiation (RFC 9113 section 3.3).
obtain_http_2() { expect "$(obtain --http2-prior-knowledge)" "$is_token and .version == \"2\""; }

reuse() { [[ $(access_token "$(obtain)") == "$(access_token "$(post)")" ]] || fail 'the second token differs'; }

wrong_secret_basic() { expect "$(secret=not-the-secret obtain)" "$is_challenge and ($is_never_stored)"; }

wrong_secret_body() { expect "$(post not-the-secret)" '.status == 401 and .body.error == "invalid_client"'; }

invalid_scope() { expect "$(scope="$SCOPE outside.every.policy" obtain)" '.status == 400 and .body.error == "invalid_scope"'; }

invalid_request() { expect "$(obtain --data "scope=again")" '.status == 400 and .body.error == "invalid_request"'; }

unsupported_grant_type() {
    expect "$(token --data grant_type=password)" '.status == 400 and .body.error == "unsupported_grant_type"'
}

get_is_not_allowed() { expect "$(ask /oauth/token)" '.status == 405 and .headers.allow == ["POST"]'; }

no_preflight() {
    expect "$(ask /oauth/token --request OPTIONS --header 'Origin: http://localhost' \
        --header 'Access-Control-Request-Method: POST')" ".status == 405 and ($is_never_stored)"
}

too_large() {
    local answer
    answer=$(head --bytes=20000 /dev/zero | tr '\0' a | ask /oauth/token --data @-)
    expect "$answer" '.status == 413 and .body.error == "invalid_request"'
}

revoke_unknown_token() {
    local before
    before=$(access_token "$(obtain)")
    expect "$(request_revocation not-a-token)" '.status == 200'
    [[ $(access_token "$(obtain)") == "$before" ]] || fail 'the revocation changed the token'
}

revoke_wrong_secret() { expect "$(request_revocation not-a-token not-the-secret)" "$is_challenge"; }

# Uses the only revocation that the broker accepts per minute for this scope set.
revoke() {
    local before after again
    before=$(access_token "$(obtain)")
    expect "$(request_revocation "$before")" '.status == 200'
    # An instance may return a revoked token from memory for up to 2 s.
    for _ in {1..20}; do
        after=$(access_token "$(obtain)")
        [[ $after != "$before" ]] && break
        sleep 0.25
    done
    [[ $after != "$before" ]] || fail 'the broker still returns the revoked token'
    again=$(request_revocation "$after")
    expect "$again" '.status == 503 and .body.error == "temporarily_unavailable" and '"$is_later"
}

upstream_unavailable() {
    expect "$(obtain)" '.status == 503 and .body.error == "temporarily_unavailable" and '"$is_later"
}

upstream_refuses() {
    expect "$(obtain)" '.status == 502 and .body.error == "server_error" and '"$is_later"
}

checks='obtain_basic obtain_body obtain_http_1_0 obtain_http_2 reuse wrong_secret_basic wrong_secret_body invalid_scope
    invalid_request unsupported_grant_type get_is_not_allowed no_preflight too_large revoke_unknown_token revoke_wrong_secret
    revoke'
upstream='upstream_unavailable upstream_refuses'
# shellcheck disable=SC2086 # words, and single spaces between them
known=$(echo $checks $upstream)
for check in "$@"; do
    # Only these names: bash could find another command with the name.
    if [[ " $known " != *" $check "* ]]; then
        echo "client.sh: unknown check $check, expected one of $known" >&2
        exit 2
    fi
done
status=0
for check in ${@:-$checks}; do
    # In a command substitution, so that errexit and `fail` end only this check.
    set +e
    why=$(set -e; "$check" 2>&1)
    code=$?
    set -e
    if ((code == 0)); then
        echo "ok $check"
    else
        echo "not ok $check: ${why//$'\n'/ }"
        status=1
    fi
done
exit "$status"
