"""prices: a Flask service with the SDK that asks `orders`, a Node service, what is in stock; spans by OpenTelemetry."""

from __future__ import annotations

import json
import logging

from flask import Flask
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor

from meshsdk import Mesh


def line(span: ReadableSpan) -> str:
    """One span as orders.js writes its own; another exporter would send them to a collector."""
    own, parent = span.get_span_context(), span.parent
    assert own is not None  # only a span that was begun is exported
    told = {
        "trace": f"{own.trace_id:032x}",
        "id": f"{own.span_id:016x}",
        "parent": f"{parent.span_id:016x}" if parent else None,
        "name": f"{span.kind.name} {span.name}",
        "service": "prices",
    }
    return json.dumps({"span": told}) + "\n"


logging.basicConfig(level=logging.INFO)
logging.getLogger("httpx").setLevel(logging.WARNING)  # the access log says more
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(ConsoleSpanExporter(formatter=line)))
trace.set_tracer_provider(provider)

mesh = Mesh("prices")
app = Flask("prices")
mesh.instrument(app)
orders = mesh.client()


@app.get("/price/<int:item>")
def price(item: int) -> dict[str, object]:
    stock = orders.get(f"http://orders/stock/{item}").raise_for_status().json()
    return {"item": item, "price": 100 + item, "caller": mesh.peer(), "stock": stock}
