"""A CA for the whole session: making keys takes time."""

from __future__ import annotations

import pytest

from tests.identity.certificates import Pair, issue


@pytest.fixture(scope="session")
def ca() -> Pair:
    return issue("test ca")
