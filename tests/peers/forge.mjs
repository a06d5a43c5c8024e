// Makes assertions with jose, a JOSE library of another project.
//
//     KEYS=FOLDER node forge.mjs < DRAFTS
//
// FOLDER is that of make_keys. DRAFTS is a list of JSON objects, and the output is a list too: an
// assertion, or why the library does not make it, as {"cannot": ...}. Members of a draft:
//
//     make     `sign`, `none` (an unsecured JWT), `mac` (the secret is the public key), `encrypt`, or
//              `json` (signed, in JSON serialization)
//     key      algorithm in the name of the key's file; without it, a new key for `alg`
//     header   the header
//     payload  the claims, or another text

import { createPublicKey } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { json } from 'node:stream/consumers';
import * as jose from 'jose';

const encode = (text) => new TextEncoder().encode(text);
const pem = (key) => readFile(`${process.env.KEYS}/${key}.pem`, 'utf8');
const publicPem = async (key) => createPublicKey(await pem(key)).export({ type: 'spki', format: 'pem' });

const privateKey = async ({ key, header: { alg } }) =>
  key ? jose.importPKCS8(await pem(key), alg) : (await jose.generateKeyPair(alg)).privateKey;
// The library signs with `crit` only if it is told to understand the members.
const options = ({ header: { crit } }) => crit && { crit: Object.fromEntries(crit.map((name) => [name, true])) };

const makers = {
  async sign(draft) {
    const { header, payload } = draft;
    const signed = typeof payload === 'object' ? new jose.SignJWT(payload) : new jose.CompactSign(encode(payload));
    return signed.setProtectedHeader(header).sign(await privateKey(draft), options(draft));
  },
  none: ({ payload }) => new jose.UnsecuredJWT(payload).encode(),
  mac: async ({ key, header, payload }) =>
    new jose.SignJWT(payload).setProtectedHeader(header).sign(encode(await publicPem(key))),
  encrypt: async ({ key, header, payload }) =>
    new jose.EncryptJWT(payload)
      .setProtectedHeader(header)
      .encrypt(await jose.importSPKI(await publicPem(key), header.alg)),
  async json(draft) {
    const signed = new jose.FlattenedSign(encode(JSON.stringify(draft.payload))).setProtectedHeader(draft.header);
    return JSON.stringify(await signed.sign(await privateKey(draft)));
  },
};

const made = [];
for (const draft of await json(process.stdin)) {
  made.push(await Promise.resolve(draft).then(makers[draft.make]).catch((error) => ({ cannot: error.message })));
}
console.log(JSON.stringify(made));
