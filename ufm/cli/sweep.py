"""``ufm sweep`` and ``ufm show``: many problems at once, and what came of them."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from ufm.cli._common import JSON_OPTION, options, print_json, progress_bar, table, use_jax

UNITS = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9, "t": 1e12}


@click.command("sweep")
@click.argument("spec", metavar="SPEC.toml|NAME")
@click.option("--out", required=True, type=click.Path(file_okay=False), metavar="DIR", help="keeps finished chunks")
@click.option("--resume", is_flag=True, help="go on with what DIR holds, if it holds anything")
@click.option("--memory", metavar="2GB", help="stay within: of the host on a CPU, of each device elsewhere")
@click.option("--chunk", type=int, help="problems per checkpoint  [default: as many as fit in memory]")
@click.option("--eliminate/--no-eliminate", default=True, show_default=True, help="as in ufm solve")
@click.option("--engine", type=click.Choice(["scan", "batch"]), help="instead of the one that suits the device")
@click.option("--devices", type=int, help="CPU devices to make  [default: the cores]")
@click.option("--distributed", is_flag=True, help="one process of several: see the README")
@options([JSON_OPTION])
def command(
    spec: str,
    out: str,
    resume: bool,
    memory: str | None,
    chunk: int | None,
    eliminate: bool,
    engine: str | None,
    devices: int | None,
    distributed: bool,
    as_json: bool,
) -> None:
    """Solve and certify every problem of a spec: a TOML file, or the name of one that ships with the package.

    Shipped: bias-decay, initial-bias. Ctrl-C ends the sweep after the chunk in hand; --resume goes on from there.
    """
    use_jax()
    _use_cores(devices)
    budget = None if memory is None else _bytes(memory)
    import jax

    from ufm import sweeps

    arguments = sweeps.read_spec(spec)
    with _joined() if distributed else contextlib.nullcontext():
        with _interruptible(out) as stopping, progress_bar("sweep", "lane") as advance:

            def progress(done: int, failed: int, total: int) -> None:
                advance(done, total, f"{failed} failed")
                if stopping() and done < total:
                    raise click.Abort

            options: dict[str, Any] = {"out": out, "resume": resume, "memory": budget, "chunk": chunk, "engine": engine}
            options["eliminate"] = eliminate
            found = sweeps.sweep(**arguments, **options, progress=progress)
        first = jax.process_index() == 0
    if first and as_json:
        print_json({"directory": out, **found.summary()})
    elif first:
        show_table(out, found)


@click.command("show")
@click.argument("directory", metavar="DIR")
@click.option("--out", type=click.Path(file_okay=False), metavar="FIGS", help="directory for the figures and the table")
@click.option("--format", "suffix", default="png", show_default=True, help="of the figures: png, pdf or svg")
@options([JSON_OPTION])
def show(directory: str, out: str | None, suffix: str, as_json: bool) -> None:
    """Show a sweep: counts and ranges; with --out line plots, heat maps and all lanes as lanes.csv."""
    use_jax()
    from ufm import sweeps

    found = sweeps.load(directory)
    files = [] if out is None else draw(found, Path(out), suffix)
    if as_json:
        print_json({"directory": directory, **found.summary(), "files": files})
    else:
        show_table(directory, found)
        for path in files:
            click.echo(path)


def draw(found: Any, out: Path, suffix: str) -> list[str]:
    """Write the figures that there is something to draw in, and the table; their paths."""
    from ufm._base import require
    from ufm.plotting.sweep import pictures

    require(suffix in ("png", "pdf", "svg"), "format", suffix, "png, pdf or svg")
    out.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, figure in pictures(found).items():
        paths.append(out / f"{name}.{suffix}")
        figure.savefig(paths[-1])
    found.save_table(out / "lanes.csv")
    return [str(path) for path in [*paths, out / "lanes.csv"]]


def show_table(directory: str, found: Any) -> None:
    """Counts and ranges."""
    summary = found.summary()
    shape = " x ".join(f"{len(v)} {name}" for name, v in summary["axes"].items()) or "a list"
    states, regimes = (", ".join(f"{n} {name}" for name, n in summary[key].items()) for key in ("status", "regime"))
    rows = [[name, *(f"{r[k]:.6g}" for k in ("min", "median", "max"))] for name, r in summary["ranges"].items()]
    lanes = f"{summary['lanes']} lanes ({shape}): {states}" + (f"; {regimes}" if regimes else "")
    click.echo("\n".join(filter(None, [summary["title"] or directory, summary.get("statement"), lanes])))
    table("", ["", "min", "median", "max"], rows)
    click.echo(
        f"{summary['engine']} on {summary['devices']} x {summary['device']}, {summary['dtype']}; "
        f"{100 * summary['useful']:.1f} % of the evaluations made were needed"
    )


def _use_cores(devices: int | None) -> None:
    """One CPU device per core, before JAX starts; no effect where there is an accelerator."""
    import jax

    from ufm._base import require
    from ufm._parallel import cores

    require(devices is None or devices >= 1, "devices", devices, "a whole number >= 1")
    if devices is None and "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", ""):
        return
    jax.config.update("jax_num_cpu_devices", devices or cores())


@contextlib.contextmanager
def _joined() -> Iterator[None]:
    """Join the other processes: found by JAX itself (Slurm, Open MPI, TPU pods, ...), or named by the environment.

    What libraries print on standard output meanwhile (gloo greets there) goes to standard error.
    """
    import jax

    from ufm._base import InputError

    count, index = os.environ.get("JAX_NUM_PROCESSES"), os.environ.get("JAX_PROCESS_ID")
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        jax.distributed.initialize(
            num_processes=None if count is None else int(count), process_id=None if index is None else int(index)
        )
        yield
    except (ValueError, RuntimeError) as error:
        if isinstance(error, InputError) or jax.distributed.is_initialized():
            raise
        named = "JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID"
        raise InputError(
            f"--distributed: must be under Slurm, Open MPI or a TPU pod, or with {named} ({error})"
        ) from None
    finally:
        ctypes.CDLL(None).fflush(None)
        os.dup2(kept, 1)
        os.close(kept)


@contextlib.contextmanager
def _interruptible(out: str) -> Iterator[Any]:
    """The first Ctrl-C asks to stop after the chunk in hand, the second stops at once."""
    asked = False

    def ask(*_: Any) -> None:
        nonlocal asked
        asked = True
        signal.signal(signal.SIGINT, signal.default_int_handler)
        click.echo("\nufm: stopping after this chunk (Ctrl-C again: at once)", err=True)

    before = signal.signal(signal.SIGINT, ask)
    try:
        yield lambda: asked
    except (click.Abort, KeyboardInterrupt):
        click.echo(f"ufm: finished chunks are kept in {out}; the same command with --resume goes on", err=True)
        raise
    finally:
        signal.signal(signal.SIGINT, before)


def _bytes(text: str) -> float:
    """Read ``2GB``, ``500M`` or a plain number of bytes."""
    from ufm._base import InputError

    match = re.fullmatch(r"\s*([0-9.]+(?:e[0-9]+)?)\s*([kmgt]?)i?b?\s*", text.lower())
    try:
        return float(match[1]) * UNITS[match[2]]  # type: ignore[index]
    except (TypeError, ValueError):
        raise InputError(f"memory = {text!r}: must be a size such as 2GB or 500MB") from None
