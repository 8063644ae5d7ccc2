"""Reads OpenMetrics from standard input with the parser of prometheus_client, which raises where the format is broken.

Prints how many families of metrics and how many samples there are.
"""

import sys

from prometheus_client.openmetrics.parser import text_string_to_metric_families

families = list(text_string_to_metric_families(sys.stdin.read()))
print(len(families), sum(len(family.samples) for family in families))
