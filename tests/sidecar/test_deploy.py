"""sidecar/deploy: files have only fields that their readers know, refer to what is there, and give the end its time."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from meshsdk.config import load as settings
from meshsdk_sidecar.file import load
from meshsdk_sidecar.gateway.file import load as load_gateway
from tests.sidecar.gateway.issuing import Issuer

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "sidecar" / "deploy"
IMAGE = "python:3.11-slim-trixie"


def text(name: str) -> str:
    return (DEPLOY / name).read_text()


def time_to_end(folder: Path, config: str) -> float:
    """Seconds that the sidecar of this file may take to end; that the file is good is asserted on the way."""
    file = folder / "sidecar.yaml"
    file.write_text(config)
    found = load(file)
    assert found.service.health.http, "an app that is restarted must be able to say so"
    plain = settings({"service": "a"}, {})
    wait = plain.drain_wait if found.drain.wait is None else found.drain.wait
    timeout = plain.drain_timeout if found.drain.timeout is None else found.drain.timeout
    return wait + timeout + found.drain.app


def seconds(written: str) -> int:
    return int(re.fullmatch(r"(\d+)s", written)[1])


def known(found: dict[str, object], names: str, where: str) -> None:
    assert found.keys() <= {*names.split()}, f"{where}: {found.keys() - {*names.split()}}"


# --- systemd ------------------------------------------------------------------------------------------

UNIT = {
    "Unit": "Description Documentation Wants After",
    "Service": "Type NotifyAccess EnvironmentFile Environment ExecStart ExecReload Restart RestartForceExitStatus "
    "RestartSec SuccessExitStatus KillMode TimeoutStopSec DynamicUser SupplementaryGroups StateDirectory "
    "RuntimeDirectory LimitNOFILE NoNewPrivileges PrivateTmp ProtectSystem ProtectHome AmbientCapabilities "
    "CapabilityBoundingSet RestrictAddressFamilies",
    "Install": "WantedBy",
}
UNITS = ["meshsdk@.service", "meshsdk-gateway.service"]


def unit(name: str) -> dict[str, str]:
    """What stands under [Service]; that the rest is known is asserted on the way."""
    sections: dict[str, dict[str, str]] = {}
    for line in text(name).splitlines():
        if line.startswith("["):
            section = sections.setdefault(line.strip("[]"), {})
        elif line and not line.startswith("#"):
            key, mark, value = line.partition("=")
            assert mark, line
            assert key not in section, f"{key} twice"
            section[key] = value
    assert sections.keys() == UNIT.keys()
    for section_name, names in UNIT.items():
        known(sections[section_name], names, section_name)
    return sections["Service"]


def run_by(command: str) -> list[str]:
    program, *words = shlex.split(command)
    assert program.startswith("/"), "systemd wants the whole path"
    return words


@pytest.mark.parametrize("name", UNITS)
def test_a_unit_is_ready_when_its_process_says_so_and_has_folders_of_its_own(name):
    service = unit(name)
    assert service["KillMode"] == "mixed", "what it has started is its own to tell"
    assert (service["Type"], service["NotifyAccess"]) == ("notify", "main")
    folders = dict(each.split("=") for each in service["Environment"].split())
    assert folders["MESH_STATE_DIR"] == f"%S/{service['StateDirectory']}"
    assert folders["MESH_RUNTIME_DIR"] == f"%t/{service['RuntimeDirectory']}"


def test_the_sidecars_unit_gives_the_drain_its_time(tmp_path):
    service = unit("meshsdk@.service")
    assert seconds(service["TimeoutStopSec"]) > time_to_end(tmp_path, text("sidecar.yaml"))
    assert run_by(service["ExecStart"]) == ["sidecar", "-c", "/etc/meshsdk/%i.yaml", "--exec", "--", "$APP"]
    assert service["SuccessExitStatus"] == str(128 + signal.SIGTERM), "one that ends when it is told has not failed"
    assert service["RestartForceExitStatus"] == service["SuccessExitStatus"], "where nobody told it, it is to go on"


def test_the_gateways_unit_gives_the_drain_its_time_and_may_listen(tmp_path):
    file = tmp_path / "gateway.yaml"
    Issuer(tmp_path).issue("shop", "shop.example.com")
    file.write_text(re.sub(r"/etc/ssl/(certs|private)", str(tmp_path), text("gateway.yaml")))
    found = load_gateway(file)
    service = unit("meshsdk-gateway.service")
    assert seconds(service["TimeoutStopSec"]) > found.drain.wait + found.drain.timeout
    ports = {found.listeners.https.port, found.listeners.http.port}
    assert ports == {443, 80}
    assert service["AmbientCapabilities"] == service["CapabilityBoundingSet"] == "CAP_NET_BIND_SERVICE"


def test_a_reload_of_the_gateways_unit_replaces_what_was_started(tmp_path):
    service = unit("meshsdk-gateway.service")
    started = run_by(service["ExecStart"])
    assert started == ["gateway", "-c", "/etc/meshsdk/gateway.yaml"]
    assert run_by(service["ExecReload"]) == ["-c", f"exec {service['ExecStart']} --replace &"]
    subprocess.run(["/bin/sh", "-n", "-c", run_by(service["ExecReload"])[1]], check=True)


@pytest.mark.parametrize("name", UNITS)
def test_systemd_takes_a_unit_where_it_is_installed(tmp_path, name):
    """Elsewhere the tests above have said what can be said without it."""
    verifier = shutil.which("systemd-analyze")
    if verifier is None:
        return
    copy = tmp_path / name.replace("@", "@legacy")
    copy.write_text(text(name).replace("/opt/meshsdk/bin/meshsdk", shutil.which("env")))
    done = subprocess.run([verifier, "verify", "--man=no", str(copy)], capture_output=True, text=True, check=False)
    about = [line for line in done.stderr.splitlines() if "meshsdk" in line]
    assert not about, about


# --- Docker -------------------------------------------------------------------------------------------


def test_the_image_has_all_that_is_installed():
    lines = re.sub(r"\\\n", " ", text("Dockerfile")).splitlines()
    steps = [tuple(line.split(maxsplit=1)) for line in lines if line and not line.startswith("#")]
    assert {name for name, _ in steps} <= {"FROM", "WORKDIR", "COPY", "RUN", "USER", "ENV", "ENTRYPOINT", "CMD"}
    stages = [rest.split(" AS ") for name, rest in steps if name == "FROM"]
    assert {image for image, *_ in stages} == {IMAGE}
    copied = [rest.split()[:-1] for name, rest in steps if name == "COPY" and not rest.startswith("--from=")]
    sources = [source for each in copied for source in each]
    assert all((ROOT / source).exists() for source in sources)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    assert {package.split("/")[0] for package in packages} <= {*sources}
    assert {"pyproject.toml", project["project"]["readme"]} <= {*sources}
    assert re.search(r"pip install .*'\.\[sidecar\]'", text("Dockerfile"))
    assert "sidecar" in project["project"]["optional-dependencies"]
    of = {name: rest for name, rest in steps if name in {"USER", "ENTRYPOINT", "CMD"}}
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", of["USER"]), "a number, which runAsNonRoot can judge; not root"
    assert (of["ENTRYPOINT"], of["CMD"]) == ('["meshsdk", "sidecar"]', '["-c", "/etc/meshsdk/sidecar.yaml"]')


SERVICE = "image build command configs ports init restart network_mode depends_on stop_grace_period environment volumes"


def test_compose_stops_the_sidecar_first(tmp_path):
    found = yaml.safe_load(text("compose.yaml"))
    known(found, "services configs volumes", "compose.yaml")
    for name, service in found["services"].items():
        known(service, f"{SERVICE} healthcheck", name)
        assert ("image" in service) != ("build" in service)
        assert service.get("image", IMAGE) == IMAGE
        assert {each["source"] for each in service.get("configs", ())} <= found["configs"].keys()
        assert {each.split(":")[0] for each in service.get("volumes", ())} <= found["volumes"].keys()
    sidecar = found["services"]["sidecar"]
    (beside,) = sidecar["depends_on"]
    assert sidecar["network_mode"] == f"service:{beside}"
    assert "ports" not in sidecar, "they are those of the network's owner"
    assert seconds(sidecar["stop_grace_period"]) > time_to_end(tmp_path, found["configs"]["sidecar"]["content"])
    assert (DEPLOY / sidecar["build"]["context"]).resolve() == ROOT
    assert (ROOT / sidecar["build"]["dockerfile"]) == DEPLOY / "Dockerfile"
    compile(found["configs"]["app"]["content"], "app.py", "exec")
    compile(sidecar["healthcheck"]["test"][-1], "healthcheck", "exec")
    settings({"service": "a"}, dict.fromkeys(sidecar["environment"], "http://10.0.0.1:8500"))


# --- Nomad --------------------------------------------------------------------------------------------

BLOCKS = {
    "": "job",
    "job": "type update group",
    "update": "max_parallel health_check min_healthy_time",
    "group": "count network task",
    "network": "port",
    "port": "",
    "task": "driver config env template kill_signal kill_timeout resources",
    "config": "command args",
    "env": "PORT SIDECAR_PORT MESH_ADDRESS MESH_STATE_DIR MESH_RUNTIME_DIR CONSUL_HTTP_ADDR",
    "template": "destination change_mode data",
    "resources": "cpu memory",
}


def hcl(lines: list[str], kind: str = "") -> dict[str, object]:
    """The part of HCL that the job is written in: blocks, one attribute a line, indented heredocs."""
    found: dict[str, object] = {}
    while lines:
        line = re.sub(r"\s# .*$", "", lines.pop(0)).strip()
        if line == "}":
            assert kind
            return found
        if not line or line.startswith("#"):
            continue
        if block := re.fullmatch(r'(\w+)((?: "\w+")*) \{(\})?', line):
            name = " ".join([block[1], *re.findall(r'"(\w+)"', block[2])])
            found[name] = {} if block[3] else hcl(lines, block[1])
        else:
            key, value = re.fullmatch(r"(\w+) += (.+)", line).groups()
            if heredoc := re.fullmatch(r"<<-(\w+)", value):
                end = next(number for number, each in enumerate(lines) if each.strip() == heredoc[1])
                indent = len(lines[0]) - len(lines[0].lstrip())
                found[key] = "\n".join(each[indent:] for each in lines[:end])
                del lines[: end + 1]
            else:
                found[key] = yaml.safe_load(value)
        assert [*found][-1].split()[0] in BLOCKS[kind].split(), f"{[*found][-1]} in {kind or 'the file'}"
    assert not kind, f"{kind} is not closed"
    return found


def test_nomad_waits_for_the_drain_and_every_port_is_asked_for(tmp_path):
    job = hcl(text("nomad.hcl").splitlines())["job legacy"]
    group = job["group legacy"]
    task = group["task legacy"]
    ports = {name.split()[1] for name in group["network"]}
    assert {*re.findall(r"NOMAD_PORT_(\w+)", text("nomad.hcl"))} == ports
    numbers = iter(range(20000, 21000))
    data = re.sub(r'\{\{ env "NOMAD_PORT_\w+" \}\}', lambda _: str(next(numbers)), task["template"]["data"])
    assert "{{" not in data
    assert time_to_end(tmp_path, data) < seconds(task["kill_timeout"]) < 30, "clients give no more by themselves"
    assert task["config"]["args"][:2] == ["sidecar", "-c"]
    assert task["config"]["args"][3:5] == ["--exec", "--"]
    assert task["template"]["destination"] == "local/sidecar.yaml", "which is in NOMAD_TASK_DIR"
    assert task["kill_signal"] == "SIGTERM"


def test_the_reader_of_hcl_refuses_what_is_wrong():
    good = text("nomad.hcl")
    for wrong in (good.replace("kill_signal ", "kill_sig "), good.rstrip()[:-1], good.replace("count = 3", "count 3")):
        with pytest.raises((AssertionError, AttributeError)):
            hcl(wrong.splitlines())


# --- Kubernetes ---------------------------------------------------------------------------------------

CONTAINER = (
    "name image restartPolicy args env ports startupProbe livenessProbe readinessProbe lifecycle resources "
    "securityContext volumeMounts"
)
PROBE = "httpGet periodSeconds failureThreshold timeoutSeconds"


def test_kubernetes_tells_callers_before_the_service_ends(tmp_path):
    config, deployment = yaml.safe_load_all(text("kubernetes.yaml"))
    assert [(each["apiVersion"], each["kind"]) for each in (config, deployment)] == [
        ("v1", "ConfigMap"),
        ("apps/v1", "Deployment"),
    ]
    known(deployment["spec"], "replicas selector strategy template", "spec")
    template = deployment["spec"]["template"]
    assert deployment["spec"]["selector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
    pod = template["spec"]
    known(pod, "terminationGracePeriodSeconds initContainers containers volumes", "the pod")
    (sidecar,), (app,) = pod["initContainers"], pod["containers"]
    for container in (sidecar, app):
        known(container, CONTAINER, container["name"])
    assert sidecar["restartPolicy"] == "Always", "else the service would never start"
    notice = app["lifecycle"]["preStop"]["sleep"]["seconds"]
    (name, file), *_ = config["data"].items()
    needed = time_to_end(tmp_path, file)
    assert notice + needed < pod["terminationGracePeriodSeconds"]
    written = load(tmp_path / name)
    assert written.drain.wait < notice
    ports = {each["name"]: each["containerPort"] for each in sidecar["ports"]}
    assert ports == {"inbound": written.inbound.port, "probes": written.probes.port}
    for probe, page in (("startupProbe", "/live"), ("livenessProbe", "/live"), ("readinessProbe", "/ready")):
        known(sidecar[probe], PROBE, probe)
        assert sidecar[probe]["httpGet"] == {"path": page, "port": "probes"}
    annotations = template["metadata"]["annotations"]
    assert annotations["prometheus.io/port"] == str(written.probes.port)
    assert sidecar["args"] == ["-c", f"{sidecar['volumeMounts'][0]['mountPath']}/{name}"]


def test_kubernetes_volumes_and_the_drain_hook_fit_the_image():
    config, deployment = yaml.safe_load_all(text("kubernetes.yaml"))
    pod = deployment["spec"]["template"]["spec"]
    (sidecar,) = pod["initContainers"]
    volumes = {each["name"]: each for each in pod["volumes"]}
    assert {each["name"] for each in sidecar["volumeMounts"]} == volumes.keys()
    assert volumes["config"]["configMap"]["name"] == config["metadata"]["name"]
    writable = [each["mountPath"] for each in sidecar["volumeMounts"] if not each.get("readOnly")]
    assert {*writable} == {*re.findall(r"MESH_\w+_DIR=(\S+)", text("Dockerfile"))}, "the root is read-only"
    program, flag, code = sidecar["lifecycle"]["preStop"]["exec"]["command"]
    assert (program, flag) == ("python", "-c")
    compile(code, "preStop", "exec")
    load_admin = "http://127.0.0.1:15000/drain"
    assert load_admin in code


def test_the_readme_names_every_file():
    assert {*re.findall(r"`([\w@.-]+)`", text("README.md"))} >= {
        each.name for each in DEPLOY.iterdir() if each.name != "README.md"
    }


# --- the order of ciphers -----------------------------------------------------------------------------

UPSTREAM = """
openssl_conf = openssl_init
[openssl_init]
providers = provider_sect
[provider_sect]
default = default_sect
[default_sect]
activate = 1
"""
SECURE = """
openssl_conf = policy
[policy]
ssl_conf = policy_tls
[policy_tls]
system_default = policy_default
[policy_default]
Ciphersuites = TLS_AES_256_GCM_SHA384
"""


@pytest.mark.parametrize(
    ("theirs", "first"),
    [
        (None, "TLS_AES_128_GCM_SHA256"),
        ("", "TLS_AES_128_GCM_SHA256"),
        (UPSTREAM, "TLS_AES_128_GCM_SHA256"),
        (SECURE, "TLS_AES_256_GCM_SHA384"),
    ],
    ids=["no file", "an empty one", "OpenSSL's own", "one that decides"],
)
def test_aes_128_comes_first_unless_the_system_says_otherwise(tmp_path, theirs, first):
    system, ours = tmp_path / "system.cnf", tmp_path / "ours.cnf"
    if theirs is not None:
        system.write_text(theirs)
    assert "/etc/ssl/openssl.cnf" in text("openssl.cnf")
    ours.write_text(text("openssl.cnf").replace("/etc/ssl/openssl.cnf", str(system)))
    program = "import ssl; print(ssl.create_default_context().get_ciphers()[0]['name'])"
    environment = {**os.environ, "OPENSSL_CONF": str(ours)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == first


def test_the_image_is_told_of_it():
    image = text("Dockerfile")
    assert "COPY sidecar/deploy/openssl.cnf /opt/meshsdk/openssl.cnf" in image
    assert "OPENSSL_CONF=/opt/meshsdk/openssl.cnf" in image
