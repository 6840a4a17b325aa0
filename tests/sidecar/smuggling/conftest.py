from __future__ import annotations

from hypothesis import settings

# As in `tests/wire`: for `--hypothesis-profile=long`, which tries many more examples, and others each time.
settings.register_profile("long", max_examples=20_000, deadline=None, database=None)
