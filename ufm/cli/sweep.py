"""``ufm sweep`` and ``ufm show``: many problems at once, and what came of them."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import warnings
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
@click.option("--shard", metavar="I/N", help="every N-th chunk from the I-th on: N processes share DIR")
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
    shard: str | None,
    as_json: bool,
) -> None:
    """Solve and certify every problem of a spec: a TOML file, or the name of one that ships with the package.

    Shipped: bias-decay, initial-bias. Ctrl-C and SIGTERM end the sweep after the chunk in hand, with status 130 and
    143; --resume goes on from there. Shards 0/N to N-1/N run anywhere, at once or in turn.
    """
    use_jax()
    _use_cores(devices)
    budget = None if memory is None else _bytes(memory)
    from ufm import sweeps

    arguments = sweeps.read_spec(spec)
    with _stoppable(out) as asked, progress_bar("sweep", "lane") as advance, _warnings_in_words():

        def progress(done: int, failed: int, total: int) -> None:
            advance(done, total, f"{failed} failed")
            if asked and done < total:
                raise click.Abort

        options: dict[str, Any] = {"out": out, "resume": resume, "memory": budget, "chunk": chunk, "engine": engine}
        options |= {"shard": None if shard is None else _share(shard), "eliminate": eliminate}
        found = sweeps.sweep(**arguments, **options, progress=progress)
    if as_json:
        print_json({"directory": out, **found.summary()})
    else:
        show_table(out, found)


@click.command("show")
@click.argument("directory", metavar="DIR|FILE")
@click.option(
    "--out", type=click.Path(file_okay=False), metavar="FIGS", help="directory for a sweep's figures and table"
)
@click.option("--format", "suffix", default="png", show_default=True, help="of the figures: png, pdf or svg")
@options([JSON_OPTION])
def show(directory: str, out: str | None, suffix: str, as_json: bool) -> None:
    """Show a sweep or a saved solution.

    Of a sweep: counts and ranges; with --out line plots, heat maps and all lanes as lanes.csv. Of one that is not
    finished also how far each shard is, its rate and the time left.

    Of a FILE that ufm solve --out or Solution.save wrote: the solution, its certificate as it was saved, the closed
    form, and the versions.
    """
    use_jax()
    from ufm import sweeps
    from ufm._base import require

    if Path(directory).is_file():
        require(out is None, "out", out, "absent where a FILE is shown: figures are drawn of a sweep")
        show_solution(directory, as_json)
        return
    found = sweeps.load(directory)
    files = [] if out is None else draw(found, Path(out), suffix)
    if as_json:
        print_json({"directory": directory, **found.summary(), "files": files})
    else:
        show_table(directory, found)
        for path in files:
            click.echo(path)


def show_solution(path: str, as_json: bool) -> None:
    """A saved solution as ``ufm solve`` shows it, and what made it."""
    from ufm.cli import solve
    from ufm.saved import load

    found = load(path)
    report = solve.report_of(found.problem, found.solution, found.certificate)
    if as_json:
        print_json({"file": path, **report, "made": found.made})
    else:
        solve.show(report)
        click.echo("made with " + ", ".join(f"{name} {value}" for name, value in found.made.items()))


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
    show_progress(summary)
    click.echo(
        f"{summary['engine']} on {summary['devices']} x {summary['device']}, {summary['dtype']}; "
        f"{100 * summary['useful']:.1f} % of the evaluations made were needed"
    )


def show_progress(summary: dict[str, Any]) -> None:
    """How far the shards are, where the sweep is not finished; versions, where there were several; what is damaged."""
    progress, origins = summary.get("progress"), summary.get("solved_with", [])
    if progress and progress["done"] < summary["lanes"]:
        rows = [
            [
                *(one["shard"], one["host"] or ""),
                *(f"{one['chunks_done']}/{one['chunks']}", f"{one['done']}/{one['lanes']}", str(one["failed"])),
                *(_rate(one["rate"]), _duration(one["left"]), _duration(one["since_last"])),
            ]
            for one in progress["shards"]
        ]
        table("", ["shard", "host", "chunks", "lanes", "failed", "lanes/s", "left", "last chunk ago"], rows)
        click.echo(
            f"{progress['done']} of {summary['lanes']} lanes done, {progress['failed']} failed; "
            f"{_rate(progress['rate']) or '?'} lanes/s, {_duration(progress['left']) or '?'} left"
        )
    if progress and progress["damaged"]:
        click.echo(f"{len(progress['damaged'])} damaged chunks; sweep again with --resume to mend them")
    for one in origins if len(origins) > 1 else ():
        words = ", ".join(f"{name} {value}" for name, value in one.items() if name not in ("lanes", "chunks"))
        click.echo(f"{one['lanes']} lanes (chunks {one['chunks']}): {words}")


def _rate(rate: float | None) -> str:
    return "" if rate is None else f"{rate:.3g}"


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return ""
    minutes, hours = seconds / 60, seconds / 3600
    return f"{seconds:.0f} s" if minutes < 2 else f"{minutes:.0f} min" if hours < 2 else f"{hours:.1f} h"


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
def _stoppable(out: str) -> Iterator[list[int]]:
    """The first Ctrl-C or SIGTERM asks to stop after the chunk in hand, the second stops at once."""
    asked: list[int] = []

    def ask(number: int, _: Any) -> None:
        asked.append(number)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.write(2, b"\nufm: stopping after this chunk (again: at once)\n")  # no buffer, which may be in use

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    except (click.Abort, KeyboardInterrupt):
        click.echo(f"ufm: finished chunks are kept in {out}; the same command with --resume goes on", err=True)
        if asked[:1] == [signal.SIGTERM]:
            raise SystemExit(128 + signal.SIGTERM) from None
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _warnings_in_words() -> Iterator[None]:
    """What the sweep warns of as one line each."""
    with warnings.catch_warnings():
        others = warnings.showwarning

        def show(message: Any, category: Any, *where: Any, **more: Any) -> None:
            if category is UserWarning and str(where[0]).startswith(str(Path(__file__).parents[1])):
                click.echo(f"ufm: {message}", err=True)
            else:
                others(message, category, *where, **more)

        warnings.showwarning = show
        yield


def _share(text: str) -> tuple[int, int]:
    """Read ``I/N``."""
    from ufm._base import require

    match = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text)
    require(match is not None, "shard", text, "I/N, such as 0/32: from 0/N to (N-1)/N")
    return int(match[1]), int(match[2])  # type: ignore[index]


def _bytes(text: str) -> float:
    """Read ``2GB``, ``500M`` or a plain number of bytes."""
    from ufm._base import InputError

    match = re.fullmatch(r"\s*([0-9.]+(?:e[0-9]+)?)\s*([kmgt]?)i?b?\s*", text.lower())
    try:
        return float(match[1]) * UNITS[match[2]]  # type: ignore[index]
    except (TypeError, ValueError):
        raise InputError(f"memory = {text!r}: must be a size such as 2GB or 500MB") from None
