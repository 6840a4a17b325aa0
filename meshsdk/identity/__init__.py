"""Identity: SPIFFE ids, the TLS contexts they travel in, and who is at the other end of a request.

holder.py    what is in force now             providers/       Consul's CA; PEM files
material.py  certificate, key and roots       examination.py   whether they belong together; apart.py: elsewhere
contexts.py  TLS contexts from them           consul_files.py  what Consul's HTTPS API is shown and must show
verify.py    is the peer who it should be     verifying.py     server contexts that ask so, and follow renewals
renewal.py   what goes on in the background   lifetime.py      which ages are to be told
events.py    what is told to listeners        secret_file.py   keys for OpenSSL, not on disk
spiffe.py    ids: parsed, written, compared   peer.py          the verified peer, as each server tells it
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from meshsdk.identity.events import Aged, Expired, Issued, Recovered, Trouble
    from meshsdk.identity.holder import Identity, NoIdentity, State
    from meshsdk.identity.material import BadMaterial, Material
    from meshsdk.identity.spiffe import SpiffeId

__all__ = [
    "Aged",
    "BadMaterial",
    "Expired",
    "Identity",
    "Issued",
    "Material",
    "NoIdentity",
    "Recovered",
    "SpiffeId",
    "State",
    "Trouble",
]

_PLACES = {
    "events": ("Aged", "Expired", "Issued", "Recovered", "Trouble"),
    "holder": ("Identity", "NoIdentity", "State"),
    "material": ("BadMaterial", "Material"),
    "spiffe": ("SpiffeId",),
}


def __getattr__(name: str) -> Any:
    """Serve a name when it is asked for: the process that examines (`apart.py`) needs little, and shall start fast."""
    for module, names in _PLACES.items():
        if name in names:
            return getattr(import_module(f"meshsdk.identity.{module}"), name)
    raise AttributeError(f"module 'meshsdk.identity' has no attribute {name!r}")
