"""All commands in one list, and the one place that turns errors into exit codes."""

from __future__ import annotations

import sys
from importlib.metadata import version as distribution_version
from typing import Annotated

import typer

from meshsdk.cli import check, demo, dev, endpoints, policy, services, sidecar
from meshsdk.cli.console import Exit, fail, out
from meshsdk.errors import ConfigError, MeshError, PolicyError
from meshsdk_registry import RegistryError, Unreachable

__all__ = ["app", "run"]

app = typer.Typer(
    name="meshsdk",
    help="A service mesh inside the Python process, steered from Consul.",
    epilog="Exit codes: 0 fine, 1 a problem was found, 2 wrong usage or input, 3 Consul does not answer.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command()(demo.demo)
app.command()(dev.dev)
app.command()(services.services)
app.command()(endpoints.endpoints)
app.command()(check.check)
app.command()(sidecar.sidecar)
app.add_typer(policy.app, name="policy")


def _print_version(wanted: bool) -> None:
    if wanted:
        out.print(distribution_version("meshsdk"))
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """A service mesh inside the Python process, steered from Consul."""


def run() -> None:
    """Run the command line and end the process with one of the documented exit codes."""
    try:
        app()
    except Unreachable as error:
        fail(str(error), "start Consul, or set CONSUL_HTTP_ADDR; `meshsdk dev` starts one for this machine")
        sys.exit(Exit.NO_CONSUL)
    except RegistryError as error:
        fail(str(error), "`meshsdk check` says what is wrong between this machine and Consul")
        sys.exit(Exit.PROBLEM)
    except (ConfigError, PolicyError) as error:
        fail(str(error))
        sys.exit(Exit.USAGE)
    except MeshError as error:
        fail(str(error))
        sys.exit(Exit.PROBLEM)
    except BrokenPipeError:
        sys.stderr.close()  # the reader of our stdout is gone; nothing is left to say
        sys.exit(Exit.OK)
