"""Telemetry: what a call was, told to whoever listens. Data first, one back end per file, none can break a call.

context.py       the request being served: deadline, trace, peer
threads.py       carries it into threads and pools
propagate.py     W3C headers, pure
tracing.py       begins spans: unrecorded.py without an SDK, else call_spans.py and request_spans.py
carrier.py       between headers and OpenTelemetry's contexts
conventions.py   what spans say of HTTP
requests.py      what a server tells; the core's events tell of calls
metrics.py       counts events with instruments.py; catalogue.py has every name and meaning
prometheus.py    metrics as text, merged over workers
otel.py          metrics through OpenTelemetry
access_log.py    a line per call and request
sinks.py         fan-out of events
"""

from __future__ import annotations

__all__: list[str] = []
