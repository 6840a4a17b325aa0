"""`python -m meshsdk.cli`: the command line where its script is not on the PATH."""

from __future__ import annotations

from meshsdk.cli import main

__all__: list[str] = []

main()
