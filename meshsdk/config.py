"""Settings of a process: arguments first, then MESH_* and CONSUL_* variables. The only reader of the environment."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from meshsdk.core.names import SERVICE_NAME
from meshsdk.errors import ConfigError

__all__ = [
    "SERVICE_NAME",
    "Settings",
    "environment",
    "export",
    "inherited_environment",
    "load",
    "notify_socket",
    "run_target",
]


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything a process is told from outside.

    Attributes:
        service: the process's own service name.
        port: the port callers reach it on; None for a process that only calls others.
        address: the address callers reach it on; empty finds the one this host uses towards Consul.
        zone, version: told to callers in the registration's meta.
        meta, tags: further meta and tags of the registration.
        consul_url: `http://…`, `https://…` or `unix:///path`.
        consul_token, consul_token_file: the ACL token, or a file that holds it and may change.
        consul_cacert, consul_cert, consul_key: PEM files for TLS to Consul.
        datacenter: the one to ask; None asks the agent's own.
        state_dir: where the last known good answers are kept; None keeps none.
        runtime_dir: where workers of one server meet (unix sockets).
        first_wait: seconds the first call to a service waits for Consul's answer.
        removal_grace: seconds an instance that vanished is kept in reserve.
        idle_watch: seconds after which a service that is no longer called is no longer watched.
        ttl: seconds the registration stays healthy without a heartbeat.
        drain_wait: seconds between telling Consul and closing the door.
        drain_timeout: seconds in which requests in flight may finish where the server would not wait for them.
        metrics_path, ready_path: answered by the middleware; None turns them off.
        metrics_port, metrics_host: a port of its own for the metrics.
        identity: where the certificate comes from: `auto` (Consul's CA, and clear text where Consul has none), `consul`
            (its CA; without a certificate the process is not registered), `files`, or `off`.
        tls_cert, tls_key, tls_ca: PEM files, watched, for `files`.
        tls_port: the port that the mesh opens for callers beside an ASGI server's; see `mesh_port`.
        tls_host: the address it is bound to; empty takes all, or the loopback `address` where that is one.
        forward_client_cert: hand the caller's identity to the application as `x-forwarded-client-cert`.
        explain_denials: name the rule in the answer to a caller that was refused; the log always names it.
        intention_default: what holds where no intention of Consul's is about a caller: `allow`, `deny`, or `consul`:
            what its agent says that it does itself.
    """

    service: str
    port: int | None = None
    address: str = ""
    zone: str = ""
    version: str = ""
    meta: Mapping[str, str] = field(default_factory=dict)
    tags: tuple[str, ...] = ()
    consul_url: str = "http://127.0.0.1:8500"
    consul_token: str | None = None
    consul_token_file: str | None = None
    consul_cacert: str | None = None
    consul_cert: str | None = None
    consul_key: str | None = None
    datacenter: str | None = None
    state_dir: Path | None = None
    runtime_dir: Path | None = None
    # Consul answers in milliseconds; two seconds outlast a leader election's usual gap without hanging a request.
    first_wait: float = 2.0
    # A Consul that restarts empty knows an instance again at its next heartbeat, a third of the TTL later: three beats.
    removal_grace: float = 15.0
    idle_watch: float = 600.0
    # Three heartbeats may be lost before callers stop trusting the instance.
    ttl: float = 15.0
    # A Consul change reaches callers within 100 ms; one second covers a slow one.
    drain_wait: float = 1.0
    # gunicorn's own graceful timeout; requests that take longer are broken off as it would.
    drain_timeout: float = 30.0
    metrics_path: str | None = "/-/mesh/metrics"
    metrics_port: int | None = None
    metrics_host: str = "127.0.0.1"
    ready_path: str | None = "/-/mesh/ready"
    identity: str = "auto"
    tls_cert: str | None = None
    tls_key: str | None = None
    tls_ca: str | None = None
    tls_port: int | None = None
    tls_host: str = ""
    forward_client_cert: bool = False
    # A refused caller learns what it may not do, not the rules of others; debugging may ask for more.
    explain_denials: bool = False
    intention_default: str = "consul"

    @property
    def mesh_port(self) -> int | None:
        """The port the mesh opens for its callers: `tls_port`, or 10,000 from the application's; None without one."""
        if self.tls_port is not None or self.port is None:
            return self.tls_port
        return self.port + 10000 if self.port + 10000 < 65536 else self.port - 10000


def load(overrides: Mapping[str, Any], environ: Mapping[str, str] | None = None) -> Settings:
    """Build the settings: an argument that is not None wins over its variable, which wins over the default.

    Args:
        overrides: the arguments of `Mesh`, by the names of `Settings`.
        environ: for tests; the process's environment otherwise.

    Raises:
        ConfigError: names every wrong value, where it came from and what to write instead.
    """
    found = os.environ if environ is None else environ
    mistakes: list[str] = []
    values: dict[str, Any] = _from_environment(found, mistakes)
    heard = set(values)
    for name, value in overrides.items():
        if name not in _FIELDS:
            mistakes.append(f"{name}: no such setting; known ones are {', '.join(sorted(_FIELDS))}")
        elif value is not None:
            values[name] = _argument(name, value)
            heard.discard(name)
    for name, variable, leaf in (("state_dir", "XDG_CACHE_HOME", "state"), ("runtime_dir", "XDG_RUNTIME_DIR", "run")):
        if name not in values:
            values[name] = _default_dir(found, variable, leaf)
    mistakes += _mistakes(values, _names(values, heard))
    if mistakes:
        raise ConfigError("; ".join(mistakes))
    return Settings(**values)


def notify_socket() -> str:
    """Where systemd hears whether a process that it runs is ready (sd_notify(3)); empty where nobody does."""
    return os.environ.get("NOTIFY_SOCKET", "")


def inherited_environment() -> dict[str, str]:
    """Return a copy of the process's environment without its mesh settings, for a child with settings of its own."""
    return {name: value for name, value in os.environ.items() if name not in _VARIABLES}


def environment() -> dict[str, str]:
    """Return a copy of the process's environment, for a program that is to have all of it."""
    return dict(os.environ)


def export(**variables: str) -> None:
    """Set variables for the rest of this process and for what it starts."""
    os.environ.update(variables)


def run_target() -> str:
    """The application that `meshsdk run` puts a mesh around, as `module:attribute`; set by that command alone.

    Raises:
        ConfigError: there is none.
    """
    if target := os.environ.get("MESH_RUN_TARGET"):
        return target
    raise ConfigError("MESH_RUN_TARGET is not set: this module is for `meshsdk run module:app`")


def _from_environment(environ: Mapping[str, str], mistakes: list[str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for variable, (name, read) in _VARIABLES.items():
        text = environ.get(variable, "")
        if not text:
            continue
        try:
            values[name] = read(text)
        except ValueError as error:
            mistakes.append(f"{variable}={text!r}: {error}")
    return values


def _argument(name: str, value: Any) -> Any:
    if name in {"state_dir", "runtime_dir"}:
        return Path(value)
    return tuple(value) if name == "tags" else value


def _default_dir(environ: Mapping[str, str], variable: str, leaf: str) -> Path:
    """XDG's folder where there is one, else a per-user one under the temporary folder (XDG base directory 0.8)."""
    base = environ.get(variable)
    if base:
        return Path(base) / "meshsdk" / leaf
    import tempfile  # for those without XDG's folders

    return Path(tempfile.gettempdir()) / f"meshsdk-{os.getuid() if hasattr(os, 'getuid') else 'user'}" / leaf


def _names(values: Mapping[str, Any], heard: Set[str]) -> Mapping[str, str]:
    """What to call each setting: its variable where it was heard from that, or lacks beside one that was."""
    lacking = {name for group in _TOGETHER if group & heard for name in group - values.keys()}
    return {name: _VARIABLE_OF[name] if name in heard | lacking else name for name in _FIELDS}


def _mistakes(values: Mapping[str, Any], names: Mapping[str, str]) -> list[str]:
    found = []
    service = values.get("service")
    if not isinstance(service, str) or not SERVICE_NAME.fullmatch(service):
        found.append(
            f"{names['service']}={service!r}: give a DNS label: small letters, digits and dashes, at most 63, "
            "such as 'checkout'"
        )
    for name in ("port", "metrics_port", "tls_port"):
        port = values.get(name)
        if port is not None and (isinstance(port, bool) or not isinstance(port, int) or not 0 < port < 65536):
            found.append(f"{names[name]}={port!r}: give a number from 1 to 65535")
    for name, least in _SECONDS.items():
        number = values.get(name, least)
        if isinstance(number, bool) or not isinstance(number, (int, float)) or not number >= least:
            found.append(f"{names[name]}={number!r}: give seconds, at least {least}")
    for name in ("metrics_path", "ready_path"):
        path = values.get(name)
        if path is not None and not path.startswith("/"):
            found.append(f"{names[name]}={path!r}: give a path that starts with '/', such as '/-/mesh/metrics'")
    url = values.get("consul_url", "http://")
    if not url.startswith(("http://", "https://", "unix://")):
        found.append(f"{names['consul_url']}={url!r}: give http://host:8500, https://host:8501 or unix:///path/to.sock")
    if bool(values.get("consul_cert")) != bool(values.get("consul_key")):
        found.append(f"{names['consul_cert']} and {names['consul_key']} go together: give both PEM files or neither")
    return found + _identity_mistakes(values, names)


def _identity_mistakes(values: Mapping[str, Any], names: Mapping[str, str]) -> list[str]:
    found = []
    for name, choices in _CHOICES.items():
        value = values.get(name, choices[0])
        if value not in choices:
            found.append(f"{names[name]}={value!r}: give one of {', '.join(choices)}")
    missing = [name for name in ("tls_cert", "tls_key", "tls_ca") if not values.get(name)]
    if values.get("identity") == "files" and missing:
        lacking = ", ".join(names[name] for name in missing)
        found.append(f"{names['identity']}='files' needs PEM files: {lacking} not given")
    if values.get("identity", "auto") != "files" and len(missing) < 3:
        found.append(
            f"{names['tls_cert']}, {names['tls_key']} and {names['tls_ca']} are read with {names['identity']}='files' "
            "only: set that too, or leave them out"
        )
    found += [
        f"{names[name]}={values[name]!r}: give True or False"
        for name in ("forward_client_cert", "explain_denials")
        if not isinstance(values.get(name, False), bool)
    ]
    port = values.get("port")
    if port is not None and port == values.get("tls_port"):
        name = names["tls_port"]
        found.append(f"{name}={port!r}: it is the application's own port; give another one, or leave it out")
    return found


_CHOICES = {"identity": ("auto", "consul", "files", "off"), "intention_default": ("consul", "allow", "deny")}
_TOGETHER = ({"identity", "tls_cert", "tls_key", "tls_ca"}, {"consul_cert", "consul_key"})
_FIELDS = frozenset(Settings.__dataclass_fields__)
_SECONDS = {"first_wait": 0, "removal_grace": 0, "idle_watch": 1, "ttl": 1, "drain_wait": 0, "drain_timeout": 0}


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ValueError("give a whole number") from None


def _seconds(text: str) -> float:
    try:
        return float(text.removesuffix("s"))
    except ValueError:
        raise ValueError("give seconds, such as 2 or 0.5") from None


def _consul_address(text: str) -> str:
    """`CONSUL_HTTP_ADDR` may come without a scheme, as Consul's own tools accept it."""
    return text if "://" in text else f"http://{text}"


def _path_or_off(text: str) -> str | None:
    return None if text == "off" else text


def _yes_or_no(text: str) -> bool:
    if text.lower() in {"1", "true", "yes", "on"}:
        return True
    if text.lower() in {"0", "false", "no", "off"}:
        return False
    raise ValueError("give true or false")


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",") if word.strip())


_VARIABLES: Mapping[str, tuple[str, Callable[[str], Any]]] = {
    "CONSUL_HTTP_ADDR": ("consul_url", _consul_address),
    "CONSUL_HTTP_TOKEN": ("consul_token", str),
    "CONSUL_HTTP_TOKEN_FILE": ("consul_token_file", str),
    "CONSUL_CACERT": ("consul_cacert", str),
    "CONSUL_CLIENT_CERT": ("consul_cert", str),
    "CONSUL_CLIENT_KEY": ("consul_key", str),
    "MESH_SERVICE": ("service", str),
    "MESH_PORT": ("port", _whole),
    "MESH_ADDRESS": ("address", str),
    "MESH_ZONE": ("zone", str),
    "MESH_VERSION": ("version", str),
    "MESH_TAGS": ("tags", _words),
    "MESH_DATACENTER": ("datacenter", str),
    "MESH_STATE_DIR": ("state_dir", Path),
    "MESH_RUNTIME_DIR": ("runtime_dir", Path),
    "MESH_FIRST_WAIT": ("first_wait", _seconds),
    "MESH_REMOVAL_GRACE": ("removal_grace", _seconds),
    "MESH_IDLE_WATCH": ("idle_watch", _seconds),
    "MESH_TTL": ("ttl", _seconds),
    "MESH_DRAIN_WAIT": ("drain_wait", _seconds),
    "MESH_DRAIN_TIMEOUT": ("drain_timeout", _seconds),
    "MESH_METRICS_PATH": ("metrics_path", _path_or_off),
    "MESH_METRICS_PORT": ("metrics_port", _whole),
    "MESH_METRICS_HOST": ("metrics_host", str),
    "MESH_READY_PATH": ("ready_path", _path_or_off),
    "MESH_IDENTITY": ("identity", str),
    "MESH_TLS_CERT": ("tls_cert", str),
    "MESH_TLS_KEY": ("tls_key", str),
    "MESH_TLS_CA": ("tls_ca", str),
    "MESH_TLS_PORT": ("tls_port", _whole),
    "MESH_TLS_HOST": ("tls_host", str),
    "MESH_FORWARD_CLIENT_CERT": ("forward_client_cert", _yes_or_no),
    "MESH_EXPLAIN_DENIALS": ("explain_denials", _yes_or_no),
    "MESH_INTENTION_DEFAULT": ("intention_default", str),
}
_VARIABLE_OF = {name: variable for variable, (name, _) in _VARIABLES.items()}
