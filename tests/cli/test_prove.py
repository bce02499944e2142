"""``ufm prove`` and ``ufm verify --prove``: streams, files and exit status."""

import json
import os
import subprocess
import sys

import pytest

from ufm.atlas import THEOREMS, Finding, Report, Verdict, proof_file
from ufm.cli.verify import proofs_of
from ufm.losses import BCE
from ufm.problem import Decay, Problem
from ufm.proof import check

SMALL = ["--loss", "ce", "--classes", "3", "--dim", "4", "--per-class", "2", "--decay-w", "0.01", "--decay-h", "0.01"]


@pytest.fixture(scope="module")
def ufm(tmp_path_factory):
    env = {**os.environ, "JAX_PLATFORMS": "cpu", "UFM_COMPILE_CACHE": str(tmp_path_factory.mktemp("cache"))}

    def call(*arguments):
        words = [sys.executable, "-m", "ufm", *map(str, arguments)]
        return subprocess.run(words, capture_output=True, text=True, env=env, timeout=300, check=False)

    return call


def test_prove_writes_what_check_reads(ufm, tmp_path):
    place = tmp_path / "proof.json"
    done = ufm("prove", *SMALL, "--out", place)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("proved: 0.14833174700")
    assert str(place) in done.stderr
    assert ufm("prove", "--check", place).stdout == done.stdout
    assert done.stdout == f"proved: {json.loads(ufm('prove', '--check', place, '--json').stdout)['proved']}\n"


def test_a_wide_enclosure_is_exit_status_1(ufm):
    """d = 1 is below the rank of the solution: the bound is true and loose."""
    done = ufm("prove", *SMALL, "--dim", "1", "--json")
    assert done.returncode == 1
    assert "no dual matrix tight" in done.stderr
    found = json.loads(done.stdout)
    assert "no dual matrix tight" in found["reason"]
    assert float(found["upper"]) - float(found["lower"]) == pytest.approx(found["width"], abs=1e-12)
    assert found["problem"]["dim"] == 1


def test_wrong_files_and_options_are_refused(ufm, tmp_path):
    bad = tmp_path / "bad.json"
    bad.write_text(proof_file("li2025/2").read_text().replace('"lower": "0.67', '"lower": "0.68'))
    for arguments, said in (
        (["prove", "--check", bad], "must be a file that proves what it says"),
        (["prove", "--check", bad, *SMALL], "--check FILE holds its own problem"),
        (["verify", "--prove", "--quick"], "--prove takes the standard suite"),
    ):
        done = ufm(*arguments)
        assert (done.returncode, done.stdout) == (2, "")
        assert said in done.stderr


def test_what_is_refuted_is_proved(tmp_path):
    """Each refuted finding, by the problem it was made on: proved and kept, or the reason why it is not."""
    false, true = (Problem(4, 5, 2, BCE(), Decay(5e-3, 1e-3, decay_b)) for decay_b in (0.5, 1e-4))
    findings = [
        Finding(THEOREMS[name], problem, [], None, verdict, None)
        for name, problem, verdict in (
            ("li2025/2", false, Verdict.REFUTED),
            ("li2025/2-corrected", false, Verdict.HOLDS),
            ("li2025/2", true, Verdict.REFUTED),  # no finding of the atlas: the ETF is the minimizer there
        )
    ]
    proofs = proofs_of(Report(findings), str(tmp_path))
    assert sorted(proofs) == [0, 2]
    assert proofs[0]["proved"].startswith("false, by 0.0499")
    assert "refutes li2025/2 by 0.0499" in check(proofs[0]["file"])
    assert proofs[2]["proved"] is proofs[2]["file"] is None
    assert proofs[2]["reason"].startswith("not proved: li2025/2 is not refuted")


@pytest.mark.slow
def test_verify_prove(ufm, tmp_path):
    stated = ["--loss", "bce", "--classes", "4", "--dim", "5", "--per-class", "2"]
    stated += ["--decay-w", "5e-3", "--decay-h", "1e-3", "--decay-b", "0.5"]
    done = ufm("verify", *stated, "--theorem", "li2025/2", "--prove", "--json", "--report", tmp_path)
    (proof,) = json.loads(done.stdout)["proofs"]
    assert "refutes li2025/2 by 0.0499" in ufm("prove", "--check", proof["file"]).stdout
