"""Runs the examples of docs/jobs.md from the page itself, against a running broker.

    BROKER_URL=... CLIENT_ID=... CLIENT_SECRET=... .venv/bin/python run_examples.py [--all] [TITLE...]

An example is a fenced block with a title: ```python title=job.py. It succeeds if it exits with 0
and has called the API with a token of the broker. The API is a stand-in behind the same TLS address
as the broker, because the examples use https and are run unchanged. More words of the info string:

    answers=503   the first answer of the broker is replaced by 503 with Retry-After; the example
                  must try again after that time
    answers=401   the API refuses the first token; the example must revoke it and use another
    imports=a,b   Go only: imports of the program around the example
    untested      no runtime for it is installed here

Each example prints `ok TITLE`, `not ok TITLE: why` or `skip TITLE: why`; any failure makes the exit
status 1. An example without its runtime on this machine is skipped, and fails with --all.
"""

import argparse
import http.client
import json
import os
import re
import shutil
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import yaml

HERE = Path(__file__).resolve().parent
PAGE = HERE.parent.parent / "docs" / "jobs.md"
# Folder of Debian's golang-golang-x-oauth2-dev: the only way to Go's library without the network.
GO_PATH = Path("/usr/share/gocode")
LONGEST = 12
# Long, because Go compiles its library at the first run.
TIMEOUT = 180


class Skip(Exception):
    """The runtime of the example is missing."""


class Example:
    def __init__(self, info, text):
        self.language, *words = info.split()
        options = dict(word.partition("=")[::2] for word in words)
        self.title = options["title"]
        self.answers = options.get("answers")
        self.imports = options.get("imports", "").split(",")
        self.is_tested = "untested" not in options
        self.text = text


def examples():
    blocks = re.findall(r"^```(\S.*)\n((?:.*\n)*?)```$", PAGE.read_text(), re.MULTILINE)
    return [Example(info, text) for info, text in blocks]


class Front(ThreadingHTTPServer):
    """The broker behind TLS, as in production, and the API at /api."""

    daemon_threads = True

    def __init__(self, broker, folder):
        super().__init__(("127.0.0.1", 0), Handler)
        self.broker = urllib.parse.urlsplit(broker)
        self.lock = threading.Lock()
        self.certificate = folder / "certificate.pem"
        key = folder / "key.pem"
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1",
             "-keyout", key, "-out", self.certificate, "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"],
            check=True, capture_output=True,
        )  # fmt: skip
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate, key)
        self.socket = context.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)
        self.url = f"https://localhost:{self.server_port}"
        self.begin(None)

    def begin(self, answers):
        with self.lock:
            self.answers = answers
            self.put_off_at = None
            self.came_back_early = False
            self.issued = set()
            self.refused = None
            self.revoked = set()
            self.accepted = 0

    def verdict(self):
        """Returns why the example has failed, or None."""
        with self.lock:
            if not self.issued:
                return "the broker has issued no token"
            if not self.accepted:
                return "the API got no token of the broker"
            if self.answers == "503" and self.put_off_at is None:
                return "the broker was never unavailable"
            if self.came_back_early:
                return "it tried again before Retry-After had passed"
            if self.answers == "401" and self.refused not in self.revoked:
                return "the refused token was not revoked"
            return None


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 30

    def do_GET(self):
        self.api() if self.path.startswith("/api/") else self.pass_on()

    def do_POST(self):
        self.pass_on()

    def api(self):
        scheme, _, token = self.headers.get("Authorization", "").partition(" ")
        with self.server.lock:
            known = scheme.lower() == "bearer" and token in self.server.issued
            if known and self.server.answers == "401" and self.server.refused is None:
                self.server.refused = token
            accepted = known and token != self.server.refused
            self.server.accepted += accepted
        body = {"results": []} if accepted else {"statusCode": 401, "message": "Unauthorized"}
        self.answer(200 if accepted else 401, [("Content-Type", "application/json")], json.dumps(body).encode())

    def pass_on(self):
        request = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path == "/oauth/token" and self.server.answers == "503":
            with self.server.lock:
                first = self.server.put_off_at is None
                if first:
                    self.server.put_off_at = time.monotonic()
                elif time.monotonic() - self.server.put_off_at < 2:
                    self.server.came_back_early = True
            if first:
                body = json.dumps({"error": "temporarily_unavailable"}).encode()
                self.answer(503, [("Content-Type", "application/json"), ("Retry-After", "2")], body)
                return
        connection = http.client.HTTPConnection(self.server.broker.hostname, self.server.broker.port, timeout=30)
        headers = {name: value for name, value in self.headers.items() if name.lower() != "connection"}
        connection.request(self.command, self.path, request, headers)
        response = connection.getresponse()
        body = response.read()
        connection.close()
        if response.status == 200:
            self.remember(request, body)
        hop_by_hop = ("connection", "transfer-encoding", "content-length", "date")
        self.answer(response.status, [(n, v) for n, v in response.getheaders() if n.lower() not in hop_by_hop], body)

    def remember(self, request, body):
        with self.server.lock:
            if self.path == "/oauth/token":
                self.server.issued.add(json.loads(body)["access_token"])
            elif self.path == "/oauth/revoke":
                self.server.revoked.update(urllib.parse.parse_qs(request.decode()).get("token", []))

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


def run_python(example, folder, environment):
    (folder / "job.py").write_text(example.text)
    return execute([HERE / ".venv/bin/python", "job.py"], folder, environment)


def run_javascript(example, folder, environment):
    (folder / "job.mjs").write_text(example.text)
    (folder / "node_modules").symlink_to(HERE / "node_modules")
    return execute([program("node"), "job.mjs"], folder, environment)


def run_go(example, folder, environment):
    go = program("go")
    if not (GO_PATH / "src/golang.org/x/oauth2/clientcredentials").is_dir():
        raise Skip("Debian's golang-golang-x-oauth2-dev is not on this machine")
    imports = "".join(f"\t{json.dumps(name)}\n" for name in example.imports)
    (folder / "job.go").write_text(f"package main\n\nimport (\n{imports})\n\nfunc main() {{\n{example.text}}}\n")
    return execute([go, "run", "job.go"], folder, {**environment, "GO111MODULE": "off", "GOPATH": str(GO_PATH)})


def run_bash(example, folder, environment):
    for name in ("curl", "jq"):
        program(name)
    (folder / "job.sh").write_text(example.text)
    return execute([program("bash"), "job.sh"], folder, environment)


def run_workflow(example, folder, environment):
    """Runs the steps of a GitHub Actions workflow with only the workflow's own environment."""
    context = {name: environment.pop(name) for name in ("BROKER_URL", "CLIENT_ID", "CLIENT_SECRET", "API_URL")}

    def resolve(variables):
        def value(match):
            scope, name = match.groups()
            if (scope == "secrets") != (name == "CLIENT_SECRET"):
                raise ValueError(f"{name} must not be one of the {scope}")
            return context[name]

        return {name: re.sub(r"\$\{\{ (\w+)\.(\w+) \}\}", value, text) for name, text in variables.items()}

    for job in yaml.safe_load(example.text)["jobs"].values():
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


def run(example, front, folder):
    lines = len(example.text.splitlines())
    if lines > LONGEST:
        return f"it has {lines} lines, more than {LONGEST}"
    if not example.is_tested:
        raise Skip("untested")
    certificate = str(front.certificate)
    environment = {
        **{name: os.environ[name] for name in ("PATH", "HOME", "CLIENT_ID", "CLIENT_SECRET") if name in os.environ},
        "LANG": "C.UTF-8",
        "BROKER_URL": front.url,
        "API_URL": f"{front.url}/api/v2/organizations/test",
        # Each runtime has its own variable: OpenSSL and Go, Python's requests, curl, Node.
        "SSL_CERT_FILE": certificate,
        "REQUESTS_CA_BUNDLE": certificate,
        "CURL_CA_BUNDLE": certificate,
        "NODE_EXTRA_CA_CERTS": certificate,
    }
    front.begin(example.answers)
    return RUNNERS[example.language](example, folder, environment) or front.verdict()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--all", action="store_true", help="fail if a runtime is missing")
    parser.add_argument("titles", nargs="*", metavar="TITLE")
    arguments = parser.parse_args()
    for name in ("BROKER_URL", "CLIENT_ID", "CLIENT_SECRET"):
        if not os.environ.get(name):
            sys.exit(f"run_examples.py: {name} is not set")
    found = examples()
    if unknown := set(arguments.titles) - {example.title for example in found}:
        sys.exit(f"run_examples.py: {PAGE.name} has no {', '.join(sorted(unknown))}")
    failed = not found
    with tempfile.TemporaryDirectory() as scratch:
        front = Front(os.environ["BROKER_URL"], Path(scratch))
        threading.Thread(target=front.serve_forever, daemon=True).start()
        for number, example in enumerate(found):
            if arguments.titles and example.title not in arguments.titles:
                continue
            folder = Path(scratch) / str(number)
            folder.mkdir()
            try:
                why = run(example, front, folder)
                print(f"not ok {example.title}: {why}" if why else f"ok {example.title}", flush=True)
                failed |= why is not None
            except Skip as reason:
                print(f"skip {example.title}: {reason}", flush=True)
                failed |= arguments.all and example.is_tested
        front.shutdown()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
