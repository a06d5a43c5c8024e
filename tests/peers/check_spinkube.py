"""Checks the manifests of a folder for SpinKube, and prints the app's variables and stores as JSON.

    .venv/bin/python check_spinkube.py FOLDER

Kubernetes' own kinds are validated against Kubernetes' schemas. No package registry has the schema
of SpinApp and SpinAppExecutor: for these two, `FIELDS` and `check_executor` describe the operator's
v1alpha1 types in this project's words. The operator turns a SpinApp into a Deployment. This script
makes the same Deployment and validates it against Kubernetes' schema, which thereby checks the
parts that a SpinApp passes on: sources of variables, resources, probes.

Prints {"variables": {NAME: VALUE}, "optional": [NAME], "stores": {NAME: {OPTION: VALUE}}}, with the
values of secret.yaml. Optional variables are those whose key the secret may lack.
"""

import json
import sys
from pathlib import Path

import kubernetes_validate
import yaml

KUBERNETES = "1.31"

# The fields of a SpinApp that this project uses; True if required. A list contains such objects.
PROBE = {
    "httpGet": (True, {"path": (True, str)}),
    "initialDelaySeconds": (False, int),
    "periodSeconds": (False, int),
    "timeoutSeconds": (False, int),
    "failureThreshold": (False, int),
}
SECRET_KEY = {"name": (True, str), "key": (True, str), "optional": (False, bool)}
FROM_SECRET = {"secretKeyRef": (True, SECRET_KEY)}
FIELDS = {
    "image": (True, str),
    "executor": (True, str),
    "replicas": (True, int),
    "runtimeConfig": (
        False,
        {
            "keyValueStores": (
                False,
                [
                    {
                        "name": (True, str),
                        "type": (True, str),
                        "options": (False, [{"name": (True, str), "value": (False, str), "valueFrom": (False, FROM_SECRET)}]),
                    }
                ],
            )
        },
    ),
    "variables": (True, [{"name": (True, str), "value": (False, str), "valueFrom": (False, FROM_SECRET)}]),
    "checks": (False, {"readiness": (False, PROBE), "liveness": (False, PROBE)}),
    "resources": (False, {"requests": (False, dict), "limits": (False, dict)}),
}


def check(value, expected, place):
    if isinstance(expected, dict):
        assert isinstance(value, dict), f"{place} is not an object"
        for name in value:
            assert name in expected, f"{place}.{name} is not a field"
        for name, (required, inner) in expected.items():
            assert name in value or not required, f"{place}.{name} is missing"
            if name in value:
                check(value[name], inner, f"{place}.{name}")
    elif isinstance(expected, list):
        assert isinstance(value, list) and value, f"{place} is not a list, or is empty"
        for index, item in enumerate(value):
            check(item, expected[0], f"{place}[{index}]")
    else:
        assert type(value) is expected, f"{place} is not of type {expected.__name__}"


def check_executor(executor):
    spec = executor["spec"]
    assert spec["createDeployment"] is True, "the operator must create the Deployment"
    config = spec["deploymentConfig"]
    known = {"runtimeClassName", "spinImage", "caCertSecret", "installDefaultCACerts", "otel"}
    assert set(config) <= known, f"deploymentConfig has unknown fields: {set(config) - known}"
    assert ("runtimeClassName" in config) != ("spinImage" in config), "expected either a runtime class or an image of Spin"
    assert config.get("installDefaultCACerts") is True, "without CA certificates, TLS connections fail"


def deployment_of(app):
    """Returns the Deployment that the operator makes from a SpinApp."""
    name, spec = app["metadata"]["name"], app["spec"]
    probe = lambda of: {**of, "httpGet": {**of["httpGet"], "port": 80}}  # noqa: E731
    variables = [{**variable, "name": "SPIN_VARIABLE_" + variable["name"].upper()} for variable in spec["variables"]]
    container = {"name": name, "image": spec["image"], "env": variables, "resources": spec.get("resources", {})}
    for kind, of in spec.get("checks", {}).items():
        container[f"{kind}Probe"] = probe(of)
    labels = {"core.spinkube.dev/app-name": name}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            "replicas": spec["replicas"],
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
        },
    }


def main(folder):
    objects = {}
    for file in sorted(Path(folder).glob("*.yaml")):
        for document in yaml.safe_load_all(file.read_text()):
            key = document["kind"], document["metadata"]["name"]
            assert key not in objects, f"{key} appears twice"
            objects[key] = document
            if document["apiVersion"] != "core.spinkube.dev/v1alpha1":
                kubernetes_validate.validate(document, KUBERNETES, strict=True)

    apps = [document for (kind, _), document in objects.items() if kind == "SpinApp"]
    assert len(apps) == 1, "expected one SpinApp"
    [app] = apps
    assert set(app) == {"apiVersion", "kind", "metadata", "spec"}
    check(app["spec"], FIELDS, "spec")
    assert app["spec"]["replicas"] >= 1, "the operator's webhook requires a replica"
    kubernetes_validate.validate(deployment_of(app), KUBERNETES, strict=True)

    executor = objects.get(("SpinAppExecutor", app["spec"]["executor"]))
    assert executor, f"no executor {app['spec']['executor']}"
    check_executor(executor)

    def value_of(entry):
        assert ("value" in entry) != ("valueFrom" in entry), f"{entry['name']} must have either a value or a source"
        if "value" in entry:
            return entry["value"]
        reference = entry["valueFrom"]["secretKeyRef"]
        secret = objects.get(("Secret", reference["name"]))
        assert secret, f"no secret {reference['name']}"
        assert reference["key"] in secret["stringData"], f"{reference['name']} has no {reference['key']}"
        used.add((reference["name"], reference["key"]))
        return secret["stringData"][reference["key"]]

    used = set()
    variables = {variable["name"]: value_of(variable) for variable in app["spec"]["variables"]}
    assert len(variables) == len(app["spec"]["variables"]), "a variable appears twice"
    is_optional = lambda variable: variable.get("valueFrom", {}).get("secretKeyRef", {}).get("optional")  # noqa: E731
    optional = [variable["name"] for variable in app["spec"]["variables"] if is_optional(variable)]
    stores = {
        store["name"]: {"type": store["type"], **{option["name"]: value_of(option) for option in store.get("options", [])}}
        for store in app["spec"].get("runtimeConfig", {}).get("keyValueStores", [])
    }
    for (kind, name), document in objects.items():
        if kind == "Secret":
            unused = {(name, key) for key in document["stringData"]} - used
            assert not unused, f"no variable uses {unused}"
        if kind == "Ingress":
            for rule in document["spec"]["rules"]:
                for path in rule["http"]["paths"]:
                    service = path["backend"]["service"]
                    # The operator creates this Service.
                    assert (service["name"], service["port"]) == (app["metadata"]["name"], {"number": 80}), service
    print(json.dumps({"variables": variables, "optional": optional, "stores": stores}))


if __name__ == "__main__":
    try:
        main(sys.argv[1])
    except (AssertionError, KeyError, kubernetes_validate.ValidationError) as problem:
        sys.exit(f"{type(problem).__name__}: {getattr(problem, 'message', problem)}")
