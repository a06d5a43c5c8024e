"""Reads an OpenMetrics answer and one in Prometheus' text format with the parsers of prometheus_client.

    check_metrics.py OPENMETRICS TEXT

Prints the families as JSON: type, unit and labels by name. Fails if a parser refuses its file, or if the
two files have different families or samples. Values may differ, because each file is a request of its own.
"""

import json
import sys

from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text


def read(parse, path):
    with open(path, encoding="utf-8") as file:
        families = list(parse(file.read()))
    samples = {(sample.name, *sorted(sample.labels.items())) for family in families for sample in family.samples}
    return families, samples


openmetrics, samples = read(parse_openmetrics, sys.argv[1])
text, samples_in_text = read(parse_text, sys.argv[2])
if {(family.name, family.type, family.documentation) for family in openmetrics} != {
    (family.name, family.type, family.documentation) for family in text
}:
    sys.exit(f"different families: {openmetrics} {text}")
# The text format has no place for the time at which counting began.
samples = {sample for sample in samples if not sample[0].endswith("_created")}
if samples != samples_in_text:
    sys.exit(f"different samples: {samples ^ samples_in_text}")


def labels(family):
    return sorted({name for sample in family.samples for name in sample.labels} - {"le"})


print(json.dumps({family.name: [family.type, family.unit, labels(family)] for family in openmetrics}))
