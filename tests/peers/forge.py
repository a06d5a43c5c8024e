"""Makes assertions with joserfc, a JOSE library of another project.

    KEYS=FOLDER .venv/bin/python forge.py < DRAFTS

Drafts and output are those of forge.mjs.
"""

import json
import os
import sys
from pathlib import Path

from joserfc import jwe, jws, jwt
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey, import_key


def own_key(name):
    pem = Path(os.environ["KEYS"], f"{name}.pem").read_text()
    return import_key(pem, "EC" if name == "ES256" else "RSA")


def new_key(algorithm):
    curves = {"ES256": "P-256", "ES384": "P-384"}
    if algorithm in curves:
        return ECKey.generate_key(curves[algorithm])
    return OKPKey.generate_key("Ed25519") if algorithm == "Ed25519" else RSAKey.generate_key(2048)


def key_of(draft):
    return own_key(draft["key"]) if draft["key"] else new_key(draft["header"]["alg"])


def registry(header):
    return jws.JWSRegistry(algorithms=[header["alg"]], strict_check_header=False)


def sign(draft, key=None):
    header, payload = draft["header"], draft["payload"]
    key = key or key_of(draft)
    if isinstance(payload, str):
        return jws.serialize_compact(header, payload, key, registry=registry(header))
    return jwt.encode(header, payload, key, registry=registry(header), default_type=None)


def none(draft):
    return sign({**draft, "header": {"alg": "none"}}, OctKey.generate_key())


def mac(draft):
    return sign(draft, OctKey.import_key(own_key(draft["key"]).as_pem(private=False)))


def encrypt(draft):
    header, key = draft["header"], own_key(draft["key"])
    return jwe.encrypt_compact(header, json.dumps(draft["payload"]), key, [header["alg"], header["enc"]])


def as_json(draft):
    member = {"protected": draft["header"]}
    return json.dumps(jws.serialize_json(member, json.dumps(draft["payload"]), key_of(draft)))


MAKERS = {"sign": sign, "none": none, "mac": mac, "encrypt": encrypt, "json": as_json}


def make(draft):
    try:
        return MAKERS[draft["make"]](draft)
    except Exception as error:
        return {"cannot": repr(error)}


if __name__ == "__main__":
    print(json.dumps([make(draft) for draft in json.load(sys.stdin)]))
