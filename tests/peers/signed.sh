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

for algorithm in ES256 RS256 PS256; do
    # ES256 twenty times: one number of 256 is a byte shorter.
    for _ in $(if [[ $algorithm == ES256 ]]; then seq 20; else echo 1; fi); do
        answer=$(obtain $algorithm "$AUDIENCE")
        [[ $answer == *'"access_token"'*200 ]] || { echo "not ok $algorithm: ${answer##*$'\n'}"; exit 1; }
    done
    echo "ok $algorithm"
    answer=$(obtain $algorithm "$AUDIENCE/oauth/token")
    [[ $answer == *'"invalid_client"'*401 ]] || { echo "not ok $algorithm for the endpoint: ${answer##*$'\n'}"; exit 1; }
    echo "ok $algorithm for the endpoint is refused"
done
