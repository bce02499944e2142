"""``ufm conjecture``: what it prints and writes, and errors on one line."""

import json

import pytest

from ufm.cli import commands, conjecture, main

CLAIM = """
import ufm
from ufm.atlas.hypotheses import no_bias

hypotheses = no_bias
family = ufm.atlas.Family(lambda rng: ufm.losses.CE(), ((2, 2, 2),), ("none",), (0.1, 0.2))

def claim(problem):
    return 1.001 * ufm.theory.minimizer(problem).value
"""


@pytest.fixture
def ufm(monkeypatch, capsys, tmp_path):
    """Runs the command in this process: status, standard output and standard error."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(conjecture, "use_jax", lambda **options: None)

    def call(*arguments):
        monkeypatch.setattr("sys.argv", ["ufm", "conjecture", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            main()
        streams = capsys.readouterr()
        return end.value.code, streams.out, streams.err

    return call


def test_a_counterexample_is_printed_written_and_checked_again(ufm, tmp_path):
    file, place = tmp_path / "claim.py", tmp_path / "found.json"
    file.write_text(CLAIM)
    status, out, _ = ufm(file, "--budget", 4, "--out", place)
    assert status == 1
    assert out.startswith(
        "claim is false on ce K=2 d=1 n=1, decay W=0.1 H=0.1, no bias: minimum 0.325083 instead of 0.325408"
    )
    assert f"again: ufm conjecture {file} --rerun {place}" in out
    status, again, _ = ufm(file, "--rerun", place, "--json")
    assert status == 1
    assert json.loads(again)["words"] in out
    file.write_text(CLAIM.replace("1.001 *", "1.0 *"))
    status, out, _ = ufm(file, "--rerun", place)
    assert (status, out[:44]) == (0, "claim: no counterexample in 1 certified prob")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("family = 3", "must be one that defines claim"),
        ("claim = abs", "must be one that defines family"),
        ("claim = 3\nfamily = 3", "claim = 3: must be a Theorem"),
        ("1/0", "must run, not end in ZeroDivisionError: division by zero"),
        ("(", "must run, not end in SyntaxError"),
        ("raise SystemExit(0)", "must run, not end in SystemExit"),
        ("claim = abs\nfamily = abs\nhypotheses = 'K > 2'", "hypotheses = 'str': must be a Hypothesis"),
    ],
)
def test_a_file_that_says_no_claim_is_one_line_and_status_2(ufm, tmp_path, text, words):
    file = tmp_path / "claim.py"
    file.write_text(text)
    status, out, err = ufm(file)
    assert (status, out) == (2, "")
    assert words in err
    assert err.count("\n") == 1


def test_a_file_that_is_not_there(ufm):
    status, _, err = ufm("nowhere.py")
    assert (status, err.count("\n")) == (2, 1)


def test_a_place_that_is_not_there_is_refused_before_the_search(ufm, tmp_path):
    file = tmp_path / "claim.py"
    file.write_text(CLAIM)
    status, out, err = ufm(file, "--out", tmp_path / "nowhere" / "found.json")
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert "must be a file in a directory that is there" in err


def test_it_is_a_command():
    assert "conjecture" in commands.commands
