#!/usr/bin/env bash
# curl against a running broker, with the credentials on standard input instead of the command line that others can see.
#
#     BROKER_URL=... CLIENT_ID=... CLIENT_SECRET=... SCOPE='...' client.sh [CHECK...]
#
# SCOPE is one the caller may have. Without arguments every check runs but those whose names begin with upstream_: they need
# a broker that cannot get a token. Each check prints `ok NAME` or `not ok NAME: why`; any failure makes the exit status 1.
set -euo pipefail
: "${BROKER_URL:?}" "${CLIENT_ID:?}" "${CLIENT_SECRET:?}" "${SCOPE:?}"
BROKER_URL=${BROKER_URL%/}

fail() {
    printf '%s\n' "$*" >&2
    exit 1
}

# ask PATH [CURL ARGUMENT...]: the status, the headers that matter, and the body as one JSON object.
ask() {
    local path=$1 shape='{"status":%{http_code},"version":"%{http_version}","headers":%{header_json}}'
    shift
    # curl's own words, "(7) Failed to connect", are the reason when there is no answer.
    curl --silent --show-error --no-progress-meter --max-time 30 --write-out "\n$shape" "$@" "$BROKER_URL$path" |
        jq --slurp --compact-output '.[-1] + {body: (if length > 1 then .[0] else null end)}'
}

# By config on standard input. A caller's secret is base64url, so nothing in it needs an escape there.
basic() { printf 'user = "%s:%s"\n' "$CLIENT_ID" "${1-$CLIENT_SECRET}"; }
token() { basic "${secret-$CLIENT_SECRET}" | ask /oauth/token --config - --data-urlencode "scope=${scope-$SCOPE}" "$@"; }
obtain() { token --data grant_type=client_credentials "$@"; }
post() {
    printf 'data-urlencode = "client_secret=%s"\n' "${1-$CLIENT_SECRET}" |
        ask /oauth/token --config - --data-urlencode "client_id=$CLIENT_ID" --data-urlencode "scope=$SCOPE" \
            --data grant_type=client_credentials
}
request_revocation() { basic "${2-$CLIENT_SECRET}" | ask /oauth/revoke --config - --data-urlencode "token=$1"; }

# expect JSON FILTER: what jq says of the answer must be true.
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

# Without TLS and so without negotiation; RFC 9113 section 3.3.
obtain_http_2() { expect "$(obtain --http2-prior-knowledge)" "$is_token and .version == \"2\""; }

reuse() { [[ $(access_token "$(obtain)") == "$(access_token "$(post)")" ]] || fail 'the second token is another one'; }

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
    [[ $(access_token "$(obtain)") == "$before" ]] || fail 'the token after it is another one'
}

revoke_wrong_secret() { expect "$(request_revocation not-a-token not-the-secret)" "$is_challenge"; }

# Spends what the broker allows for this scope: one revocation a minute.
revoke() {
    local before after again
    before=$(access_token "$(obtain)")
    expect "$(request_revocation "$before")" '.status == 200'
    # An instance that remembers a revoked token may hand it out for 2 s.
    for _ in {1..20}; do
        after=$(access_token "$(obtain)")
        [[ $after != "$before" ]] && break
        sleep 0.25
    done
    [[ $after != "$before" ]] || fail 'the broker still hands out the revoked token'
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
    # Anything else that bash knows by that name is no check.
    if [[ " $known " != *" $check "* ]]; then
        echo "client.sh: there is no check $check; there are $known" >&2
        exit 2
    fi
done
status=0
for check in ${@:-$checks}; do
    # In a command substitution of its own, so that errexit and `fail` end the check and nothing else.
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
