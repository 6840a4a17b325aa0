"""TLS contexts: for Consul, from PEM files, with errors that name the file; for the mesh, from checked material.

A context of the mesh is never changed: new material makes new ones. A root can be added to a living context and not
taken away again, and another thread could see a new certificate beside an old key.
"""

from __future__ import annotations

import ssl
from collections.abc import Collection
from datetime import datetime
from pathlib import Path
from typing import TypeVar

from meshsdk.errors import ConfigError
from meshsdk.identity.material import BadMaterial, Material
from meshsdk.identity.secret_file import secret_file
from meshsdk.identity.verifying import Refusals, ServerContext

__all__ = ["client_context", "consul_context", "server_context"]

C = TypeVar("C", bound=ssl.SSLContext)


def client_context(material: Material) -> ssl.SSLContext:
    """A context for calling services: TLS 1.3, our certificate shown, theirs verified against the roots.

    Which service the certificate is for is not checked here: that takes `meshsdk.identity.verify.expecting`.

    Raises:
        BadMaterial: OpenSSL refuses what our own checks let pass, such as a key too short for its security level.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    return _equipped(context, material)


def server_context(
    material: Material, *, trust_domains: Collection[str] = (), refusals: Refusals | None = None
) -> ServerContext:
    """A context for being called: TLS 1.3, the caller's certificate asked for and verified, its trust domain too.

    It hands out no tickets: a session resumed with one would be let in without looking at the roots of today.

    Args:
        material: whose trust domain callers must belong to.
        trust_domains: others they may belong to.
        refusals: where handshakes that fail are told; a place of its own if not given.

    Raises:
        BadMaterial: as `client_context`.
    """
    context = ServerContext(refusals or Refusals())
    context.trust_domains = frozenset((material.trust_domain, *trust_domains))
    return _equipped(context, material)


def _equipped(context: C, material: Material) -> C:
    context.verify_mode = ssl.CERT_REQUIRED
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_verify_locations(cadata=material.roots_pem)
        with secret_file(material.chain_pem + material.key_pem) as path:
            context.load_cert_chain(path)
    except ssl.SSLError as error:
        raise BadMaterial(f"certificate of {material.spiffe_id}: TLS refuses it: {error.reason or error}") from error
    return context


def consul_context(
    now: datetime, *, cacert: Path | None = None, cert: Path | None = None, key: Path | None = None
) -> ssl.SSLContext:
    """A client context for Consul's HTTPS API: TLS 1.2 or later, Consul's certificate and host name verified.

    Args:
        now: with a time zone; certificates must be valid then.
        cacert: the CAs to trust, PEM; None trusts the system's.
        cert, key: our certificate (with its chain) and private key, PEM, where Consul asks for one. Both or neither;
            a key in the file of the certificate is given as both.

    Raises:
        ConfigError: a file is missing, unreadable, not PEM, expired, not yet valid, or does not belong to the other.
    """
    if (cert is None) != (key is None):
        missing = "certificate (CONSUL_CLIENT_CERT)" if cert is None else "key (CONSUL_CLIENT_KEY)"
        raise ConfigError(f"the client {missing} for Consul is missing: certificate and key go together; give both")
    # Not create_default_context(): from Python 3.13 it is stricter about CAs, and ours shall be the same everywhere.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if cacert is None:
        context.load_default_certs()
    else:
        from meshsdk.identity.consul_files import authorities

        context.load_verify_locations(cadata=authorities(cacert, now))
    if cert is not None and key is not None:
        from meshsdk.identity.consul_files import check_pair

        check_pair(cert, key, now)
        try:
            context.load_cert_chain(cert, key)
        except ssl.SSLError as error:
            raise ConfigError(f"client certificate {cert}: TLS refuses it: {error.reason or error}") from error
    return context
