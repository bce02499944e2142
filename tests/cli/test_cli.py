"""The command line as a user runs it: subprocesses, their streams and exit status."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

SMALL = ["--loss", "ce", "--classes", "3", "--dim", "4", "--per-class", "2"]
SMALL += ["--decay-w", "0.01", "--decay-h", "0.01", "--decay-b", "0.01"]


def ufm(*arguments, module=False, **environment):
    script = str(Path(sys.executable).with_name("ufm"))  # the environment's own, on the PATH or not
    command = [sys.executable, "-m", "ufm"] if module else [script]
    env = {**os.environ, "JAX_PLATFORMS": "cpu", **environment}
    return subprocess.run([*command, *arguments], capture_output=True, text=True, env=env, timeout=300, check=False)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return {"UFM_COMPILE_CACHE": str(tmp_path_factory.mktemp("cache"))}


def test_help_does_not_load_jax():
    code = "import sys, ufm.cli; sys.exit('jax' in sys.modules or 'matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    result = ufm("--help")
    assert result.returncode == 0
    assert "verify" in result.stdout


def test_version_names_jax_and_the_device():
    result = ufm("--version")
    assert result.returncode == 0, result.stderr
    assert re.fullmatch(r"ufm \S+, JAX \d+\.\S+ on .*cpu, Python 3\.\S+\n", result.stdout)


def test_shell_completes_commands_and_losses():
    assert "_ufm_completion" in ufm(_UFM_COMPLETE="bash_source").stdout
    for words, expected in (
        ("ufm ver", "verify"),
        ("ufm solve --loss foc", "focal:gamma="),
        ("ufm solve --so", "--solver"),
    ):
        there = {"_UFM_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
        assert f"plain,{expected}" in ufm(**there).stdout.splitlines()


def test_completion_offers_the_losses_and_solvers_there_are():
    from ufm.cli._common import LOSSES, SOLVERS
    from ufm.losses import NAMED
    from ufm.solvers import parse

    assert {name.split(":")[0] for name in LOSSES} == set(NAMED)
    for name in SOLVERS:
        parse(name + "0.1" if name.endswith("=") else name)


def test_solve_json_has_the_contract(cache):
    result = ufm("solve", *SMALL, "--starts", "2", "--json", module=True, **cache)
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    assert found["status"] == "converged"
    assert abs(found["value"] - found["theory"]["value"]) < 1e-12
    assert abs(found["certificate"]["gap"]) < 1e-11
    assert found["certificate"]["lower_bound"] <= found["value"] + 1e-14
    assert set(found["theory"]) >= {"value", "regime", "gap", "bias"}
    assert set(found["bias"]) == {"mean", "std"}
    assert all(set(found["scores"][side]) == {"mean", "min", "max"} for side in ("positive", "negative"))
    assert set(found["collapse"]) >= {"nc1", "nc2", "nc3", "nc4"}
    assert len(found["starts"]) == 2
    assert found["problem"]["per_class"] == 2


def test_solve_imbalanced_and_fixed_classifier(tmp_path, cache):
    np.save(tmp_path / "W.npy", np.eye(3, 4))
    options = [*SMALL, "--per-class", "3,2,1", "--classifier", str(tmp_path / "W.npy"), "--bias", "unified", "--json"]
    result = ufm("solve", *options, **cache)
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    assert found["theory"] is None
    assert found["certificate"]["gap"] < 1e-10


def test_solve_table_names_what_it_shows(cache):
    result = ufm("solve", *SMALL, **cache)
    assert result.returncode == 0, result.stderr
    for word in ("value", "etf", "certified gap", "NC1", "converged"):
        assert word in result.stdout


@pytest.mark.parametrize(
    ("options", "status", "code"),
    [
        (["--init-scale", "0"], "converged", 0),  # a saddle, left
        (["--init-scale", "0", "--saddles", "keep"], "converged", 0),
        (["--init-scale", "0", "--solver", "sgd"], "saddle", 1),
        (["--max-steps", "1"], "max steps", 1),
        (["--loss", "mse", "--solver", "sgd:lr=1000"], "nonfinite", 1),
        # No further progress in float64, but the certificate proves the point minimal.
        (["--loss", "mse", "--bias", "none", "--decay-w", "1e-6", "--decay-h", "1e-6"], "stalled", 0),
    ],
    ids=lambda x: " ".join(x) if isinstance(x, list) else "",
)
def test_solve_exits_1_when_it_does_not_answer(options, status, code, cache):
    result = ufm("solve", *SMALL, *options, "--json", **cache)
    found = json.loads(result.stdout)
    assert found["status"] in (status, "converged" if status == "stalled" else status)
    assert (result.returncode, found["solved"]) == (code, code == 0), result.stderr
    assert (f"not solved: {status}" in result.stderr) == bool(code)
    assert not code or found["remedy"] in result.stderr


def test_verify_a_problem_and_write_a_report(tmp_path, cache):
    result = ufm("verify", *SMALL, "--paper", "zhu2021", "--report", str(tmp_path / "r"), "--json", **cache)
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    assert found["ok"]
    assert {f["verdict"] for f in found["findings"]} == {"holds", "outside hypotheses"}
    assert json.loads((tmp_path / "r" / "report.json").read_text())["summary"] == found["summary"]
    page = (tmp_path / "r" / "report.md").read_text()
    assert "zhu2021/3.1" in page
    assert f"`{found['meta']['command']}`" in page
    assert found["meta"]["command"].startswith("ufm verify --")
    assert f"date {found['meta']['date']}" in page


def test_verify_exits_1_when_a_verdict_differs(cache):
    """A planted mutation, as a user would meet it: the closed form of CE with a wrong constant."""
    code = (
        "import ufm.theory.closed_forms as c, ufm.cli\n"
        "right = c.ce\n"
        "c.ce = lambda mu, classes: right(1.01 * mu, classes)\n"
        f"import sys; sys.argv = ['ufm', 'verify', '--theorem', 'zhu2021/3.1', *{SMALL!r}]\n"
        "ufm.cli.main()"
    )
    env = {**os.environ, **cache}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=False)
    assert result.returncode == 1, result.stderr
    assert "refuted" in result.stdout


def test_atlas_lists_theorems():
    result = ufm("atlas", "--paper", "li2025", "--json")
    assert result.returncode == 0, result.stderr
    theorems = json.loads(result.stdout)["theorems"]
    assert {t["id"] for t in theorems} >= {"li2025/2", "li2025/2-corrected"}


BAD = [
    (["--loss", "bcee"], "did you mean 'bce'"),
    (["--loss", "focal:gamma=-1"], "gamma = -1.0"),
    (["--loss", "ls:alpha=1"], "[0, 1)"),
    (["--loss", "ce:x=1"], "no hyper-parameters"),
    (["--classes", "0"], "classes = 0"),
    (["--decay-w", "nan"], "decay.W = nan"),
    (["--decay-b", "-1"], "decay.b = -1.0"),
    (["--per-class", "1,2"], "classes = 3 of them (got 2)"),
    (["--per-class", "x"], "per_class = 'x'"),
    (["--tol", "1e-20"], "tol = 1e-20"),
    (["--dtype", "float32", "--tol", "1e-9"], "float32"),
    (["--bias", "perclass"], "did you mean 'per_class'"),
    (["--solver", "sgd:lr=-1"], "lr = -1.0"),
    (["--solver", "newtn"], "did you mean 'newton'"),
    (["--max-steps", "-3"], "max_steps = -3"),
    (["--starts", "0"], "starts = 0"),
    (["--classifier", "no-such-file.npy"], "no-such-file.npy"),
    (["--clases", "3"], "--classes"),
]


@pytest.mark.parametrize(("options", "message"), BAD, ids=[" ".join(options) for options, _ in BAD])
def test_bad_input_is_one_line_and_exit_2(options, message):
    result = ufm("solve", *SMALL, *options)
    assert result.returncode == 2
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert "Traceback" not in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize(
    ("command", "field", "work"),
    [
        (["measure", "net.npz", "--figure"], "figure", "ufm.networks.measure_file"),
        (["phase", "bce", "--out"], "out", "ufm.atlas._phase.Diagram.solve"),
    ],
)
@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("nodir/sheet.png", "a folder that exists"),
        ("sheet.jgp", "did you mean 'jpg'"),
        ("sheet", "suffix is one of"),
    ],
)
def test_a_figure_that_cannot_be_written_is_refused_before_the_work(command, field, work, path, message, monkeypatch):
    from click.testing import CliRunner

    from ufm import InputError
    from ufm.cli import commands

    monkeypatch.setattr(work, lambda *arguments, **options: pytest.fail("the work was begun"))
    for module in ("measure", "phase"):
        monkeypatch.setattr(f"ufm.cli.{module}.use_jax", lambda: None)
    error = CliRunner().invoke(commands, [*command, path]).exception
    assert isinstance(error, InputError)
    assert f"{field} = '{path}': must be" in str(error)
    assert message in str(error)
    assert "\n" not in str(error)


def test_classifier_of_the_wrong_shape(tmp_path):
    np.save(tmp_path / "W.npy", np.eye(5))
    result = ufm("solve", *SMALL, "--classifier", str(tmp_path / "W.npy"))
    assert result.returncode == 2
    assert "classifier.shape = (5, 5): must be (classes, dim) = (3, 4)" in result.stderr


@pytest.mark.parametrize("width", [40, 80, 300])
def test_a_narrow_terminal_cuts_nothing_off(monkeypatch, capsys, width):
    import sys

    from ufm.cli._common import table

    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    columns = ["theorem", "predicted", "measured", "formula"]
    cells = ["rediscovering/normalised-corrected", "0.671707956928", "-1.23456789e-05", "a(x)=" + "b" * 60]
    table("title", columns, [cells])
    shown = "".join(capsys.readouterr().out.split())
    assert all(cell in shown for cell in cells)
    assert "…" not in shown
