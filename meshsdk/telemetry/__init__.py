"""Telemetry: what a call was, told to whoever listens. Data first, one back end per file, none can break a call.

context.py      the request being served: deadline, trace, peer          threads.py    … carried into threads
propagate.py    W3C headers, pure                                        tracing.py    spans, when an SDK records
metrics.py      what is counted, from events                             instruments.py  counters and histograms
prometheus.py   text exposition, merged over workers                     otel.py       the same as OpenTelemetry
access_log.py   a line per call and request                              sinks.py      fan-out of events
"""

from __future__ import annotations

__all__: list[str] = []
