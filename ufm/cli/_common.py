"""What the commands share: the options of a problem, JSON on standard output, progress on standard error."""

from __future__ import annotations

import importlib.metadata
import json
import math
import os
import sys
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, TypeVar

import click
from click.core import ParameterSource

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")

LOSSES = ("bce", "ce", "focal:gamma=", "ls:alpha=", "mse:kappa=", "logistic")
MODELS = ("linear", "spheres:gamma=", "deep:layers=", "deep:activation=relu,layers=")
SOLVERS = ("newton", "lbfgs", "lifted", "sgd:lr=", "adam:lr=", "adamw:lr=")
"""What a shell completes; written out, because JAX takes a second to load."""


def completed(names: tuple[str, ...]) -> Any:
    """The argument of `click.option` that completes ``names``, which other values may follow."""
    return lambda context, parameter, typed: [name for name in names if name.startswith(typed)]


DEFAULT_COUNTS = "100"
PROBLEM_OPTIONS = [
    click.option(
        "--loss",
        default="bce",
        shell_complete=completed(LOSSES),
        show_default=True,
        help="ce, bce, focal:gamma=3, ls:alpha=0.1, mse:kappa=1,beta=15, logistic",
    ),
    click.option("--classes", type=int, default=10, show_default=True, help="K"),
    click.option("--dim", type=int, default=64, show_default=True, help="feature dimension d"),
    click.option("--per-class", default=DEFAULT_COUNTS, show_default=True, help="samples per class: n, or n_1,...,n_K"),
    click.option(
        "--targets",
        type=click.Path(exists=True, dir_okay=False),
        help="targets that are no labels: a .npz file, targets (K, G) and counts (G,)",
    ),
    click.option("--decay-w", type=float, default=5e-4, show_default=True, help="decay of the classifier, > 0"),
    click.option("--decay-h", type=float, default=5e-4, show_default=True, help="decay of the features, > 0"),
    click.option("--decay-b", type=float, default=5e-4, show_default=True, help="decay of the bias, >= 0"),
    click.option(
        "--bias",
        default="per_class",
        shell_complete=completed(("per_class", "unified", "none")),
        show_default=True,
        help="per_class, unified or none",
    ),
    click.option(
        "--features",
        default="per_sample",
        shell_complete=completed(("per_sample", "per_class")),
        show_default=True,
        help="per_sample or per_class (exact, cost independent of n)",
    ),
    click.option(
        "--model",
        default="linear",
        shell_complete=completed(MODELS),
        show_default=True,
        help="linear, spheres:gamma=8 (unit features and rows of W), deep:layers=2 or deep:layers=2,activation=relu",
    ),
    click.option("--weights", metavar="W_1,...,W_K", help="share of each class in the loss  [default: n_k/N]"),
    click.option("--offset", metavar="X", help="constant added to the logits: a number, or K of them"),
    click.option(
        "--classifier", type=click.Path(exists=True, dir_okay=False), help="fixed classifier: a .npy file (K, d)"
    ),
]
SOLVER_OPTIONS = [
    click.option("--seed", type=int, default=0, show_default=True, help="of the random start"),
    click.option("--starts", type=int, help="random starts; the best is shown  [default: 1, none with --init]"),
    click.option(
        "--init",
        multiple=True,
        metavar="FILE|CODE",
        help="go on from a file of ufm solve --out, whose problem it is but for what is stated here; "
        "or start at a group code: code:2+2+2, code:pyramid, code:polygon; repeat",
    ),
    click.option(
        "--solver",
        default="newton",
        shell_complete=completed(SOLVERS),
        show_default=True,
        help="newton, lbfgs, lifted, sgd:lr=0.1,momentum=0.9, adam:lr=1e-3, adamw",
    ),
    click.option("--tol", type=float, help="bound on the relative scaled gradient  [default: 1e-12]"),
    click.option("--max-steps", type=int, help="iterations allowed"),
    click.option("--init-scale", type=float, default=1.0, show_default=True, help="scale of the random start"),
    click.option("--init-bias", type=float, default=0.0, show_default=True, help="mean bias of the random start"),
    click.option("--dtype", type=click.Choice(["float64", "float32"]), default="float64", show_default=True),
]
JSON_OPTION = click.option("--json", "as_json", is_flag=True, help="one JSON object on standard output")


def options(*groups: list[Any]) -> Callable[[F], F]:
    """Add groups of options to a command, in order."""

    def decorate(function: F) -> F:
        for option in reversed([option for group in groups for option in group]):
            function = option(function)
        return function

    return decorate


def stated_options(context: click.Context, names: Iterable[str]) -> bool:
    """Whether any of these options was typed."""
    return any(context.get_parameter_source(name) == ParameterSource.COMMANDLINE for name in names)


def use_older_emitters(*flags: str) -> None:
    """Before JAX starts: have XLA compile for CPU with its older emitters, four times as fast, and other ``flags``.

    Where the versions at hand are known to have them, since XLA ends the process at a flag that it does not know.
    """
    if importlib.metadata.version("jaxlib").startswith("0.10."):
        given = os.environ.get("XLA_FLAGS", "").split()
        os.environ["XLA_FLAGS"] = " ".join(["--xla_cpu_use_fusion_emitters=false", *flags, *given])


def use_jax(*, many_programs: bool = False) -> None:
    """First line of every command that computes: float64, and compiled programs kept between runs.

    ``many_programs`` of small problems each cost more to compile than to run: most optimizations are left out.
    """
    if many_programs:
        use_older_emitters()
    import jax

    jax.config.update("jax_enable_x64", True)
    jax.config.update("jax_disable_most_optimizations", many_programs)
    place = os.environ.get("UFM_COMPILE_CACHE", str(Path.home() / ".cache" / "ufm"))
    if place != "off":
        jax.config.update("jax_compilation_cache_dir", place)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def check_figure(path: str | Path, field: str = "figure") -> None:
    """Before any work: whether matplotlib will be able to write there."""
    from matplotlib.backend_bases import FigureCanvasBase

    from ufm._base import require, suggestion

    place, known = Path(path), FigureCanvasBase.get_supported_filetypes()
    require(place.parent.is_dir(), field, str(path), "in a folder that exists")
    kind = place.suffix.lower().removeprefix(".")
    require(kind in known, field, str(path), f"a file whose suffix is {suggestion(kind, known)}")


def problem_from(given: dict[str, Any]) -> Any:
    """Take the options of a problem out of ``given`` and build it: on top of the one that ``--init FILE`` solved."""
    from ufm.statement import from_data

    begun = _begun(given.get("init", ()))
    if begun and not stated_options(click.get_current_context(), ["loss"]):
        given["loss"] = begun["loss"]
    path = given.pop("classifier")
    data = {
        "decay": {name: given.pop(f"decay_{name.lower()}") for name in ("W", "H", "b")},
        **_samples(given.pop("per_class"), given.pop("targets"), given["loss"]),
        "classifier": None if path is None else _classifier(path),
    }
    for name in ("loss", "classes", "dim", "model"):
        data[name] = given.pop(name)
    for name in ("bias", "features"):
        data[name] = given.pop(name).replace("-", "_")
    for name in ("weights", "offset"):
        text = given.pop(name)
        values = None if text is None else _numbers(name, text, float, "a number")
        data[name] = values[0] if name == "offset" and values is not None and len(values) == 1 else values
    if data["classifier"] is not None and data["model"] == "linear":
        del data["model"]
    return from_data(_changed(begun, data) if begun else data)


def _begun(starts: Iterable[str]) -> dict[str, Any]:
    """The data of the problem that the first file among the ``starts`` holds; none where there is no file."""
    from ufm import codes, saved
    from ufm._base import require
    from ufm.statement import to_data

    files = [start for start in starts if not start.startswith(codes.PREFIX)]
    for file in files:
        require(Path(file).exists(), "init", file, "a file of ufm solve --out, or a code such as code:2+2+2")
    return to_data(saved.load(files[0]).problem) if files else {}


TOGETHER = (("per_class", "targets"), ("model", "classifier"))
"""Options of which one replaces the other; any other option of a problem replaces itself."""


def _changed(begun: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
    """The data ``begun``, and in their place the ``data`` whose options were typed."""
    context = click.get_current_context()
    typed = [name for name in data["decay"] if stated_options(context, [f"decay_{name.lower()}"])]
    changed = begun | {"decay": begun["decay"] | {name: data["decay"][name] for name in typed}}
    alone = [(name,) for name in ("loss", "classes", "dim", "bias", "features", "weights", "offset")]
    for names in (*alone, *TOGETHER):
        if stated_options(context, names):
            changed = {name: value for name, value in changed.items() if name not in names}
            changed |= {name: data[name] for name in names if name in data}
    return changed


def _samples(per_class: str, path: str | None, loss: str) -> dict[str, Any]:
    """Counts, or the targets of a file: values for squared error, else label sets (0 and 1 only) or soft labels."""
    if path is None:
        return {"per_class": per_class}
    import numpy as np

    from ufm._base import InputError, require

    try:
        with np.load(path, allow_pickle=False) as arrays:
            found = {name: np.asarray(arrays[name], float) for name in ("targets", "counts") if name in arrays}
    except (ValueError, OSError, AttributeError, zipfile.BadZipFile) as error:
        raise InputError(f"targets = {path!r}: must be a .npz file of numbers ({error})") from None
    require("targets" in found, "targets", path, "a .npz file with an array 'targets' (K, G), and counts (G,)")
    require(per_class == DEFAULT_COUNTS, "per_class", per_class, "absent where targets have their own counts")
    Y = found["targets"]
    kind = "values" if loss.startswith("mse") else "sets" if np.isin(Y, (0, 1)).all() else "soft"
    return {"targets": {"kind": kind, "columns": Y, "counts": found.get("counts", 1)}}


def _classifier(path: str) -> Any:
    import numpy as np

    from ufm._base import InputError

    try:
        return np.load(path, allow_pickle=False)
    except ValueError as error:
        raise InputError(f"classifier = {path!r}: must be a .npy file of numbers ({error})") from None


def solver_from(given: dict[str, Any]) -> Any:
    """The solver that the options name."""
    from ufm import solvers

    return solvers.parse(given["solver"], tol=given["tol"], max_steps=given["max_steps"])


def solutions(problem: Any, given: dict[str, Any]) -> list[Any]:
    """Solutions from every start that the options ask for, in order."""
    from ufm import codes, saved, solvers

    names = {"starts": "starts", "scale": "init_scale", "bias_mean": "init_bias", "dtype": "dtype"}
    options = {name: given[option] for name, option in names.items()}
    starts = given.get("init", ())
    options["init"] = [x if x.startswith(codes.PREFIX) else saved.load(x).params for x in starts] or None
    with progress_bar("solve", "step") as advance:
        return solvers.multistart(
            problem,
            given["seed"],
            solver_from(given),
            eliminate=given.get("eliminate", True),
            saddles=given.get("at_saddles", "leave"),
            progress=lambda steps, residual: advance(steps, note=f"residual {residual:.1e}"),
            **options,
        )


def _numbers(field: str, text: str, kind: Callable[[str], T], what: str) -> list[T]:
    from ufm._base import InputError

    try:
        return [kind(item) for item in text.split(",")]
    except ValueError:
        raise InputError(f"{field} = {text!r}: must be {what}, or K of them separated by commas") from None


def problem_json(problem: Any) -> dict[str, Any]:
    """A problem as JSON: the data that state it again (`ufm.statement`), its words and sizes."""
    from ufm.statement import describe, stated, to_data

    data = to_data(problem) if stated(problem) else {"loss": str(problem.loss), "model": str(problem.model)}
    counts = problem.per_class if isinstance(problem.per_class, int | None) else list(problem.per_class)
    sizes = {"classes": problem.classes, "dim": problem.dim, "per_class": counts, "samples": problem.samples}
    classifier = "free" if problem.classifier is None else "fixed"
    return {**data, **sizes, "classifier": classifier, "words": describe(problem)}


def plain(value: Any) -> Any:
    """Arrays to numbers and lists, and NaN or infinity to null, which JSON does not have."""
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def print_json(value: dict[str, Any]) -> None:
    """The one JSON object of a command."""
    click.echo(json.dumps(plain(value), indent=2))


def table(title: str, columns: list[str], rows: list[list[str]]) -> None:
    """A table on standard output, as wide as it needs to be when nobody is looking.

    On a terminal too narrow for its longest words each row becomes a block of lines, so that nothing is cut off.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table

    terminal = sys.stdout.isatty()
    console = Console(width=None if terminal else 200)
    grid = Table(*columns, title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for row in rows:
        grid.add_row(*row)
    if console.measure(grid, options=console.options.update(width=10_000)).minimum <= console.width:
        console.print(grid)
        return
    if title:
        console.print(title, highlight=False)
    for row in rows:
        block = Table.grid("", "", padding=(0, 2))
        for name, cell in zip(columns, row, strict=True):
            if cell:
                block.add_row(name, cell)
        block.columns[1].overflow = "fold"
        console.print(block, "")


class Advance(Protocol):
    """How far the work has come."""

    def __call__(self, done: int, total: int | None = None, note: str = "") -> None: ...


@contextmanager
def progress_bar(description: str, unit: str) -> Iterator[Advance]:
    """A bar on standard error that appears once the work has lasted a second; the value moves it."""
    from tqdm import tqdm

    with tqdm(desc=description, unit=unit, delay=1.0, file=sys.stderr, leave=False, dynamic_ncols=True) as bar:

        def advance(done: int, total: int | None = None, note: str = "") -> None:
            bar.total = total
            bar.set_postfix_str(note, refresh=False)
            bar.update(max(done - bar.n, 0))

        yield advance
