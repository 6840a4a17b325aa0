"""All commands in one list, and the one place that turns errors into exit codes."""

from __future__ import annotations

import os
import sys
from importlib.metadata import version as distribution_version
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from meshsdk.cli import ca, check, demo, dev, endpoints, gateway, intention, policy, services, sidecar
from meshsdk.cli import run as serve
from meshsdk.cli.console import Exit, fail, out, tolerant
from meshsdk.errors import ConfigError, MeshError
from meshsdk_registry import RegistryError, Unreachable

__all__ = ["Commands", "app", "run"]


class Commands(TyperGroup):
    """The commands; an expected fault ends with words and a documented exit code, never with a traceback."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was asked for."""
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
        except (MeshError, RegistryError) as error:
            raise typer.Exit(_told(error)) from error
        except BrokenPipeError as error:
            _forget_stdout()
            raise typer.Exit(Exit.OK) from error
        return result


app = typer.Typer(
    name="meshsdk",
    cls=Commands,
    help="A service mesh inside the Python process, steered from Consul.",
    epilog="Exit codes: 0 fine, 1 a problem was found, 2 wrong usage, setting or file, 3 Consul does not answer; "
    "each command's help says what they mean there. CONSUL_HTTP_ADDR and CONSUL_HTTP_TOKEN say where Consul is.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command(epilog=demo.EXITS)(demo.demo)
app.command(epilog=dev.EXITS)(dev.dev)
app.command(epilog=serve.EXITS)(serve.run)
app.command(epilog=services.EXITS)(services.services)
app.command(epilog=endpoints.EXITS)(endpoints.endpoints)
app.command(epilog=check.EXITS)(check.check)
app.command(epilog=sidecar.EXITS)(sidecar.sidecar)
app.command(epilog=gateway.EXITS)(gateway.gateway)
app.add_typer(policy.app, name="policy")
app.add_typer(intention.app, name="intention")
app.add_typer(ca.app, name="ca")


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
    tolerant()
    app()


def _told(error: MeshError | RegistryError) -> Exit:
    """Say what is wrong, and with which exit code to end."""
    if isinstance(error, Unreachable):
        fail(str(error), "CONSUL_HTTP_ADDR names another; `meshsdk dev` starts one for this machine")
        return Exit.NO_CONSUL
    if isinstance(error, RegistryError):
        fail(str(error), "`meshsdk check` says what is wrong between this machine and Consul")
        return Exit.PROBLEM
    fail(str(error))
    return Exit.USAGE if isinstance(error, ConfigError) else Exit.PROBLEM


def _forget_stdout() -> None:
    """The reader is gone; what is still buffered would fail once more when the interpreter flushes it."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
