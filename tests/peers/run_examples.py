"""Runs the examples of docs/jobs.md from the page itself, against a running broker.

    BROKER_URL=... CLIENT_ID=... CLIENT_SECRET=... SCOPE=... .venv/bin/python run_examples.py [--all] [TITLE...]
    BROKER_URL=... CLIENT_ID=... KEY_FILE=... SCOPE=... .venv/bin/python run_examples.py TITLE < LISTENER
    BROKER_URL=... TOKEN_FILE=... SCOPE=... .venv/bin/python run_examples.py TITLE < LISTENER
    KEY_FILE=... .venv/bin/python run_examples.py --make-key

The first command runs the examples with a secret, the second one of those with a key, the third one
with a token of a platform. An assertion names the broker's address, so the test that starts the
broker opens the socket at this address, and passes it as standard input. The last command makes a key as the page does, and prints the JWK.

An example is a fenced block with a title: ```python title=job.py. Each runs several times, and each
run is a round with a name:

    pause       the first answer of the broker is 503 with Retry-After. The example must wait that
                long, ask again and succeed
    bound       the broker answers only 503, and tells the example to wait for 15 minutes. The
                example must fail, after at most the time that the page states
    http        the broker's address begins with http. The example must refuse that, or succeed,
                as the page says
    narrower    the broker grants fewer scopes than the example names
    403, 500    the API answers nothing else. The example must fail, and must not revoke its token
    401         the API refuses the first token. The example must revoke that and use another

The API is a stand-in behind the same TLS address as the broker, because the examples use https and
are run unchanged. In the round `bound`, a minute of the example is a second: the number in the text
is replaced. Further words of the info string:

    imports=a,b   Go only: imports of the program around the example
    untested      no runtime for it is installed here; only its bound is read

An example prints `ok TITLE: ROUNDS`, `not ok TITLE: ROUND: why` or `skip TITLE: why`; any failure
makes the exit status 1. An example without its runtime on this machine is skipped, and fails with
--all.
"""

import argparse
import http.client
import json
import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import yaml

HERE = Path(__file__).resolve().parent
PAGE = HERE.parent.parent / "docs" / "jobs.md"
# Folder of Debian's packages for Go: the only way to Go's libraries without the network.
GO_PATH = Path("/usr/share/gocode")
LONGEST = 12
LONGEST_WITH_ASSERTION = 15
# What an example reads that authenticates by an assertion.
ASSERTIONS = ("KEY_FILE", "TOKEN_FILE")
# Long, because Go compiles its libraries at the first run.
TIMEOUT = 180
# How long an example waits for a token, in the words of the page and in minutes.
STATED = "three minutes"
BOUND = 3
# Seconds between the last wait and the exit, on a busy machine.
SLACK = 2.5
# Where each language states its bound, and what the round `bound` runs in its place.
CAPS = {
    "python": ("retry_after_max=90", "retry_after_max=1.5"),
    "javascript": ("'Retry-After'), 90)", "'Retry-After'), 1.5)"),
    "go": ("3 * time.Minute", "3 * time.Second"),
    "bash": ("--retry-max-time 180", "--retry-max-time 3"),
    "yaml": ("--retry-max-time 180", "--retry-max-time 3"),
}
# Number of waits and seconds of each, in the examples that no runtime runs here.
UNTESTED_CAPS = {
    "csharp": r"waits = (\d+);.*TotalSeconds, (\d+)\)",
    "java": r"maxRetries = (\d+), delay = (\d+), timeUnit = TimeUnit.SECONDS",
}
# How an example refuses http, and what the page names against it: a setting, or a line and the line before it.
HTTP = {
    "python": ("InsecureTransportError", {"OAUTHLIB_INSECURE_TRANSPORT": "1"}, None),
    "javascript": ("OAUTH_HTTP_REQUEST_FORBIDDEN", {}, ("client.allowInsecureRequests(config);", "CLIENT_SECRET);")),
}
RELAXED = {"OAUTHLIB_RELAX_TOKEN_SCOPE": "1"}


class Skip(Exception):
    """The runtime of the example is missing."""


class Example:
    def __init__(self, info, text):
        self.language, *words = info.split()
        options = dict(word.partition("=")[::2] for word in words)
        self.title = options["title"]
        self.imports = options.get("imports", "").split(",")
        self.is_tested = "untested" not in options
        self.credential = next((name for name in ASSERTIONS if name in text), "CLIENT_SECRET")
        self.has_assertion = self.credential in ASSERTIONS
        self.text = text

    def with_text(self, old, new):
        """Returns the text with `old` replaced, which must be there."""
        if old not in self.text:
            raise ValueError(f"{self.title} does not contain {old}")
        return self.text.replace(old, new)


def examples():
    blocks = re.findall(r"^```(\S.*)\n((?:.*\n)*?)```$", PAGE.read_text(), re.MULTILINE)
    return [Example(info, text) for info, text in blocks]


@dataclass
class Round:
    """One run of an example: how broker and API behave, and what must come of it."""

    name: str
    text: str
    # Retry-After of the broker's first answers, each 503; then the broker itself answers.
    retry_after: tuple = ()
    # Statuses of the API's first answers; then it answers 200 to a token of the broker.
    api: tuple = ()
    is_http: bool = False
    is_narrower: bool = False
    environment: dict = field(default_factory=dict)
    # None if the example must succeed; otherwise a part of what it prints when it fails.
    fails_with: str | None = None
    calls_api: bool = True
    revokes: bool = False


def rounds(example):
    revokes_only = example.title == "revoke.sh"
    yield Round("pause", example.text, retry_after=(2,), calls_api=not revokes_only, revokes=revokes_only)
    yield Round("bound", example.with_text(*CAPS[example.language]), retry_after=(1, *[900] * 20), fails_with="")
    if example.title == "recover.sh":
        yield Round("403", example.text, api=(403,) * 9, fails_with="403")
        yield Round("500", example.text, api=(500,) * 9, fails_with="500")
        yield Round("401", example.text, api=(401,), revokes=True)
    elif not revokes_only:
        refusal, environment, inserted = HTTP.get(example.language, (None, {}, None))
        if refusal and (example.language, example.has_assertion) != ("python", True):
            yield Round("http", example.text, is_http=True, fails_with=refusal)
        if example.has_assertion:
            return  # The assertion names an address that begins with https.
        text = example.text
        if inserted:
            line, before = inserted
            text = example.with_text(f"{before}\n", f"{before}\n{line}\n")
        yield Round("http", text, is_http=True, environment=environment)
    if example.language == "python":
        named = 'BackendApplicationClient(client_id, scope=os.environ["SCOPE"] + " and.another")'
        text = example.with_text("BackendApplicationClient(client_id)", named)
        yield Round("narrower", text, is_narrower=True, fails_with="Warning: Scope has changed from")
        yield Round("narrower", text, is_narrower=True, environment=RELAXED)


class World:
    """What the broker and the API of a round have seen, and how they behave."""

    def __init__(self, broker):
        self.broker = urllib.parse.urlsplit(broker)
        self.lock = threading.Lock()

    def begin(self, round, scope):
        with self.lock:
            self.round = round
            self.scope = scope
            self.put_off = 0
            self.first_asked_at = None
            self.may_ask_at = 0
            self.came_back_early = False
            self.issued = set()
            self.refused = set()
            self.revoked = set()
            self.answered = 0
            self.accepted = 0

    def verdict(self, failure, took):
        """Returns why the example has failed, or None. `failure` is what it printed when it did."""
        with self.lock:
            round = self.round
            if round.fails_with is None and failure is not None:
                return failure
            if round.fails_with is not None:
                if failure is None:
                    return "it has succeeded"
                if round.fails_with not in failure:
                    return f"it does not say {round.fails_with!r}: {failure}"
                if self.revoked:
                    return "it has revoked a good token"
                if round.name == "bound" and took > BOUND + SLACK:
                    return f"it has waited {took:.1f} s, with a second for each minute"
                return None
            if self.put_off < len(round.retry_after):
                return "the broker was never unavailable"
            if self.came_back_early:
                return "it tried again before Retry-After had passed"
            if not self.issued:
                return "the broker has issued no token"
            if round.calls_api and not self.accepted:
                return "the API got no token of the broker"
            if round.revokes and not (self.refused or self.issued) <= self.revoked:
                return "it has not revoked the token"
            if self.revoked and not round.revokes:
                return "it has revoked a good token"
            return None

    def put_off_for(self):
        """Returns the Retry-After that the broker answers now, or None."""
        with self.lock:
            now = time.monotonic()
            self.first_asked_at = self.first_asked_at or now
            self.came_back_early |= now < self.may_ask_at
            if self.put_off == len(self.round.retry_after):
                return None
            seconds = self.round.retry_after[self.put_off]
            self.put_off += 1
            self.may_ask_at = now + seconds
            return seconds

    def api_status(self, token):
        with self.lock:
            self.answered += 1
            if token not in self.issued:
                return 401
            if self.answered <= len(self.round.api):
                self.refused.add(token)
                return self.round.api[self.answered - 1]
            if token in self.refused:
                return 401
            self.accepted += 1
            return 200


class Front(ThreadingHTTPServer):
    """The broker behind TLS or without it, and the API at /api."""

    daemon_threads = True

    def __init__(self, world, certificate=None, key=None, listener=None):
        super().__init__(("127.0.0.1", 0), Handler)
        self.world = world
        if listener:
            self.socket.close()
            self.socket = listener
            self.server_port = listener.getsockname()[1]
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate, key)
            self.socket = context.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)
        self.url = f"{'https' if certificate else 'http'}://localhost:{self.server_port}"
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def handle_error(self, request, client_address):
        """Says nothing: an example that fails may leave its connection."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 30

    def do_GET(self):
        self.api() if self.path.startswith("/api/") else self.pass_on()

    def do_POST(self):
        self.pass_on()

    def api(self):
        scheme, _, token = self.headers.get("Authorization", "").partition(" ")
        status = self.server.world.api_status(token) if scheme.lower() == "bearer" else 401
        body = {"results": []} if status == 200 else {"statusCode": status, "message": "refused"}
        self.answer(status, [("Content-Type", "application/json")], json.dumps(body).encode())

    def pass_on(self):
        world = self.server.world
        request = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path == "/oauth/token" and (seconds := world.put_off_for()) is not None:
            body = json.dumps({"error": "temporarily_unavailable"}).encode()
            self.answer(503, [("Content-Type", "application/json"), ("Retry-After", str(seconds))], body)
            return
        if self.path == "/oauth/token":
            # The broker gets `scope` from here, so that one example can revoke another scope set than the others.
            form = [(name, value) for name, value in urllib.parse.parse_qsl(request.decode()) if name != "scope"]
            request = urllib.parse.urlencode([*form, *([("scope", world.scope)] if world.scope else [])]).encode()
        connection = http.client.HTTPConnection(world.broker.hostname, world.broker.port, timeout=30)
        skipped = ("connection", "content-length")
        headers = {name: value for name, value in self.headers.items() if name.lower() not in skipped}
        connection.request(self.command, self.path, request, headers)
        response = connection.getresponse()
        body = response.read()
        connection.close()
        with world.lock:
            if self.path == "/oauth/token" and response.status == 200:
                world.issued.add(json.loads(body)["access_token"])
            elif self.path == "/oauth/revoke":
                world.revoked.update(urllib.parse.parse_qs(request.decode()).get("token", []))
        hop_by_hop = ("connection", "transfer-encoding", "content-length", "date")
        self.answer(response.status, [(n, v) for n, v in response.getheaders() if n.lower() not in hop_by_hop], body)

    def answer(self, status, headers, body):
        self.send_response(status)
        for name, value in [*headers, ("Content-Length", str(len(body)))]:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def execute(command, folder, environment):
    """Runs a program, and says why it failed, or None."""
    try:
        done = subprocess.run(
            command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=TIMEOUT
        )
    except subprocess.TimeoutExpired:
        return f"it has not ended within {TIMEOUT} s"
    if done.returncode != 0:
        return f"exit status {done.returncode}: {' '.join((done.stdout + done.stderr).split())[-800:]}"
    return None


def program(name):
    path = shutil.which(name)
    if path is None:
        raise Skip(f"{name} is not on this machine")
    return path


def run_python(_, text, folder, environment):
    (folder / "job.py").write_text(text)
    return execute([HERE / ".venv/bin/python", "job.py"], folder, environment)


def run_javascript(_, text, folder, environment):
    (folder / "job.mjs").write_text(text)
    if not (folder / "node_modules").exists():
        (folder / "node_modules").symlink_to(HERE / "node_modules")
    return execute([program("node"), "job.mjs"], folder, environment)


def run_go(example, text, folder, environment):
    go = program("go")
    for name in example.imports:
        if "." in name and not (GO_PATH / "src" / name).is_dir():
            raise Skip(f"{name} is not on this machine; Debian has it")
    imports = "".join(f"\t{json.dumps(name)}\n" for name in example.imports)
    (folder / "job.go").write_text(f"package main\n\nimport (\n{imports})\n\nfunc main() {{\n{text}}}\n")
    return execute([go, "run", "job.go"], folder, {**environment, "GO111MODULE": "off", "GOPATH": str(GO_PATH)})


def run_bash(_, text, folder, environment):
    for name in ("curl", "jq"):
        program(name)
    (folder / "job.sh").write_text(text)
    return execute([program("bash"), "job.sh"], folder, environment)


def run_workflow(_, text, folder, environment):
    """Runs the steps of a GitHub Actions workflow with only the workflow's own environment."""
    names = ("BROKER_URL", "CLIENT_ID", "CLIENT_SECRET", "API_URL")
    context = {name: environment[name] for name in names}
    environment = {name: value for name, value in environment.items() if name not in names}

    def resolve(variables):
        def value(match):
            scope, name = match.groups()
            if (scope == "secrets") != (name == "CLIENT_SECRET"):
                raise ValueError(f"{name} must not be one of the {scope}")
            return context[name]

        return {name: re.sub(r"\$\{\{ (\w+)\.(\w+) \}\}", value, text) for name, text in variables.items()}

    for job in yaml.safe_load(text)["jobs"].values():
        for step in job["steps"]:
            (folder / "step.sh").write_text(step["run"])
            variables = {**environment, **resolve(job.get("env", {})), **resolve(step.get("env", {}))}
            # GitHub runs a step without `shell` like this.
            if why := execute([program("bash"), "-e", "step.sh"], folder, variables):
                return why
    return None


RUNNERS = {
    "python": run_python,
    "javascript": run_javascript,
    "go": run_go,
    "bash": run_bash,
    "yaml": run_workflow,
}


def run(example, folder, certificate, key):
    """Runs an example in all its rounds, and returns the line to print."""
    lines, longest = len(example.text.splitlines()), LONGEST_WITH_ASSERTION if example.has_assertion else LONGEST
    if lines > longest:
        return f"not ok {example.title}: it has {lines} lines, more than {longest}"
    if not example.is_tested:
        if example.language in UNTESTED_CAPS:
            waits = re.search(UNTESTED_CAPS[example.language], example.text, re.DOTALL)
            if not waits or int(waits[1]) * int(waits[2]) > 60 * BOUND:
                return f"not ok {example.title}: it does not wait at most {STATED}"
        return f"skip {example.title}: untested"
    world = World(os.environ["BROKER_URL"])
    listener = socket.socket(fileno=os.dup(sys.stdin.fileno())) if example.has_assertion else None
    front, plain = Front(world, certificate, key, listener), Front(world)
    names = ("PATH", "HOME", "CLIENT_ID", example.credential, "SCOPE")
    # The broker accepts one revocation a minute for a scope set, and two examples revoke.
    scope = os.environ["SCOPE"] if example.title == "revoke.sh" else None
    passed = []
    try:
        ahead = list(rounds(example))
    except ValueError as why:
        return f"not ok {example.title}: {why}"
    for round in ahead:
        environment = {
            **{name: os.environ[name] for name in names if name in os.environ},
            "LANG": "C.UTF-8",
            "BROKER_URL": (plain if round.is_http else front).url,
            "API_URL": f"{front.url}/api/v2/organizations/test",
            # Each runtime has its own variable: OpenSSL and Go, Python's requests, curl, Node.
            "SSL_CERT_FILE": certificate,
            "REQUESTS_CA_BUNDLE": certificate,
            "CURL_CA_BUNDLE": certificate,
            "NODE_EXTRA_CA_CERTS": certificate,
            **round.environment,
        }
        world.begin(round, os.environ["SCOPE"] if round.is_narrower else scope)
        try:
            failure = RUNNERS[example.language](example, round.text, folder, environment)
        except Skip as reason:
            return f"skip {example.title}: {reason}"
        if why := world.verdict(failure, time.monotonic() - (world.first_asked_at or time.monotonic())):
            return f"not ok {example.title}: {round.name}: {why}"
        passed.append(round.name)
    return f"ok {example.title}: {' '.join(passed)}"


def stated():
    """Returns what the page does not say although the rounds test it, or None."""
    page = " ".join(PAGE.read_text().split())
    phrases = [f"It waits at most {STATED} for a token"]
    for environment in (RELAXED, *(environment for _, environment, _ in HTTP.values())):
        phrases += [f"`{name}={value}`" for name, value in environment.items()]
    phrases += [f"`{inserted[0]}`" for _, _, inserted in HTTP.values() if inserted]
    return next((phrase for phrase in phrases if phrase not in page), None)


def make_key(example):
    """Runs the example that makes a key, and prints what it prints."""
    done = subprocess.run([program("bash"), "-c", example.text], stdin=subprocess.DEVNULL, timeout=TIMEOUT)
    return done.returncode


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--all", action="store_true", help="fail if a runtime is missing")
    parser.add_argument("--make-key", action="store_true", help="make a key and print its public part")
    parser.add_argument("titles", nargs="*", metavar="TITLE")
    arguments = parser.parse_args()
    found = examples()
    if arguments.make_key:
        return make_key(next(example for example in found if example.title == "key.sh"))
    credential = next((name for name in ASSERTIONS if name in os.environ), "CLIENT_SECRET")
    # A token of a platform tells which caller the job is.
    for name in ("BROKER_URL", "SCOPE", credential, *(() if credential == "TOKEN_FILE" else ("CLIENT_ID",))):
        if not os.environ.get(name):
            sys.exit(f"run_examples.py: {name} is not set")
    found = [example for example in found if example.credential == credential]
    if unknown := set(arguments.titles) - {example.title for example in found}:
        sys.exit(f"run_examples.py: {PAGE.name} has no {', '.join(sorted(unknown))}")
    if missing := stated():
        sys.exit(f"run_examples.py: {PAGE.name} does not say: {missing}")
    failed = not found
    with tempfile.TemporaryDirectory() as scratch:
        certificate, key = f"{scratch}/certificate.pem", f"{scratch}/key.pem"
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1",
             "-keyout", key, "-out", certificate, "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"],
            check=True, capture_output=True,
        )  # fmt: skip
        # Side by side, because they mostly wait.
        with ThreadPoolExecutor(len(found)) as threads:
            begun = []
            for number, example in enumerate(found):
                if arguments.titles and example.title not in arguments.titles:
                    continue
                folder = Path(scratch) / str(number)
                folder.mkdir()
                begun.append((example, threads.submit(run, example, folder, certificate, key)))
            for example, line in begun:
                print(line.result(), flush=True)
                failed |= line.result().startswith("not ok")
                failed |= arguments.all and example.is_tested and line.result().startswith("skip")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
