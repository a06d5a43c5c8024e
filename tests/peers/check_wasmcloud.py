"""Checks the manifests of a folder for wasmCloud, and prints as JSON the component's environment.

    .venv/bin/python check_wasmcloud.py FOLDER

The secret is validated against Kubernetes' schema. That of WorkloadDeployment is in no package registry: `FIELDS` says in this
project's words what the types of the operator of wasmCloud 2.7 have, as far as it is used here.
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
    assert (keyvalue["version"], keyvalue["interfaces"]) == ("0.2.0-draft", ["store"]), "what the component imports"
    [component] = workload["components"]
    assert component["poolSize"] >= 1, "an instance that is not kept remembers nothing"
    environment = component["localResources"]["environment"]
    assert environment["secretFrom"] == [{"name": secret["metadata"]["name"]}]
    print(json.dumps({**environment["config"], **secret["stringData"]}))


if __name__ == "__main__":
    try:
        main(sys.argv[1])
    except (AssertionError, KeyError, kubernetes_validate.ValidationError) as problem:
        sys.exit(f"{type(problem).__name__}: {getattr(problem, 'message', problem)}")
