"""What the small applications share: a served side with its surroundings, from MESH_* variables as a user sets them."""

from __future__ import annotations

import logging
import sys

from meshsdk.config import load
from meshsdk.discovery.background import Background
from meshsdk.server.server import Server
from meshsdk.telemetry.metrics import Metrics
from meshsdk.telemetry.tracing import Tracing
from meshsdk_registry import Consul

logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(process)d %(name)s: %(message)s")
logging.getLogger("httpx").setLevel(logging.WARNING)

SETTINGS = load({})
METRICS = Metrics()
SERVER = Server(
    SETTINGS,
    background=Background(),
    consul=lambda: Consul(SETTINGS.consul_url),
    policy_versions=lambda: {"payments": "payments@41"},
    metrics=METRICS,
    sink=METRICS.sink,
    tracing=Tracing(),
)
