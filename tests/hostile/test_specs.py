"""Specs and saved counterexamples that no one would write: read, or refused by one line that names what is wrong.

``UFM_HOSTILE=10000`` sets the number of draws.
"""

import json
import os
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ufm
from ufm.sweeps import read_spec
from ufm.sweeps._axes import plan

DRAWS = int(os.environ.get("UFM_HOSTILE", "150"))
AXES = "[axes]\nseed = [0]\n"
SPECS = {
    "nested 5,000 deep": ("x = " + "[" * 5000 + "]" * 5000, "nested"),
    "an integer of 5,000 digits": ("[problem]\nclasses = " + "9" * 5000, "digits"),
    "an integer past 64 bits": (f"[problem]\nclasses = {10**20}\n{AXES}", "per_class = .*samples|classes = 1"),
    "a dimension past 64 bits": (f"[problem]\ndim = {10**20}\n{AXES}", "dim"),
    "steps past 32 bits": (f"[solver]\nmax_steps = {10**20}\n{AXES}", "max_steps"),
    "a seed past 64 bits": (f"[axes]\nseed = [{10**20}]", "axis seed = 100000000000000000000: must be a number"),
    "a decay that is a list": (f"[problem]\ndecay = {{W = [1, 2]}}\n{AXES}", r"decay\.W = \[1, 2\]: must be a number"),
    "a decay that is true": (f"[problem]\ndecay = {{W = true}}\n{AXES}", r"decay\.W = True: must be a number"),
    "a decay that is a text": (f"[problem]\ndecay = {{W = '1'}}\n{AXES}", r"decay\.W = '1': must be a number"),
    "a decay that is no table": (f"[problem]\ndecay = 3\n{AXES}", "decay = 3: must be a table"),
    "no axes": ("[axes]", "axes = {}: must be at least one axis"),
    "no lanes": ("lanes = []", r"lanes = \[\]: must be at least one"),
    "a solver that is a number": (f"solver = 5\n{AXES}", r"solver = 5: must be a table: \[solver\]"),
    "a solver's name that is a number": (f"[solver]\nname = 5\n{AXES}", r"solver\.name = 5"),
    "a solver's name that is a date": (f"[solver]\nname = 2020-01-01\n{AXES}", r"solver\.name = "),
    "a start that is a list": (f"start = [1]\n{AXES}", r"start = \[1\]: must be a table: \[start\]"),
    "a problem that is a list": (f"problem = [1]\n{AXES}", r"problem = \[1\]: must be a table"),
    "a title that is a date": (f"title = 2020-01-01\n{AXES}", "title = .*: must be a text"),
    "true steps": (f"[solver]\nmax_steps = true\n{AXES}", "max_steps = True: must be a whole number"),
    "a tolerance that is true": (f"[solver]\ntol = true\n{AXES}", "tol = True: must be a number"),
    "an axis of true": ("[axes]\n'decay.W' = [true]", r"axis decay\.W = True: must be a number"),
    "an axis of texts": ("[axes]\n'decay.W' = ['1.0']", r"axis decay\.W = '1\.0': must be a number"),
    "a lane of texts": ("[[lanes]]\n'decay.W' = '1.0'", r"axis decay\.W = '1\.0': must be a number"),
    "too many seeds": ("[axes]\nseed = {range = [0, 10000000000]}", "lanes = 10000000000: must be at most"),
    "seeds past 64 bits": (f"[axes]\nseed = {{range = [0, {10**20}]}}", "axis seed = .*: must be"),
    "too many points": ("[axes]\n'decay.W' = {log = [1e-3, 1, 10000000000]}", "lanes = 10000000000: must be at most"),
    "points past 64 bits": (f"[axes]\n'decay.W' = {{log = [1e-3, 1, {10**20}]}}", r"axis decay\.W"),
    "a log of a negative number": ("[axes]\n'decay.W' = {log = [-1, 1, 3]}", r"axis decay\.W"),
    "a product that overflows": (
        "[axes]\n" + "\n".join(f"'{x}' = {{range = [0, 100000]}}" for x in ("seed", "scale", "bias_mean", "decay.b")),
        f"lanes = {10**20}: must be at most",
    ),
    "no text": ("\x00", "line 1"),
}


@pytest.mark.parametrize("name", SPECS)
def test_a_spec_that_is_none(name, tmp_path):
    text, message = SPECS[name]
    path = tmp_path / "spec.toml"
    path.write_text(text)
    began = time.process_time()
    with pytest.raises(ufm.InputError, match=message) as error:
        ufm.sweep(**read_spec(path))
    assert time.process_time() - began < 30  # it neither hangs nor lays out what it refuses
    assert "\n" not in str(error.value)
    assert len(str(error.value).removeprefix(str(path))) < 300


def test_a_spec_is_a_file():
    for name in ("/dev/zero", "a\0b", "/"):
        with pytest.raises(ufm.InputError, match=r"^spec = "):
            read_spec(name)


SCALARS = st.one_of(
    st.integers(-3, 3),
    st.sampled_from(
        [10**9, 2**31, 2**53, 2**63, 10**20, -(10**20), 1e-320, 1e300, 1e-3, 0.5, float("inf"), float("nan")]
    ),
    st.booleans(),
    st.sampled_from(
        ["", "bce", "ce", "mse:kappa=0", "focal:gamma=x", "none", "unified", "newton", "sgd:lr=0.1", "ü\t\\"]
    ),
)
VALUES = st.one_of(
    SCALARS,
    st.lists(SCALARS, max_size=3),
    st.lists(st.lists(SCALARS, max_size=2), max_size=2),
    st.dictionaries(
        st.sampled_from(["W", "H", "b", "log", "linear", "range"]), st.lists(SCALARS, max_size=3), max_size=2
    ),
)
NAMES = {
    "": ["title", "dtype", "problem", "solver", "start", "axes", "lanes", "x"],
    "problem": [
        "loss",
        "classes",
        "dim",
        "per_class",
        "decay",
        "bias",
        "features",
        "model",
        "weights",
        "offset",
        "gamma",
    ],
    "solver": ["name", "tol", "max_steps", "record_every", "record"],
    "start": ["seed", "scale", "bias_mean"],
    "axes": [
        "seed",
        "scale",
        "decay.W",
        "decay.W,decay.H",
        "loss",
        "classes",
        "per_class",
        "bias",
        "model",
        "solver",
        "decay",
    ],
}


def toml(value):
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(k)} = {toml(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    if isinstance(value, float):
        return repr(value)
    return json.dumps(value)


@settings(max_examples=DRAWS)
@given(data=st.data())
def test_a_sound_spec_with_one_or_two_changes(tmp_path_factory, data):
    """Laid out without an error, or refused by a line; nothing is solved."""
    spec = {
        "problem": {"classes": 3, "dim": 4, "per_class": 2, "decay": {"W": 0.01, "H": 0.01, "b": 0.01}},
        "solver": {"name": "newton"},
        "start": {"seed": 0},
        "axes": {"decay.W": [0.01, 0.1], "seed": [0, 1]},
    }
    for _ in range(data.draw(st.integers(1, 2))):
        section = data.draw(st.sampled_from(sorted(NAMES)))
        name = data.draw(st.sampled_from(NAMES[section]))
        target = spec if section == "" else spec.setdefault(section, {})
        if isinstance(target, dict):
            target[name] = data.draw(VALUES)
    path = tmp_path_factory.getbasetemp() / "mutated.toml"
    path.write_text("\n".join(f"{json.dumps(name)} = {toml(value)}" for name, value in spec.items()))
    try:
        given = read_spec(path)
        start = {name: given.pop(name) for name in ("seed", "scale", "bias_mean") if name in given}
        plan(given["problem"], given["axes"], given["solver"], start, "float64", given["options"])
    except ufm.InputError as error:
        text = str(error).removeprefix(f"{path}: ")
        assert "\n" not in text
        assert len(text) < 300, text
        assert " = " in text or "line" in text or ":" in text, text


SAVED = {
    "theorem": "zhu2021/3.1",
    "problem": {"loss": "ce", "classes": 3, "dim": 4, "per_class": 2, "decay": {"W": 0.01, "H": 0.01, "b": 0.01}},
    "seed": 0,
    "verdict": "holds",
}
RERUNS = {
    "nested 100,000 deep": ("[" * 100_000, "counterexample saved"),
    "an infinite seed": (json.dumps({**SAVED, "seed": float("inf")}), "seed = inf: must be a whole number"),
    "a seed that is true": (json.dumps({**SAVED, "seed": True}), "seed = True: must be a whole number"),
    "a seed that is a text": (json.dumps({**SAVED, "seed": "0"}), "seed = '0': must be a whole number"),
    "a seed past 64 bits": (json.dumps({**SAVED, "seed": 10**20}), "seed = 100000000000000000000"),
    "an unknown key": (json.dumps({**SAVED, "sed": 1}), "did you mean 'seed'"),
    "an unknown theorem": (json.dumps({**SAVED, "theorem": "x"}), "no 'x'"),
    "a theorem that is a list": (json.dumps({**SAVED, "theorem": [1]}), "counterexample saved"),
    "a verdict that is none": (json.dumps({**SAVED, "verdict": "true"}), "counterexample saved"),
    "a problem that is a list": (json.dumps({**SAVED, "problem": [1]}), "problem"),
    "a decay that is a text": (json.dumps({**SAVED, "problem": {"decay": {"W": "1"}}}), r"decay\.W = '1'"),
    "a list": ("[1]", "counterexample saved"),
    "nothing": ("", "counterexample saved"),
    "no text": ("\udcff", "counterexample saved"),
    "an integer of 5,000 digits": ('{"seed": ' + "9" * 5000 + "}", "counterexample saved"),
}


@pytest.mark.parametrize("name", RERUNS)
def test_a_counterexample_that_is_none(name, tmp_path):
    text, message = RERUNS[name]
    path = tmp_path / "saved.json"
    path.write_text(text, errors="surrogateescape")
    with pytest.raises(ufm.InputError, match=message) as error:
        ufm.atlas.rerun(path, ufm.atlas.THEOREMS)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 300 + len(str(path))
