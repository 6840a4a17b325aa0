"""Clients of other makers ask through a real sidecar as they are: all they know of it is a port."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.sidecar.clients import BIG, in_thread, serving, way_to
from tests.sidecar.conftest import short_folder
from tests.wire.real_servers import CACHE, binary

SENT = b"0123456789abcdef" * 65536  # 1 MiB, more than any buffer on the way
DIGEST = hashlib.sha256(SENT).hexdigest()


@pytest.fixture(scope="module")
def way(shared_agent):
    with in_thread(serving) as app, short_folder() as folder, way_to(app, shared_agent, folder) as found:
        yield found


def said(*command: str | Path, stdin: bytes = b"", **environment: str) -> str:
    """What a program prints; that it prints nothing else and ends well is asserted."""
    plain = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    done = subprocess.run(
        list(map(str, command)), input=stdin, env=plain | environment, capture_output=True, timeout=40, check=False
    )
    assert done.returncode == 0, (done.stdout + done.stderr).decode(errors="replace")
    return done.stdout.decode("latin-1")


# --- curl ---------------------------------------------------------------------------------------------


def curl(*words: str, stdin: bytes = b"", **environment: str) -> str:
    return said("curl", "-sS", "--fail", "--max-time", "20", *words, stdin=stdin, **environment)


def test_curl_with_a_host_header(way):
    answer = json.loads(curl("-H", "Host: api", f"http://127.0.0.1:{way.out}/a/b?c=%20d"))
    assert (answer["method"], answer["path"], answer["query"], answer["host"]) == ("GET", "/a/b", "c=%20d", "api")


def test_curl_with_the_sidecar_as_its_proxy(way):
    answer = json.loads(curl("http://api/a", http_proxy=f"http://127.0.0.1:{way.out}"))
    assert (answer["path"], answer["host"]) == ("/a", "api")
    assert "proxy-connection" not in answer["names"], "meant for the proxy alone"


@pytest.mark.parametrize(
    "words",
    [
        ["--data-binary", "@-"],  # Content-Length, and from 1 MiB on Expect: 100-continue
        ["--data-binary", "@-", "-H", "Expect:"],
        ["-T", "-"],  # chunked
        ["--data-binary", "@-", "--http1.0"],
    ],
    ids=["expect", "length", "chunked", "http1.0"],
)
def test_curl_uploads(way, words):
    answer = json.loads(curl(*words, f"http://127.0.0.1:{way.upstream}/up", stdin=SENT))
    assert (answer["length"], answer["sha256"]) == (len(SENT), DIGEST)


def test_curl_keeps_its_connection(way):
    url = f"http://127.0.0.1:{way.upstream}"
    # A HEAD between them: an answer with a length and no body must not put the next one out of step.
    shown = ["-o", os.devnull, "-w", "%{http_code} %{num_connects} %{size_download}\n"]
    told = curl(
        *shown, f"{url}/big", "--next", "-sS", *shown, "-I", f"{url}/big", "--next", "-sS", *shown, f"{url}/big"
    )
    assert told.splitlines() == [f"200 1 {len(BIG)}", "200 0 0", f"200 0 {len(BIG)}"]


def test_curl_gets_the_bytes_that_were_sent(way):
    for version in ("--http1.1", "--http1.0"):
        assert curl(version, f"http://127.0.0.1:{way.upstream}/big").encode("latin-1") == BIG
        assert json.loads(curl(version, f"http://127.0.0.1:{way.upstream}/chunked"))["path"] == "/chunked"


# --- Node ---------------------------------------------------------------------------------------------

FETCH = """
const [url] = process.argv.slice(1);
const crypto = require("node:crypto");
const sent = Buffer.alloc(1 << 20, "0123456789abcdef");
const pieces = Array.from({ length: 16 }, (_, n) => sent.subarray(n * 65536, (n + 1) * 65536));
const stream = new ReadableStream({ start(to) { pieces.forEach((piece) => to.enqueue(piece)); to.close(); } });
(async () => {
  const told = {};
  told.get = await (await fetch(`${url}/get?a=b`)).json();
  told.post = await (await fetch(`${url}/post`, { method: "POST", body: sent })).json();
  told.stream = await (await fetch(`${url}/stream`, { method: "PUT", body: stream, duplex: "half" })).json();
  const one = async (_, number) => (await (await fetch(`${url}/${number}`)).json()).path;
  told.many = await Promise.all(Array.from({ length: 50 }, one));
  const big = Buffer.from(await (await fetch(`${url}/big`)).arrayBuffer());
  told.big = crypto.createHash("sha256").update(big).digest("hex");
  const early = new AbortController();
  const answer = await fetch(`${url}/big`, { signal: early.signal });
  early.abort();
  told.aborted = await answer.arrayBuffer().then(() => "read to its end", (error) => error.name);
  told.after = (await (await fetch(`${url}/after`)).json()).path;
  console.log(JSON.stringify(told));
})();
"""


def test_fetch_of_node(way):
    """It cannot set Host: the port of one upstream is for it."""
    told = json.loads(said(binary("node"), "-e", FETCH, f"http://127.0.0.1:{way.upstream}"))
    assert (told["get"]["path"], told["get"]["query"]) == ("/get", "a=b")
    for name, method in (("post", "POST"), ("stream", "PUT")):
        found = told[name]
        assert (found["method"], found["length"], found["sha256"]) == (method, len(SENT), DIGEST)
    assert told["many"] == [f"/{number}" for number in range(50)]
    assert told["big"] == hashlib.sha256(BIG).hexdigest()
    assert told["after"] == "/after"
    assert told["aborted"] == "AbortError"


# --- Java ---------------------------------------------------------------------------------------------

JAVA = """
import java.net.*;
import java.net.http.*;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse.BodyHandlers;
import java.util.*;

class Client {
    static String ask(HttpClient client, HttpRequest.Builder request) throws Exception {
        HttpResponse<String> answer = client.send(request.build(), BodyHandlers.ofString());
        return "{\\"status\\": " + answer.statusCode() + ", \\"version\\": \\"" + answer.version() + "\\", \\"body\\": "
            + answer.body() + "}";
    }

    public static void main(String[] ports) throws Exception {
        String url = "http://127.0.0.1:" + ports[0];
        byte[] sent = "0123456789abcdef".repeat(65536).getBytes();
        List<String> told = new ArrayList<>();
        HttpClient plain = HttpClient.newHttpClient();  // asks to go on in HTTP/2: Upgrade: h2c
        told.add(ask(plain, HttpRequest.newBuilder(URI.create(url + "/get"))));
        told.add(ask(plain, HttpRequest.newBuilder(URI.create(url + "/post")).POST(BodyPublishers.ofByteArray(sent))));
        told.add(ask(plain, HttpRequest.newBuilder(URI.create(url + "/chunked")).PUT(
            BodyPublishers.fromPublisher(BodyPublishers.ofByteArray(sent)))));
        HttpClient proxied = HttpClient.newBuilder()
            .version(HttpClient.Version.HTTP_1_1)
            .proxy(ProxySelector.of(new InetSocketAddress("127.0.0.1", Integer.parseInt(ports[1])))).build();
        told.add(ask(proxied, HttpRequest.newBuilder(URI.create("http://api/proxied"))));
        System.out.println(told);
        System.exit(0);  // its threads would linger
    }
}
"""


def test_httpclient_of_java(way, tmp_path):
    java = CACHE / "java/java"
    assert java.exists(), "run `make .cache/java/java`"
    source = tmp_path / "Client.java"
    source.write_text(JAVA)
    quick = ["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"]
    answers = json.loads(said(java, *quick, source, str(way.upstream), str(way.out)))
    assert [(each["status"], each["version"]) for each in answers] == [(200, "HTTP_1_1")] * 4
    get, post, chunked, proxied = (each["body"] for each in answers)
    assert (get["method"], get["path"]) == ("GET", "/get")
    assert not {"upgrade", "http2-settings"} & {*get["names"]}, "an upgrade is of one connection"
    assert [(each["length"], each["sha256"]) for each in (post, chunked)] == [(len(SENT), DIGEST)] * 2
    assert (proxied["path"], proxied["host"]) == ("/proxied", "api")


# --- ab -----------------------------------------------------------------------------------------------


def ab(*words: str) -> str:
    program = CACHE / "ab/ab"
    assert program.exists(), "run `make .cache/ab/ab`"
    return said(program, "-q", *words)


def figure(name: str, text: str) -> int:
    found = re.search(rf"^{name}: +(\d+)", text, re.MULTILINE)
    assert found, text
    return int(found[1])


@pytest.mark.parametrize("way_in", ["upstream", "proxy"])
def test_ab_keeps_its_connections_in_http_1_0(way, way_in):
    port = way.upstream
    words = ["-X", f"127.0.0.1:{way.out}", "http://api/"] if way_in == "proxy" else [f"http://127.0.0.1:{port}/"]
    told = ab("-k", "-n", "200", "-c", "4", *words)
    assert figure("Complete requests", told) == 200
    assert figure("Failed requests", told) == 0
    assert figure("Keep-Alive requests", told) == 200
    assert "Non-2xx" not in told


def test_ab_posts_on_connections_of_their_own(way, tmp_path):
    body = tmp_path / "body"
    body.write_bytes(SENT[:100_000])
    told = ab("-n", "40", "-c", "4", "-p", str(body), "-T", "text/plain", f"http://127.0.0.1:{way.upstream}/post")
    assert (figure("Complete requests", told), figure("Failed requests", told)) == (40, 0)
    assert "Non-2xx" not in told
