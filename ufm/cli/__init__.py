"""The command line. Modules here import JAX inside their functions only: ``ufm --help`` stays instant."""

from __future__ import annotations

import sys
from typing import Any

import click

from ufm._version import __version__
from ufm.cli import atlas, conjecture, landscape, measure, phase, prove, solve, sweep, verify


def _version(context: click.Context, parameter: click.Parameter, asked: Any) -> None:
    """What a bug report needs: versions, and the device that JAX computes on."""
    if not asked or context.resilient_parsing:
        return
    import platform

    import jax

    devices = jax.devices()
    count = f"{len(devices)} x " if len(devices) > 1 else ""
    click.echo(f"ufm {__version__}, JAX {jax.__version__} on {count}{devices[0].device_kind}, ", nl=False)
    click.echo(f"Python {platform.python_version()}")
    context.exit()


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="versions, device")
def commands() -> None:
    """A numerical laboratory for the unconstrained feature model of neural collapse.

    Every command takes --json for one JSON object on standard output; progress goes to standard error.
    Compiled programs are kept in ~/.cache/ufm (UFM_COMPILE_CACHE=DIR moves them, =off keeps none).
    """


for command in (
    verify.command,
    solve.command,
    prove.command,
    measure.command,
    landscape.command,
    atlas.command,
    phase.command,
    conjecture.command,
    sweep.command,
    sweep.show,
):
    commands.add_command(command)


def main() -> None:
    """Run a command; bad input is one line on standard error and exit status 2."""
    try:
        status = commands.main(prog_name="ufm", standalone_mode=False)
    except click.ClickException as error:
        click.echo(f"ufm: {error.format_message()}", err=True)
        sys.exit(error.exit_code)
    except click.exceptions.Abort:
        click.echo("ufm: interrupted", err=True)
        sys.exit(130)
    except MemoryError as error:
        click.echo(f"ufm: out of memory ({error}); --features per_class needs memory for K features only", err=True)
        sys.exit(2)
    except OSError as error:
        click.echo(f"ufm: {error}", err=True)
        sys.exit(2)
    except ValueError as error:
        from ufm._base import InputError

        if not isinstance(error, InputError):
            raise
        click.echo(f"ufm: {error}", err=True)
        sys.exit(2)
    sys.exit(status or 0)
