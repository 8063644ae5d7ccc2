"""Parses OpenMetrics from standard input with prometheus_client, which raises an exception if the format is invalid.

Prints the number of metric families and of samples.
"""

import sys

from prometheus_client.openmetrics.parser import text_string_to_metric_families

families = list(text_string_to_metric_families(sys.stdin.read()))
print(len(families), sum(len(family.samples) for family in families))
