"""The command line: `meshsdk …`. Data goes to stdout, everything else to stderr."""

from __future__ import annotations

__all__ = ["main"]


def main() -> None:
    """Run the command line; the entry point of the `meshsdk` script."""
    from meshsdk.cli.app import run

    run()
