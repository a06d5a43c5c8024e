#!/usr/bin/env bash
# Gets tokens with assertions that openssl signs and curl sends.
#
#     BROKER_URL=... AUDIENCE=... CLIENT_ID=... KEYS=FOLDER SCOPE='...' signed.sh
#
# FOLDER is that of make_keys. Each check prints `ok NAME`; the first failure ends the script.
set -euo pipefail
: "${BROKER_URL:?}" "${AUDIENCE:?}" "${CLIENT_ID:?}" "${KEYS:?}" "${SCOPE:?}"

base64url() { basenc --base64url --wrap=0 | tr --delete =; }

# ECDSA in DER has two numbers, and in a JWS they are 32 bytes each (RFC 7518 section 3.4).
numbers() {
    openssl asn1parse -inform DER | sed --quiet 's/.*INTEGER *://p' | while read -r number; do
        printf '%64s' "$number" | tr ' ' 0
    done | basenc --base16 --decode
}

# sign ALGORITHM: signs standard input.
sign() {
    local sign=(openssl dgst -sha256 -sign "$KEYS/$1.pem")
    case $1 in
        ES256) "${sign[@]}" | numbers ;;
        RS256) "${sign[@]}" ;;
        PS256) "${sign[@]}" -sigopt rsa_padding_mode:pss -sigopt rsa_pss_saltlen:digest ;;
    esac | base64url
}

# assertion ALGORITHM AUDIENCE
assertion() {
    local parts
    parts=$(jq --null-input --compact-output --join-output --arg alg "$1" '{$alg}' | base64url)
    parts+=.$(jq --null-input --compact-output --join-output --arg iss "$CLIENT_ID" --arg aud "$2" \
        '{$iss, sub: $iss, $aud, exp: (now + 60 | floor)}' | base64url)
    printf '%s.%s' "$parts" "$(printf %s "$parts" | sign "$1")"
}

# obtain ALGORITHM AUDIENCE: prints status and body. The assertion is on no command line.
obtain() {
    assertion "$@" | curl --silent --show-error --max-time 30 --write-out '\n%{http_code}' "$BROKER_URL/oauth/token" \
        --data grant_type=client_credentials --data-urlencode "scope=$SCOPE" \
        --data-urlencode client_assertion_type=urn:ietf:params:oauth:client-assertion-type:jwt-bearer \
        --data-urlencode client_assertion@-
}

# check NAME ALGORITHM AUDIENCE PATTERN
check() {
    local answer
    answer=$(obtain "$2" "$3")
    # shellcheck disable=SC2053 # The pattern is one.
    [[ $answer == *$4 ]] || { echo "not ok $1: ${answer##*$'\n'}"; exit 1; }
    echo "ok $1"
}

for algorithm in ES256 RS256 PS256; do
    check "$algorithm" "$algorithm" "$AUDIENCE" '"access_token"*200'
    check "$algorithm for the endpoint is refused" "$algorithm" "$AUDIENCE/oauth/token" '"invalid_client"*401'
done
