"""A solution in a file: what comes back is what was saved to the last bit, and what is damaged is refused."""

import dataclasses
import errno
import json
import os
import subprocess
import sys

import jax
import numpy as np
import pytest
from click.testing import CliRunner

import ufm
from ufm import Decay, InputError, Problem, Solution, losses, models, saved, targets
from ufm._files import opened_arrays, sealed_arrays
from ufm.cli import commands
from ufm.theory import Certificate, certify

K, D = 3, 4
PROBLEMS = {
    "linear": Problem(K, D, (3, 2, 1), losses.Focal(1 / 3), Decay(1 / 3, 0.1, 0.0), "unified"),
    "weighted": Problem(K, D, 2, decay=Decay(0.1, 0.2, 0.3), weights=[0.5, 0.3, 0.1], offset=[0.1, -0.2, 1 / 7]),
    "shifted": Problem(K, D, 2, offset=-1.0, features="per_class"),
    "long-tail": Problem(K, D, targets.long_tail(K, 20, 7.5), losses.LabelSmoothing(0.1)),
    "fixed": Problem(K, D, 2, losses.CE(), classifier=np.random.default_rng(0).normal(size=(K, D))),
    "nonnegative": Problem(K, D, 2, losses.CE(), model=models.Nonnegative()),
    "spheres": Problem(K, D, 2, losses.CE(), model=models.Spheres(2.5), bias="none"),
    "deep": Problem(K, D, 2, losses.MSE(), bias="none", model=models.Deep(layers=3, widths=(5, 4))),
    "deep-relu": Problem(K, D, 2, model=models.Deep(layers=2, activation="relu")),
    "soft": Problem(K, D, targets=targets.mixup(K, 0.7), loss=losses.CE()),
    "sets": Problem(K, D, targets=targets.sets([[1, 0, 1], [0, 1, 1], [0, 0, 0]], (3, 2, 1)), features="per_class"),
    "values": Problem(2, D, targets=targets.values([[0.1, -1 / 3], [2.0, 0.0]]), loss=losses.MSE()),
}
CERTIFICATE = Certificate(0.1, 1 / 3, 0.1 + 1 / 3, 1.0, 1e-15)
SMALL = PROBLEMS["linear"]


def point_of(problem, dtype="float64"):
    """A solution that no solver has to find."""
    params = problem.init(0, dtype=dtype)
    return Solution(params, np.float64(1 / 3), 0.1, 1e-14, np.int32(1), 7, 2.5, {"nc1": np.arange(6.0).reshape(2, 3)})


def names(folder):
    return [path.name for path in folder.iterdir()]


def differences(path, problem, solution):
    """Names of what a file gives back otherwise than it was."""
    saved.write(path, problem, solution, CERTIFICATE)
    found = ufm.load(path)
    wrong = [] if found.problem == problem and found.solution.problem is found.problem else ["problem"]
    for name, before, after in (
        ("solution", solution, found.solution),
        ("certificate", CERTIFICATE, found.certificate),
    ):
        (old, shape), (new, other) = jax.tree.flatten(before), jax.tree.flatten(after)
        same = shape == other and all(map(np.array_equal, old, new))
        wrong += [] if same and [np.asarray(x).dtype for x in old] == [np.asarray(x).dtype for x in new] else [name]
    return wrong


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", PROBLEMS)
def test_what_is_saved_comes_back_to_the_last_bit(name, dtype, tmp_path):
    problem = PROBLEMS[name]
    assert differences(tmp_path / "x.npz", problem, point_of(problem, dtype)) == []


def test_every_model_and_loss_with_a_name_is_tried():
    assert {p.model.name for p in PROBLEMS.values()} >= set(models.NAMED)
    assert {type(p.grouping) for p in PROBLEMS.values()} == {targets.Labels, targets.LongTail, targets.Columns}


def test_the_comparison_sees_what_is_lost(tmp_path, monkeypatch):
    problem, named, to_data = PROBLEMS["weighted"], saved._named, saved.to_data
    with monkeypatch.context() as patched:
        patched.setattr(saved, "_named", lambda *a: {k: x.astype("f4").astype(x.dtype) for k, x in named(*a).items()})
        assert differences(tmp_path / "x.npz", problem, point_of(problem)) == ["solution", "certificate"]
    for lost in ("weights", "offset", "per_class", "decay"):
        with monkeypatch.context() as patched:
            patched.setattr(saved, "to_data", lambda p, lost=lost: {k: v for k, v in to_data(p).items() if k != lost})
            shapes_differ = lost == "per_class"  # 100 samples of each class
            if shapes_differ:
                with pytest.raises(InputError, match=r"solution.params.H.shape"):
                    differences(tmp_path / "x.npz", problem, point_of(problem))
            else:
                assert differences(tmp_path / "x.npz", problem, point_of(problem)) == ["problem"]


@pytest.mark.parametrize("name", ["linear", "deep"])
def test_a_solve_saves_itself_with_its_certificate(name, tmp_path):
    problem, path = PROBLEMS[name], tmp_path / "found.npz"
    solution = ufm.solve(problem, init=problem.init(1), solver=ufm.solvers.Newton(max_steps=4))
    solution.save(path)
    found = ufm.load(path)
    assert found.problem == solution.problem == problem
    assert jax.tree.all(jax.tree.map(np.array_equal, found.solution, solution))
    assert found.certificate == certify(problem, solution.params)
    assert found.made["ufm"] == ufm.__version__
    assert names(tmp_path) == ["found.npz"]
    again = ufm.solve(found.problem, init=found.params, solver=ufm.solvers.Newton(max_steps=4))
    assert again.value < solution.value


def test_the_same_solution_gives_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        saved.write(tmp_path / name, SMALL, point_of(SMALL), CERTIFICATE)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_transformations_drop_the_problem_and_nothing_else(tmp_path):
    known = point_of(SMALL).of(SMALL)
    assert known.problem is SMALL
    for dropped in (jax.jit(lambda s: s)(known), dataclasses.replace(known, steps=3), jax.tree.map(np.asarray, known)):
        assert dropped.problem is None
        with pytest.raises(InputError, match=r"problem = None: must be given: save\(FILE, problem\)"):
            dropped.save(tmp_path / "x.npz")
    both = jax.tree.map(lambda x: np.stack([x, x]), known)
    with pytest.raises(InputError, match=r"value.shape = \(2,\): must be that of one solution"):
        both.save(tmp_path / "x.npz", SMALL)
    assert jax.vmap(lambda s: s.value)(both).shape == (2,)
    assert names(tmp_path) == []


def test_a_loss_of_ones_own_is_refused(tmp_path):
    problem = Problem(K, D, 2, losses.custom(lambda z, y: -z[y]))
    with pytest.raises(InputError, match="one with a named loss and model") as error:
        point_of(problem).save(tmp_path / "x.npz", problem)
    assert "\n" not in str(error.value)
    assert names(tmp_path) == []


# Damage ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "whole.npz"
    saved.write(path, SMALL, point_of(SMALL), CERTIFICATE)
    return path.read_bytes()


def changed(content, **arrays):
    """The file with other arrays and a digest that fits; None leaves one out."""
    kept = opened_arrays(content) | {name.replace("__", "."): x for name, x in arrays.items()}
    return sealed_arrays({name: np.asarray(x) for name, x in kept.items() if x is not None})


def about(content, **values):
    text = json.dumps(json.loads(opened_arrays(content)["about"].item()) | values)
    return changed(content, about=np.asarray(text.encode()))


def damaged(content):
    """Kinds of damage: what is in the file then, and what its message says."""
    yield from ((content[:n], "damaged") for n in (0, 1, 63, 64, 200, len(content) // 2, len(content) - 1))
    for place in np.random.default_rng(0).integers(len(content), size=30):
        yield content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :], "damaged"
    yield b"plain text", "damaged"
    yield sealed_arrays({"lanes": np.arange(3)}), "damaged"
    yield about(content, format=2), "format = 2: must be 1: another version"
    yield about(content, problem={"classes": 1}), "classes = 1: must be a whole number >= 2"
    yield about(content, problem={"size": 1}), "key of .problem. = 'size'"
    yield about(content, problem=None), "a table"
    yield changed(content, about=np.arange(3)), "damaged"
    yield changed(content, about=np.asarray(b"[" * 100_000)), "damaged"
    yield changed(content, solution__params__W=np.ones((2, 2))), r"solution.params.W.shape = \(2, 2\): must be \(3, 4\)"
    yield changed(content, solution__status=None), "it lacks 'solution.status'"
    yield changed(content, certificate__gap=None), "it lacks 'certificate.gap'"


def test_damaged_and_foreign_files_are_one_line_that_names_the_file(whole, tmp_path):
    path = tmp_path / "this.npz"
    for content, words in damaged(whole):
        path.write_bytes(content)
        with pytest.raises(InputError, match=words) as error:
            ufm.load(path)
        assert str(path) in str(error.value)
        assert "\n" not in str(error.value)
    np.savez(path, features=np.ones(3))
    for other in (path, tmp_path, tmp_path / "none", "nul\0"):
        with pytest.raises(InputError, match=r"^file = "):
            ufm.load(other)


def test_a_digest_that_is_not_checked_is_noticed(whole, tmp_path, monkeypatch):
    """A header's padding is guarded by nothing but the digest and the archive's own sums."""
    path = tmp_path / "this.npz"
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(InputError):
        ufm.load(path)
    monkeypatch.setattr(saved, "opened_arrays", lambda content: dict(np.load(path)))
    assert ufm.load(path).problem == SMALL


def test_a_full_disk_leaves_the_old_file_whole(whole, tmp_path, monkeypatch):
    path = tmp_path / "this.npz"
    path.write_bytes(whole)

    def full(handle):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        saved.write(path, PROBLEMS["deep"], point_of(PROBLEMS["deep"]), CERTIFICATE)
    assert path.read_bytes() == whole
    assert names(tmp_path) == ["this.npz"]


# Words -----------------------------------------------------------------------------------------


def test_repr_is_a_few_lines_without_arrays(whole, tmp_path):
    path = tmp_path / "this.npz"
    path.write_bytes(whole)
    H = np.random.default_rng(0).normal(size=(40, D))
    measured = ufm.measure(H, np.arange(40) % K, H[:K])
    found = ufm.load(path)
    shown = [repr(x) for x in (found, found.solution, found.certificate, measured, point_of(PROBLEMS["deep"]))]
    assert all(len(text.splitlines()) <= 8 and max(map(len, text.splitlines())) <= 120 for text in shown)
    assert not any("[" in text or "array" in text.lower() for text in shown)
    assert "converged after 7 steps (2.5 evaluations)\n  value 0.333333333333," in shown[1]
    assert "W (3, 4), H (4, 6), b (), float64" in shown[1]
    assert "at most 3.3e-01 above the global minimum" in shown[2]
    assert shown[3].startswith("Measurement: 40 samples, 3 classes, dimension 4\n")
    assert "W (3, 5) (5, 4) (4, 4), H (4, 6), float64" in shown[4]


def test_repr_of_what_is_traced_or_several():
    def told(x):
        seen.append(repr(x))
        return x

    seen = []
    one, sure = point_of(SMALL), jax.tree.map(np.float64, CERTIFICATE)
    for x in (one, sure):
        jax.vmap(told)(jax.tree.map(lambda leaf: np.stack([leaf, leaf]), x))
        told(jax.eval_shape(lambda x: x, x))
        told(jax.tree.map(lambda leaf: np.stack([leaf, leaf]), x))
        told(jax.tree.map(lambda leaf: None, x))
    assert all("traced or several" in text for text in seen)


# The command line ------------------------------------------------------------------------------

STATED = [
    "--loss",
    "ce",
    "--classes",
    "3",
    "--dim",
    "4",
    "--per-class",
    "3,2,1",
    "--decay-w",
    "0.01",
    "--offset",
    "0.5",
]


def ran(*arguments):
    result = CliRunner().invoke(commands, arguments)
    assert result.exception is None or isinstance(result.exception, (InputError, SystemExit)), result.exception
    return result


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """Of a solve that was stopped early, by the command itself."""
    folder = tmp_path_factory.mktemp("commands")
    command = [sys.executable, "-m", "ufm", "solve", *STATED, "--max-steps", "3", "--out", "stopped.npz"]
    env = {**os.environ, "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=env, timeout=300, check=False)
    assert done.returncode == 1
    assert "not solved: max steps" in done.stderr
    return folder / "stopped.npz"


def test_the_command_goes_on_from_a_file(file, tmp_path):
    out = str(tmp_path / "done.npz")
    first = json.loads(ran("solve", "--init", str(file), "--out", out, "--json").stdout)
    assert (first["status"], first["problem"]["offset"], first["problem"]["per_class"]) == ("converged", 0.5, [3, 2, 1])
    assert first["value"] == float(ufm.load(out).solution.value) < float(ufm.load(file).solution.value)
    other = ran("solve", "--init", out, "--decay-b", "0.1", "--offset", "-1", "--json")
    other = json.loads(other.stdout)["problem"]
    assert (other["decay"], other["offset"]) == ({"W": 0.01, "H": 5e-4, "b": 0.1}, -1.0)
    wrong = ran("solve", "--init", out, "--classes", "4")
    assert str(wrong.exception).startswith("per_class")
    assert "or a code such as" in str(ran("solve", "--init", "pyramid").exception)


def test_the_command_shows_and_measures_a_file(file):
    shown = ran("show", str(file))
    assert "max steps after 3 steps" in shown.stdout
    assert f"made with ufm {ufm.__version__}" in shown.stdout
    report = json.loads(ran("show", str(file), "--json").stdout)
    assert report["certificate"]["gap"] == float(ufm.load(file).certificate.gap)
    measured = json.loads(ran("measure", str(file), "--json").stdout)
    found = ufm.load(file)
    logits = np.asarray(found.problem.logits(found.params))
    assert measured["samples"] == 6
    assert measured["accuracy"]["with_bias"] == np.mean(logits.argmax(0) == found.problem.labels)
    assert measured["bias"]["mean"] == pytest.approx(found.params.b.mean() + 0.5, rel=1e-12)


def test_the_command_refuses_by_one_line(file, tmp_path):
    short = tmp_path / "short.npz"
    short.write_bytes(file.read_bytes()[:-10])
    for words in (["show"], ["solve", "--init"]):
        assert f"file = '{short}': must be a whole file" in str(ran(*words, str(short)).exception)
    out = ran("solve", *STATED, "--out", str(tmp_path / "no" / "x.npz"))
    assert "must be the name of a file in a folder that exists" in str(out.exception)


@pytest.mark.parametrize("name", ["shifted", "spheres", "deep-relu", "sets"])
def test_points_of_any_model_are_measured(name, tmp_path):
    problem, path = PROBLEMS[name], str(tmp_path / "x.npz")
    solution = point_of(problem)
    saved.write(path, problem, solution, CERTIFICATE)
    result = ran("measure", path, "--json")
    if name == "sets":
        assert "must be class labels" in str(result.exception)
        return
    logits = np.asarray(problem.logits(solution.params))
    assert json.loads(result.stdout)["accuracy"]["with_bias"] == np.mean(logits.argmax(0) == problem.labels)
