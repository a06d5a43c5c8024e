"""Reads a dashboard with Grafana's own SDK and prints its expressions, one a line.

    check_dashboard.py FILE

Fails if the SDK does not know a field: it drops the field when it writes the dashboard again.
"""

import json
import sys

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard


def lost(before, after, place):
    """Places whose value differs after the SDK. The SDK may add defaults."""
    if isinstance(before, dict) and isinstance(after, dict):
        for name, value in before.items():
            yield from lost(value, after.get(name), f"{place}.{name}")
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for number, pair in enumerate(zip(before, after)):
            yield from lost(*pair, f"{place}[{number}]")
    elif before != after:
        yield f"{place}: {before!r} became {after!r}"


register_default_plugins()
with open(sys.argv[1], encoding="utf-8") as file:
    dashboard = json.load(file)
written = json.loads(json.dumps(Dashboard.from_json(dashboard), cls=JSONEncoder))
problems = list(lost(dashboard, written, "dashboard"))
if problems:
    sys.exit("\n".join(problems))
for panel in dashboard["panels"]:
    for target in panel["targets"]:
        print(target["expr"])
