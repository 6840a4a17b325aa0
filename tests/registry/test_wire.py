"""The dev agent answers byte for byte what Consul 1.8.7 answers, where a client can tell."""

from __future__ import annotations

import base64
import json
import random

import httpx
import pytest

REQUESTS = [
    ("PUT", "/v1/agent/check/pass/service:nope", "", 500, 'CheckID "service:nope" does not have associated TTL'),
    (
        "PUT", "/v1/agent/check/update/service:nope", '{"Status":"passing"}', 500,
        'CheckID "service:nope" does not have associated TTL',
    ),
    ("PUT", "/v1/agent/check/update/service:nope", '{"Status":"odd"}', 400, "Invalid check status: 'odd'"),
    ("PUT", "/v1/agent/check/update/service:nope", "{", 400, "Request decode failed: unexpected EOF"),
    ("PUT", "/v1/agent/service/deregister/nope", "", 200, ""),
    ("PUT", "/v1/agent/service/maintenance/nope?enable=true", "", 404, 'No service registered with ID "nope"'),
    ("PUT", "/v1/agent/service/maintenance/nope", "", 400, "Missing value for enable"),
    ("PUT", "/v1/agent/service/register", "{", 400, "Request decode failed: unexpected EOF"),
    ("PUT", "/v1/agent/service/register", '{"ID":"x"}', 400, "Missing service name"),
    (
        "PUT", "/v1/agent/service/register", '{"Name":"x","Bogus":1}', 400,
        'Request decode failed: json: unknown field "Bogus"',
    ),
    (
        "PUT", "/v1/agent/service/register", '{"Name":"x","Port":"80"}', 400,
        "Request decode failed: json: cannot unmarshal string into Go struct field .Port of type int",
    ),
    (
        "PUT", "/v1/agent/service/register", '{"Name":"x","Check":{"Name":"c"}}', 400,
        "Invalid check: TTL must be > 0 for TTL checks",
    ),
    (
        "PUT", "/v1/agent/service/register", '{"Name":"x","Weights":{"Passing":0,"Warning":0}}', 400,
        "Invalid Weights: Passing must be greater than 0",
    ),
    ("GET", "/v1/agent/service/register", "", 405, "method GET not allowed"),
    ("PUT", "/v1/catalog/register", '{"Node":"n2"}', 500, "Must provide address if SkipNodeUpdate is not set"),
    (
        "PUT", "/v1/catalog/register", '{"Node":"n2","Address":"1.1.1.1","Check":{"CheckID":"c","ServiceID":"z"}}', 500,
        'failed inserting check: Missing service registration on node "n2"',
    ),
    ("PUT", "/v1/catalog/deregister", '{"Node":"n-none"}', 200, "true"),
    ("GET", "/v1/catalog/service/", "", 400, "Missing service name"),
    ("GET", "/v1/health/service/", "", 400, "Missing service name"),
    ("GET", "/v1/health/service/none", "", 200, "[]"),
    ("GET", "/v1/kv/", "", 400, "Missing key name"),
    ("PUT", "/v1/kv/", "1", 400, "Missing key name"),
    ("POST", "/v1/kv/a", "1", 405, "method POST not allowed"),
    ("PUT", "/v1/kv/none?cas=77", "1", 200, "false"),
    ("PUT", "/v1/kv/none?cas=x", "1", 500, 'strconv.ParseUint: parsing "x": invalid syntax'),
    ("PUT", "/v1/kv/none?flags=x", "1", 500, 'strconv.ParseUint: parsing "x": invalid syntax'),
    ("DELETE", "/v1/kv/none", "", 200, "true"),
    ("DELETE", "/v1/kv/none?cas=0", "", 200, "true"),
    ("GET", "/v1/kv/none", "", 404, ""),
    ("GET", "/v1/kv/none?recurse", "", 404, ""),
    ("GET", "/v1/kv/none?keys", "", 404, ""),
    ("GET", "/v1/kv/a?index=x", "", 400, "Invalid index"),
    ("GET", "/v1/kv/a?index=-1", "", 400, "Invalid index"),
    ("GET", "/v1/kv/a?wait=x", "", 400, "Invalid wait time"),
    ("GET", "/v1/kv/a?index=1&wait=5", "", 400, "Invalid wait time"),
    ("GET", "/v1/kv/a?stale&consistent", "", 400, "Cannot specify ?stale with ?consistent, conflicting semantics."),
    ("GET", "/v1/kv/a?dc=none", "", 500, "No path to datacenter"),
    (
        "PUT", "/v1/txn", json.dumps([{"KV": {"Verb": "set", "Key": "a"}}] * 65), 413,
        "Transaction contains too many operations (65 > 64)",
    ),
    ("GET", "/v1/none", "", 404, ""),
]  # fmt: skip


@pytest.mark.parametrize("case", REQUESTS, ids=lambda case: f"{case[0]} {case[1]}")
def test_refusals_and_empty_answers(server, case):
    method, path, body, status, text = case
    answer = httpx.request(method, server.url + path, content=body, trust_env=False)
    assert (answer.status_code, answer.text.strip()) == (status, text)


@pytest.mark.parametrize(
    "path", ["/v1/health/service/none", "/v1/catalog/services", "/v1/kv/none", "/v1/catalog/nodes"]
)
def test_reads_carry_the_headers_of_a_blocking_query(server, path):
    headers = httpx.get(server.url + path, trust_env=False).headers
    assert int(headers["X-Consul-Index"]) >= 1
    assert (headers["X-Consul-KnownLeader"], headers["X-Consul-LastContact"]) == ("true", "0")


def test_a_value_may_be_read_raw(server, name):
    with httpx.Client(base_url=server.url, trust_env=False) as http:
        http.put(f"/v1/kv/{name}", content=b"\x00\xff")
        assert http.get(f"/v1/kv/{name}?raw").content == b"\x00\xff"


def test_keys_are_listed_up_to_a_separator(server, name):
    with httpx.Client(base_url=server.url, trust_env=False) as http:
        for key in ("b", "c/d", "c/e"):
            http.put(f"/v1/kv/{name}/{key}", content=b"1")
        listed = http.get(f"/v1/kv/{name}/?keys&separator=/").json()
        assert listed == [f"{name}/b", f"{name}/c/"]
        assert len(http.get(f"/v1/kv/{name}/?keys").json()) == 3
        http.delete(f"/v1/kv/{name}/?recurse")
        assert http.get(f"/v1/kv/{name}/?keys").status_code == 404


def test_health_has_the_fields_of_consul(real_consul, dev_agent):
    body = {"Name": "shape", "ID": "s1", "Port": 1, "Address": "10.0.0.1", "Check": {"TTL": "10s", "Name": "hb"}}
    shapes = []
    for server in (real_consul, dev_agent):
        with httpx.Client(base_url=server.url, trust_env=False) as http:
            http.put("/v1/agent/service/register", json=body).raise_for_status()
            (entry,) = http.get("/v1/health/service/shape").json()
            local = http.get("/v1/agent/services").json()["s1"]
            (listed,) = http.get("/v1/catalog/service/shape").json()
            shapes.append([set(part) for part in (entry["Node"], entry["Service"], *entry["Checks"], local, listed)])
            http.put("/v1/agent/service/deregister/s1")
    real, ours = shapes
    for expected, shown in zip(real, ours, strict=True):
        assert {name for name in expected - shown if "TaggedAddresses" not in name} == set()


def test_the_same_writes_lead_to_the_same_keys(real_consul, dev_agent, name):
    rng = random.Random(20)
    with (
        httpx.Client(base_url=real_consul.url, trust_env=False) as real,
        httpx.Client(base_url=dev_agent.url, trust_env=False) as ours,
    ):
        for _ in range(300):
            step = _step(rng, name)
            answers = [_apply(http, step, name) for http in (real, ours)]
            assert answers[0] == answers[1], step


def _step(rng, name):
    key = f"{name}/{rng.choice(['a', 'b', 'b/c', 'b/d'])}"
    verb = rng.choice(["put", "put", "create", "cas", "stale", "delete", "tree", "txn", "txn-cas", "raw-none"])
    return verb, key, rng.choice(["", "1", "2"])


def _apply(http, step, name):
    verb, key, value = step
    now = http.get(f"/v1/kv/{key}")
    index = now.json()[0]["ModifyIndex"] if now.status_code == 200 else 0
    encoded = base64.b64encode(value.encode()).decode()
    if verb in {"put", "create", "cas", "stale"}:
        cas = {"put": "", "create": "?cas=0", "cas": f"?cas={index}", "stale": f"?cas={index + 10**9}"}[verb]
        answer = http.put(f"/v1/kv/{key}{cas}", content=value)
    elif verb == "delete":
        answer = http.delete(f"/v1/kv/{key}")
    elif verb == "tree":
        answer = http.delete(f"/v1/kv/{key}?recurse")
    else:
        second = {"Verb": "cas" if verb == "txn-cas" else "get", "Key": key, "Index": index, "Value": encoded}
        steps = [{"KV": {"Verb": "set", "Key": f"{name}/a", "Value": encoded}}, {"KV": second}]
        answer = http.put("/v1/txn", json=steps)
    after = http.get(f"/v1/kv/{name}/?recurse")
    entries = [(e["Key"], e["Value"], e["Flags"]) for e in after.json()] if after.status_code == 200 else None
    body = answer.json()
    results = [(r["KV"]["Key"], r["KV"]["Value"]) for r in body["Results"] or []] if isinstance(body, dict) else body
    errors = body["Errors"] if isinstance(body, dict) else None
    return answer.status_code, results, errors, entries, after.headers["X-Consul-Index"] != "0"
