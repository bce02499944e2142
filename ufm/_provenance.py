"""Where, when and with what results were computed."""

from __future__ import annotations

import datetime
import functools
import hashlib
import platform
import re
import socket
import subprocess
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax

from ufm._version import __version__


def solved_with(device: str) -> dict[str, str]:
    """What decides about the digits of a result: versions, the source of the package, and the device."""
    versions = {"ufm": __version__, "source": source_digest(), "jax": jax.__version__, "numpy": np.__version__}
    return versions | {"optax": optax.__version__, "python": platform.python_version(), "device": device}


def provenance() -> dict[str, Any]:
    """Where and when a sweep began."""
    started = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return {"revision": _revision(), "started": started, "host": host()}


@functools.cache
def source_digest() -> str:
    """Of every Python file of the package, in twelve digits: versions alone do not tell two states of a clone apart."""
    root, digest = Path(__file__).parent, hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:12]


def _revision() -> str | None:
    """Git revision of the package's source, with a mark where it was changed since."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=40", "--match", ""]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip() or None
    except (OSError, subprocess.SubprocessError):
        return None


def host() -> str:
    """Name of this machine, as file names hold it."""
    return re.sub(r"[^\w.-]", "_", socket.gethostname())
