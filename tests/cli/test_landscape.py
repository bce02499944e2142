import json

from click.testing import CliRunner

from ufm.cli import commands
from ufm.theory import coarse_ce

SMALL = [
    "--loss",
    "ce",
    "--classes",
    "4",
    "--per-class",
    "2",
    "--decay-w",
    "5e-3",
    "--decay-h",
    "5e-3",
    "--decay-b",
    "0.05",
]


def landscape(*options):
    return CliRunner().invoke(commands, ["landscape", *SMALL, *options])


def test_landscape_json_and_figures(tmp_path):
    result = landscape("--dim", "5", "--json", "--out", str(tmp_path))
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report["spectrum"]["kernel"] == report["spectrum"]["rotations"] == 3 * 5 - 6
    assert [rung["index"] for rung in report["ladder"]] == [15, 10, 0]
    assert abs(report["ladder"][1]["value"] - coarse_ce(5e-3 * 2**0.5, 4, 2)[1]) < 1e-12
    assert "strict saddle" in report["known"][0]
    assert all(path.stat().st_size > 5000 for path in tmp_path.iterdir())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ladder.png", "path.png", "plane.png", "spectrum.png"]


def test_fewer_dimensions_than_classes():
    result = landscape("--dim", "2", "--max-steps", "2")
    assert result.exit_code == 0, result.output
    for said in ("d = 2 < K-1 = 3", "no closed form", "2+2", "Local minima that are not global are not excluded"):
        assert said in result.stdout
    # Two steps do not arrive, and the table says so with the gradient norm.
    for said in ("not critical", "max steps, gradient norm", "W has full rank"):
        assert said in result.stdout


def test_bad_groups_are_named():
    result = landscape("--dim", "5", "--through", "2-2")
    assert result.exit_code != 0
    assert "through = '2-2'" in str(result.exception) + result.output


def test_a_symmetric_point_that_is_not_proven_global_is_called_so():
    """K = 4, d = 3, BCE with a stiff bias: a mean mode would need a fourth dimension."""
    narrow = ["--loss", "bce", "--classes", "4", "--dim", "3", "--per-class", "1", "--decay-b", "0.05"]
    narrow += ["--decay-w", "5e-3", "--decay-h", "1e-2"]
    reason = "the minimizer without a bound on the dimension has rank K = 4, more than dim = 3"
    shown = CliRunner().invoke(commands, ["landscape", *narrow]).stdout
    assert "Hessian, best symmetric point (not proven)" in shown
    assert reason in shown
    solved = CliRunner().invoke(commands, ["solve", *narrow]).stdout
    assert "best symmetric point (not proven)" in solved
    assert "closed form" not in solved
    assert reason in solved
    told = json.loads(CliRunner().invoke(commands, ["solve", *narrow, "--json"]).stdout)["theory"]
    assert told["exact"] is False
    assert told["reason"] == reason
    assert told["logit_gap"] == told["gap"]
