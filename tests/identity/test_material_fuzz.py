"""Invariant: whatever the bytes, the result is material that TLS takes or a BadMaterial with words; nothing else."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from meshsdk.identity.contexts import client_context, server_context
from meshsdk.identity.examination import examined
from meshsdk.identity.material import BadMaterial
from tests.identity.certificates import NOW, issue, leaf

CA = issue("fuzz ca")
WEB = leaf("web", CA)
GOOD = (WEB.pem.decode(), WEB.key_pem().decode(), CA.pem.decode())


@st.composite
def damaged(draw: st.DrawFn) -> tuple[str, str, str]:
    """Good texts with a piece cut out, doubled, or overwritten."""
    texts = list(GOOD)
    which = draw(st.integers(0, 2))
    text = texts[which]
    start = draw(st.integers(0, len(text)))
    end = draw(st.integers(start, min(len(text), start + 80)))
    texts[which] = text[:start] + draw(st.text("AZaz09+/=-\n é", max_size=20)) + text[end:]
    order = draw(st.permutations(range(3))) if draw(st.booleans()) else range(3)
    return tuple(texts[n] for n in order)  # type: ignore[return-value]


@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(damaged())
def test_examined(texts: tuple[str, str, str]):
    try:
        found = examined(*texts, now=NOW)
    except BadMaterial as error:
        words = str(error)
    else:
        words = ""
    if words:
        assert GOOD[1][60:100] not in words  # no piece of a key
        return
    client_context(found)
    server_context(found)
    assert found.spiffe_id.service == "web"
