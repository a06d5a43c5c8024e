"""Checks the manifests of a folder for wasmCloud, and prints the component's environment as JSON.

    .venv/bin/python check_wasmcloud.py FOLDER

The secret is validated against Kubernetes' schema. No package registry has the schema of
WorkloadDeployment: `FIELDS` describes, in this project's words, the fields that are used here of
the types of wasmCloud 2.7's operator.
"""

import json
import sys
from pathlib import Path

import kubernetes_validate
import yaml

from check_spinkube import KUBERNETES, check

NAMES = {"name": (True, str)}
HOST_INTERFACE = {
    "namespace": (True, str),
    "package": (True, str),
    "version": (False, str),
    "interfaces": (True, [str]),
    "config": (False, {"host": (False, str)}),
}
COMPONENT = {
    "name": (True, str),
    "image": (True, str),
    "poolSize": (True, int),
    "maxConcurrency": (True, int),
    "localResources": (True, {"environment": (True, {"config": (True, dict), "secretFrom": (True, [NAMES])}), "allowedHosts": (True, [str])}),
}
WORKLOAD = {"hostSelector": (False, {"hostgroup": (True, str)}), "hostInterfaces": (True, [HOST_INTERFACE]), "components": (True, [COMPONENT])}
FIELDS = {
    "apiVersion": (True, str),
    "kind": (True, str),
    "metadata": (True, NAMES),
    "spec": (True, {"replicas": (True, int), "template": (True, {"spec": (True, WORKLOAD)})}),
}


def main(folder):
    documents = {document["kind"]: document for file in sorted(Path(folder).iterdir()) for document in yaml.safe_load_all(file.read_text())}
    assert set(documents) == {"Secret", "WorkloadDeployment"}, sorted(documents)
    secret, deployment = documents["Secret"], documents["WorkloadDeployment"]
    kubernetes_validate.validate(secret, KUBERNETES, strict=True)
    check(deployment, FIELDS, "deployment")
    assert deployment["apiVersion"] == "runtime.wasmcloud.dev/v1alpha1"

    workload = deployment["spec"]["template"]["spec"]
    interfaces = {(each["namespace"], each["package"]): each for each in workload["hostInterfaces"]}
    assert interfaces["wasi", "http"]["interfaces"] == ["handler"], "the component exports wasi:http/handler"
    keyvalue = interfaces["wasi", "keyvalue"]
    assert (keyvalue["version"], keyvalue["interfaces"]) == ("0.2.0-draft", ["store"]), "the component imports wasi:keyvalue/store"
    [component] = workload["components"]
    assert component["poolSize"] >= 1, "without kept instances, memory is always empty"
    environment = component["localResources"]["environment"]
    assert environment["secretFrom"] == [{"name": secret["metadata"]["name"]}]
    print(json.dumps({**environment["config"], **secret["stringData"]}))


if __name__ == "__main__":
    try:
        main(sys.argv[1])
    except (AssertionError, KeyError, kubernetes_validate.ValidationError) as problem:
        sys.exit(f"{type(problem).__name__}: {getattr(problem, 'message', problem)}")
