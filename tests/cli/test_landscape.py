import json

from click.testing import CliRunner

from ufm.cli import commands
from ufm.theory import coarse_ce


def test_landscape_json_and_figures(tmp_path):
    options = [
        "--loss",
        "ce",
        "--classes",
        "4",
        "--dim",
        "5",
        "--per-class",
        "2",
        "--decay-w",
        "5e-3",
        "--decay-h",
        "5e-3",
        "--decay-b",
        "0.05",
    ]
    result = CliRunner().invoke(commands, ["landscape", *options, "--json", "--out", str(tmp_path)])
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report["spectrum"]["kernel"] == report["spectrum"]["rotations"] == 3 * 5 - 6
    assert [rung["index"] for rung in report["ladder"]] == [15, 10, 0]
    assert abs(report["ladder"][1]["value"] - coarse_ce(5e-3 * 2**0.5, 4, 2)[1]) < 1e-12
    assert all(path.stat().st_size > 5000 for path in tmp_path.iterdir())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ladder.png", "spectrum.png"]
