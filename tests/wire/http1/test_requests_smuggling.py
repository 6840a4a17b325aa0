"""Every shape of the corpus, whole and byte by byte."""

from __future__ import annotations

import pytest

from tests.sidecar.smuggling.corpus import HIDDEN, SHAPES, Shape
from tests.wire.http1.asking import whole_and_bytewise, words


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name.replace(" ", "-"))
def test_shape(shape: Shape) -> None:
    heard = whole_and_bytewise(shape.data)
    assert (heard.status, heard.kind) == (shape.status, shape.kind)
    assert len(heard.requests) == shape.requests
    assert b"/hidden" not in [request.target for request in heard.requests]
    if shape.status:
        assert len(words(shape.data)) > 20
        incomplete = [request for request in heard.requests if not request.complete]
        assert incomplete in ([], heard.requests[-1:])
    else:
        assert all(request.complete for request in heard.requests)


def test_names_are_unique() -> None:
    assert len({shape.name for shape in SHAPES}) == len(SHAPES) > 200
    assert len(HIDDEN) == 36  # as the shapes say
