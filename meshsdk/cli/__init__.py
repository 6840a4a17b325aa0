"""The command line: `meshsdk …`. Data goes to stdout, everything else to stderr."""

from __future__ import annotations

__all__ = ["main"]


def main() -> None:
    """Run the command line; the entry point of the `meshsdk` script."""
    try:
        from meshsdk.cli.app import run
    except KeyboardInterrupt:  # the imports take a moment; from here on `run` answers Ctrl-C, with the same code
        raise SystemExit(130) from None
    run()
