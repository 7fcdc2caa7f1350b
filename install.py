"""Set-up, with the standard library only.

python install.py                   what a host calls: adds what its Python misses, moves nothing
python install.py --demo            makes .venv if there is none, and runs the demo in it
python install.py --check           the same with the tools: ruff and mypy
python install.py --test [-- ...]   --check, then pytest (gets the rest)
python install.py --test --oldest   pytest on the oldest libraries; needs Python 3.10 or 3.11

No syntax here is newer than Python 3.8, so that an old Python gets far enough to be told.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import re
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path

from ti_train.commands.terminal import show_any_text

ROOT = Path(__file__).resolve().parent
HOST_OWNED = ("torch", "torchvision", "numpy")  # chosen for a machine by its host, never by us
VERSION = re.compile(r"(\d+!)?\d+(\.\d+)*((a|b|rc)\d+)?(\.post\d+)?(\.dev\d+)?(\+[\w.-]+)?", re.I)
REMEDY = "run the same again to continue."


def say(sentence: str) -> None:
    print(f"ti-train: {sentence}", flush=True)


def refusal(running: tuple[int, ...], oldest: bool = False) -> str:
    """Why this Python will not do, or ""."""
    if running[:2] < (3, 10):
        return "Python 3.10 or newer is needed, this is {}.{}.".format(*running)
    if oldest and running[:2] > (3, 11):
        return "torch 2.1 needs Python 3.10 or 3.11, this is {}.{}.".format(*running)
    return ""


def requirements(file: str) -> list[str]:
    lines = (ROOT / file).read_text(encoding="utf-8").splitlines()
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def extra(name: str) -> list[str]:
    """One list of [project.optional-dependencies]; tomllib would need Python 3.11."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    found = re.findall(rf"^{name} = (\[[^\]]*\])", text, re.MULTILINE)
    return [str(item) for item in ast.literal_eval(found[0])]


def installed(requirement: str) -> str:
    """The version this Python has of a requirement's package, or ""."""
    try:
        return metadata.version(re.split(r"[<>=]", requirement)[0]) or ""
    except metadata.PackageNotFoundError:
        return ""


def numbers(version: str) -> list[int]:
    """What counts in a comparison: "2.1.2+cu121" is [2, 1, 2, 0]."""
    return ([int(n) for n in re.findall(r"\d+", re.split(r"[^\d.]", version)[0])] + [0] * 4)[:4]


def is_met(requirement: str) -> bool:
    bound, have = re.split(r"[<>=]+", requirement + "=")[1], installed(requirement)
    if "==" in requirement:
        return bool(have) and numbers(have) == numbers(bound)
    return bool(have) and numbers(have) >= numbers(bound)


def pip_install(python: str, *what: str) -> list[str]:
    options = ("--no-input", "--disable-pip-version-check", "--retries", "2")
    return [python, "-m", "pip", "install", *options, *what]


def pins() -> str:
    """A pip constraints file that holds every installed package at the version it has.

    Safer than --no-deps and a list of our own: pip still finds what a missing package needs, picks
    an older release where a newer one asks too much, and fails rather than move the host's torch.
    """
    have: dict[str, str] = {}
    for found in metadata.distributions():  # in import order: the first of a name is the one in use
        name, version = found.metadata["Name"], found.version
        if name and version and VERSION.fullmatch(version):
            have.setdefault(re.sub(r"[-_.]+", "-", name).lower(), version)
    return "".join(f"{name}=={version}\n" for name, version in sorted(have.items()))


def set_up_host() -> int:
    wanted = requirements("requirements.txt")
    missing = [line for line in wanted if not installed(line)]
    for line in wanted:
        if line not in missing and not is_met(line):
            say(f"{line} is wanted, {installed(line)} is here and is left alone.")
    absent = [name for name in HOST_OWNED if not installed(name)]
    if missing and absent:  # not a failure: a host must still start
        say(f"{', '.join(absent)} missing: install as your host asks, then run install.py again.")
    elif missing:
        say(f"installing {', '.join(missing)}")
        with tempfile.TemporaryDirectory() as folder:
            constraints = Path(folder, "constraints.txt")
            constraints.write_text(pins(), encoding="utf-8")
            command = pip_install(sys.executable, "--quiet", "-c", str(constraints), *missing)
            if subprocess.run(command).returncode:
                sys.exit(f"ti-train: pip could not add {', '.join(missing)}; nothing was changed.")
    return 0


def python_of(venv: Path) -> str:
    return str(venv / ("Scripts/python.exe" if os.name == "nt" else "bin/python"))


def unmet_in(venv: Path, wanted: list[str]) -> list[str] | None:
    """What an environment of ours lacks; None if no Python works there."""
    try:
        question = [python_of(venv), str(ROOT / "install.py"), "--unmet", json.dumps(wanted)]
        answer = subprocess.run(question, capture_output=True, text=True, check=True)
        return [str(line) for line in json.loads(answer.stdout)]
    except (OSError, ValueError, subprocess.CalledProcessError):
        return None


def ready(folder: str, wanted: list[str]) -> str:
    """The Python of an environment that holds `wanted`: made, or completed, if it has to be."""
    venv = ROOT / folder
    unmet = unmet_in(venv, ["pip", *wanted])
    if unmet is None or "pip" in unmet:
        say(f"making {folder}")
        if subprocess.run([sys.executable, "-m", "venv", "--clear", str(venv)]).returncode:
            sys.exit(f"ti-train: this Python lacks the venv module; install it and {REMEDY}")
        unmet = wanted
    if unmet:
        say(f"installing into {folder}, once, which takes minutes: {', '.join(unmet)}")
        if subprocess.run(pip_install(python_of(venv), *wanted)).returncode:
            sys.exit(f"ti-train: pip failed (see above); check the network and {REMEDY}")
    return python_of(venv)


def demo(rest: list[str]) -> int:
    python = ready(".venv", requirements("requirements.txt") + extra("cli"))
    return subprocess.run([python, "-m", "demo", *rest], cwd=ROOT).returncode


CHECKS = ("ruff check .", "ruff format --check .", "mypy")


def check(python: str) -> list[str]:
    """The checks that fail."""
    failed = []
    for step in CHECKS:
        say(step)
        if subprocess.run([python, "-m", *step.split()], cwd=ROOT).returncode:
            failed.append(step)
    return failed


def development() -> str:
    """The Python of the environment with the tools."""
    return ready(".venv", requirements("requirements.txt") + extra("test"))


def test(oldest: bool, rest: list[str]) -> int:
    python = ready(".venv-oldest", requirements("tests/oldest.txt")) if oldest else development()
    failed = [] if oldest else check(python)
    say(f"pytest (failed so far: {', '.join(failed)})" if failed else "pytest")
    # a process per core, as each test computes on one; a file's tests share its fixtures
    shared = ["-n", "auto", "--maxprocesses", "4", "--dist", "loadfile"]
    code = subprocess.run([python, "-m", "pytest", "-q", *shared, *rest], cwd=ROOT).returncode
    return code or len(failed)


def main(argv: list[str]) -> int:
    cut = argv.index("--") if "--" in argv else len(argv)
    parser = argparse.ArgumentParser(usage=(__doc__ or "").split("\n\n")[1])
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--demo", action="store_true")
    mode.add_argument("--check", action="store_true")
    mode.add_argument("--test", action="store_true")
    mode.add_argument("--unmet", type=json.loads, help=argparse.SUPPRESS)  # asked by unmet_in
    parser.add_argument("--oldest", action="store_true")
    asked, rest = parser.parse_args(argv[:cut]), argv[cut + 1 :]
    sentence = refusal(sys.version_info[:2], asked.oldest)
    if sentence:
        sys.exit(f"ti-train: {sentence}")
    if asked.unmet is not None:
        print(json.dumps([line for line in asked.unmet if not is_met(line)]))
        return 0
    if asked.demo:
        return demo(rest)
    if asked.check:
        return len(check(development()))
    return test(asked.oldest, rest) if asked.test else set_up_host()


if __name__ == "__main__":
    show_any_text()
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(f"ti-train: stopped; {REMEDY}")
