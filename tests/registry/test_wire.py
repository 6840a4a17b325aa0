"""The dev agent answers byte for byte what Consul 1.8.7 answers, where a client can tell."""

from __future__ import annotations

import base64
import json
import random

import httpx
import pytest

NOBODY = "00000000-0000-4000-8000-000000000000"

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
    ("GET", "/v1/agent/connect/ca/leaf/", "", 500, "URI must be either service or agent"),
    ("GET", "/v1/agent/connect/ca/leaf/web?index=x", "", 400, "Invalid index"),
    ("GET", "/v1/agent/connect/ca/leaf/web?dc=none", "", 500, "No path to datacenter"),
    ("PUT", "/v1/connect/ca/roots", "", 405, "method PUT not allowed"),
    ("POST", "/v1/connect/ca/configuration", "{}", 405, "method POST not allowed"),
    ("PUT", "/v1/connect/ca/configuration", "{", 400, "Bad request: Request decode failed: unexpected EOF"),
    ("PUT", "/v1/connect/ca/configuration", "{}", 500, 'could not initialize provider: unknown CA provider ""'),
    (
        "PUT", "/v1/connect/ca/configuration", '{"Provider":"consul","Bogus":1}', 400,
        'Bad request: Request decode failed: json: unknown field "Bogus"',
    ),
    (
        "PUT", "/v1/connect/ca/configuration", '{"Provider":"consul","Config":{"PrivateKey":"x"}}', 500,
        'error generating CA root certificate: error generating CA: error parsing private key "x": no PEM-encoded data'
        " found",
    ),
    (
        "PUT", "/v1/connect/ca/configuration", '{"Provider":"consul","Config":{"LeafCertTTL":"x"}}', 500,
        "error configuring provider: error decoding config: 1 error(s) decoding:\n\n"
        "* error decoding 'LeafCertTTL': time: invalid duration \"x\"",
    ),
    (
        "PUT", "/v1/connect/ca/configuration", '{"Provider":"consul","Config":{"LeafCertTTL":"9000h"}}', 500,
        "error configuring provider: leaf cert TTL must be less than 8760h0m0s",
    ),
    ("PUT", "/v1/agent/connect/authorize", "{}", 405, "method PUT not allowed"),
    ("POST", "/v1/agent/connect/authorize", "{", 400, "Bad request: Request decode failed: unexpected EOF"),
    ("POST", "/v1/agent/connect/authorize", "{}", 400, "Bad request: Target service must be specified"),
    (
        "POST", "/v1/agent/connect/authorize", '{"Target":"db","Bogus":1}', 400,
        'Bad request: Request decode failed: json: unknown field "Bogus"',
    ),
    *(
        (
            "POST", "/v1/agent/connect/authorize", json.dumps({"Target": "db", "ClientCertURI": uri}), 400,
            f"Bad request: ClientCertURI not a valid {kind} identifier",
        )
        for uri, kind in [
            ("", "Connect"), ("x", "Connect"), ("http://a.consul/ns/default/dc/dc1/svc/web", "Connect"),
            ("spiffe://a.consul/x", "Connect"), ("spiffe://a.consul", "Service"),
        ]
    ),
    ("POST", "/v1/connect/intentions", "{", 500, "Failed to decode request body: unexpected EOF"),
    (
        "POST", "/v1/connect/intentions", "{}", 500,
        "3 errors occurred:\n\t* SourceName must be set\n\t* DestinationName must be set\n"
        "\t* Action must be set to 'allow' or 'deny'",
    ),
    (
        "POST", "/v1/connect/intentions", '{"Permissions":[]}', 500,
        'Failed to decode request body: json: unknown field "Permissions"',
    ),
    ("POST", "/v1/connect/intentions", '{"ID":"x"}', 500, "ID must be empty when creating a new intention"),
    (
        "POST", "/v1/connect/intentions", '{"SourceName":1}', 500,
        "Failed to decode request body: json: cannot unmarshal number into Go struct field .SourceName of type string",
    ),
    (
        "POST", "/v1/connect/intentions", '{"Meta":{"a":1}}', 500,
        "Failed to decode request body: json: cannot unmarshal number into Go struct field .Meta of type string",
    ),
    (
        "POST", "/v1/connect/intentions",
        '{"SourceName":"a*","DestinationName":"b","SourceType":"x","Action":"deny"}', 500,
        "2 errors occurred:\n\t* SourceName: wildcard character '*' cannot be used with partial values\n"
        "\t* SourceType must be set to 'consul'",
    ),
    (
        "POST", "/v1/connect/intentions",
        '{"SourceName":"a","DestinationNS":"*","DestinationName":"b","Action":"deny"}', 500,
        "1 error occurred:\n\t* DestinationName: exact value cannot follow wildcard namespace",
    ),
    ("PUT", "/v1/connect/intentions", "{}", 405, "method PUT not allowed"),
    ("GET", "/v1/connect/intentions?dc=none", "", 500, "No path to datacenter"),
    *(
        (
            verb, f"/v1/connect/intentions/{key}", '{"SourceName":"n","DestinationName":"o","Action":"deny"}',
            status, text,
        )
        for verb, status, start in [
            ("GET", 400, "Bad request: "), ("PUT", 500, "Intention lookup failed: "),
            ("DELETE", 500, "Intention lookup failed: "),
        ]
        for key, text in [
            ("x", f"{start}failed intention lookup: index error: UUID must be 36 characters"),
            (
                "x" * 36, f"{start}failed intention lookup: index error: Invalid UUID: encoding/hex: invalid byte:"
                " U+0078 'x'",
            ),
        ]
    ),
    ("GET", f"/v1/connect/intentions/{NOBODY}", "", 404, "Intention not found"),
    (
        "PUT", f"/v1/connect/intentions/{NOBODY}", '{"SourceName":"n","DestinationName":"o","Action":"deny"}', 500,
        f"Cannot modify non-existent intention: '{NOBODY}'",
    ),
    ("DELETE", f"/v1/connect/intentions/{NOBODY}", "", 500, f"Cannot delete non-existent intention: '{NOBODY}'"),
    ("PUT", f"/v1/connect/intentions/{NOBODY}", "{", 400, "Bad request: Request decode failed: unexpected EOF"),
    ("POST", f"/v1/connect/intentions/{NOBODY}", "{}", 405, "method POST not allowed"),
    ("POST", "/v1/connect/intentions/match", "", 405, "method POST not allowed"),
    ("GET", "/v1/connect/intentions/match?name=web", "", 500, "required query parameter 'by' not set"),
    ("GET", "/v1/connect/intentions/match?by=source", "", 500, "required query parameter 'name' not set"),
    (
        "GET", "/v1/connect/intentions/match?by=x&name=web", "", 500,
        "'by' parameter must be one of 'source' or 'destination'",
    ),
    ("GET", "/v1/connect/intentions/check?source=web", "", 500, "required query parameter 'destination' not set"),
    (
        "GET", "/v1/connect/intentions/check?source=a&destination=b&source-type=x", "", 500,
        'unsupported SourceType: "x"',
    ),
]  # fmt: skip


@pytest.mark.parametrize("case", REQUESTS, ids=lambda case: f"{case[0]} {case[1]} {case[2][:40]}")
def test_refusals_and_empty_answers(server, case):
    method, path, body, status, text = case
    answer = httpx.request(method, server.url + path, content=body, trust_env=False)
    assert (answer.status_code, answer.text.strip()) == (status, text)


@pytest.mark.parametrize(
    "path",
    [
        "/v1/health/service/none",
        "/v1/catalog/services",
        "/v1/kv/none",
        "/v1/catalog/nodes",
        "/v1/connect/intentions",
    ],
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


@pytest.mark.parametrize("path", ["/v1/agent/connect/ca/leaf/web", "/v1/agent/connect/ca/roots"])
def test_identities_have_the_fields_of_consul(real_consul, dev_agent, path):
    real, ours = (httpx.get(server.url + path, trust_env=False) for server in (real_consul, dev_agent))
    assert int(ours.headers["X-Consul-Index"]) >= 1
    assert _shape(ours.json()) == _shape(real.json())


def _shape(value):
    if isinstance(value, dict):
        return {key: _shape(one) for key, one in value.items()}
    return [_shape(one) for one in value] if isinstance(value, list) else type(value)


def test_roots_are_given_as_pem(server):
    answer = httpx.get(f"{server.url}/v1/connect/ca/roots?pem=true", trust_env=False)
    assert answer.headers["content-type"].startswith("application/pem-certificate-chain")
    assert answer.text.startswith("-----BEGIN CERTIFICATE-----")


def test_an_intention_has_the_fields_of_consul(real_consul, dev_agent, name):
    shapes = []
    for server in (real_consul, dev_agent):
        with httpx.Client(base_url=server.url, trust_env=False) as http:
            made = http.post(
                "/v1/connect/intentions",
                json={"SourceName": "a", "DestinationName": name, "Action": "allow", "Meta": {"a": "b"}},
            )
            (key,) = made.json().values()
            shapes.append((set(made.json()), _shape(http.get(f"/v1/connect/intentions/{key}").json())))
    assert shapes[0] == shapes[1]


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
