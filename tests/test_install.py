"""install.py: what it finds missing, what it would ask of pip, and that it stays out of the way."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from importlib import metadata

import pytest

import install

HOST = {  # an AUTOMATIC1111 of 2024, with all that ti-train needs
    "torch": "2.1.2+cu121",
    "torchvision": "0.16.2+cu121",
    "transformers": "4.30.2",
    "safetensors": "0.4.2",
    "open_clip_torch": "2.20.0",
    "einops": "0.4.1",
    "numpy": "1.26.2",
    "pillow": "9.5.0",
    "packaging": "23.2",
}


class Pip:
    """Stands for subprocess.run: keeps what pip was asked, installs nothing."""

    def __init__(self, returncode: int = 0) -> None:
        self.commands: list[list[str]] = []
        self.constraints = ""
        self.returncode = returncode

    def __call__(self, command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        self.commands.append(command)
        if "-c" in command:
            with open(command[command.index("-c") + 1], encoding="utf-8") as file:
                self.constraints = file.read()
        return subprocess.CompletedProcess(command, self.returncode)


@pytest.fixture
def pip(monkeypatch):
    pip = Pip()
    monkeypatch.setattr(install.subprocess, "run", pip)
    return pip


@pytest.fixture
def host(monkeypatch):
    """The packages of a pretended host; a test takes out or ages what it likes."""
    packages = dict(HOST)

    def version(name: str) -> str:
        if name not in packages:
            raise metadata.PackageNotFoundError(name)
        return packages[name]

    def distributions():
        for name, found in packages.items():
            yield type("Found", (), {"metadata": {"Name": name}, "version": found})

    monkeypatch.setattr(install.metadata, "version", version)
    monkeypatch.setattr(install.metadata, "distributions", distributions)
    return packages


# --- In a host ----------------------------------------------------------------


def test_a_host_that_has_everything_hears_and_pays_nothing(host, pip, capsys):
    assert install.main([]) == 0
    assert pip.commands == []
    assert capsys.readouterr().out == ""


def test_only_what_is_missing_is_installed_and_the_rest_is_pinned(host, pip):
    del host["open_clip_torch"]
    assert install.main([]) == 0
    [command] = pip.commands
    assert command[:4] == [sys.executable, "-m", "pip", "install"]
    assert command[-1] == "open_clip_torch>=2.20"
    assert not {"torch", "torchvision", "numpy"} & {install.re.split("[<>=]", c)[0] for c in command}
    assert "--upgrade" not in command
    assert "torch==2.1.2+cu121\n" in pip.constraints
    assert "numpy==1.26.2\n" in pip.constraints
    assert len(pip.constraints.splitlines()) == len(host)


def test_an_older_package_is_named_and_left_alone(host, pip, capsys):
    host["transformers"] = "4.25.1"
    assert install.main([]) == 0
    assert pip.commands == []
    assert capsys.readouterr().out == ("ti-train: transformers>=4.30 is wanted, 4.25.1 is here and is left alone.\n")


@pytest.mark.parametrize("name", ["torch", "numpy"])
def test_torch_and_numpy_are_left_to_the_host(host, pip, capsys, name):
    del host[name], host["einops"]
    assert install.main([]) == 0, "a host must still start"
    assert pip.commands == []
    assert capsys.readouterr().out.startswith(f"ti-train: {name} missing: install as your host")


def test_a_pip_that_fails_is_told_in_one_sentence(host, pip):
    del host["einops"]
    pip.returncode = 1
    with pytest.raises(SystemExit, match=r"^ti-train: pip could not add einops>=0.4.1; [^\n]+\.$"):
        install.main([])


def test_a_version_pip_cannot_read_is_not_pinned(host):
    host.update(odd="1.0-unknown", nightly="2.6.0.dev20240914+cu124", own="2.1.0a0+32f93b1")
    pins = install.pins().splitlines()
    assert {"nightly==2.6.0.dev20240914+cu124", "own==2.1.0a0+32f93b1"} < set(pins)
    assert not any(pin.startswith("odd") for pin in pins)


def test_the_script_itself_is_quiet_and_quick(tmp_path):
    """For real, as a host calls it, with stand-ins for the packages so that none can be missing."""
    for name, version in HOST.items():
        folder = tmp_path / f"{name}-{version}.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    command = [sys.executable, str(install.ROOT / "install.py")]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert time.perf_counter() - start < 5


# --- In an environment of its own ---------------------------------------------


def test_a_complete_environment_is_used_as_it_is(monkeypatch, pip):
    monkeypatch.setattr(install, "unmet_in", lambda venv, wanted: [])
    assert install.main(["--demo", "--", "--steps", "2"]) == 0
    [command] = pip.commands
    assert command == [
        install.python_of(install.ROOT / ".venv"), "-m", "demo", "--steps", "2"
    ]  # fmt: skip


@pytest.mark.parametrize("unmet", [None, ["pip", "torch>=2.1"]])
def test_a_half_made_environment_is_made_anew(monkeypatch, pip, unmet):
    monkeypatch.setattr(install, "unmet_in", lambda venv, wanted: unmet)
    python = install.ready(".venv-none", ["torch>=2.1"])
    make, fill = pip.commands
    assert make[1:4] == ["-m", "venv", "--clear"]
    assert fill == install.pip_install(python, "torch>=2.1")


def test_an_environment_half_filled_is_completed(monkeypatch, pip):
    monkeypatch.setattr(install, "unmet_in", lambda venv, wanted: ["mypy>=1.11"])
    python = install.ready(".venv-none", ["einops>=0.4.1", "mypy>=1.11"])
    assert pip.commands == [install.pip_install(python, "einops>=0.4.1", "mypy>=1.11")]


def test_no_environment_is_no_answer(tmp_path):
    assert install.unmet_in(tmp_path, ["pip"]) is None


def test_pytest_runs_last_and_any_failure_counts(monkeypatch, pip, capsys):
    monkeypatch.setattr(install, "unmet_in", lambda venv, wanted: [])
    pip.returncode = 1
    assert install.main(["--test", "--", "-k", "fast"]) != 0
    assert [command[2] for command in pip.commands] == ["ruff", "ruff", "mypy", "pytest"]
    shared = ["-n", "auto", "--maxprocesses", "4", "--dist", "loadfile"]
    assert pip.commands[-1][3:] == ["-q", *shared, "-k", "fast"]
    assert "failed so far: ruff check ., ruff format --check ., mypy" in capsys.readouterr().out


def test_the_checks_run_without_the_tests(monkeypatch, pip):
    monkeypatch.setattr(install, "unmet_in", lambda venv, wanted: [])
    assert install.main(["--check"]) == 0
    assert [command[2] for command in pip.commands] == ["ruff", "ruff", "mypy"]


# --- Requirements -------------------------------------------------------------


def test_the_requirements_have_no_upper_bounds():
    lines = install.requirements("requirements.txt")
    names = {line.split(">=")[0] for line in lines}
    assert names == {
        "torch", "transformers", "safetensors", "open_clip_torch", "einops", "numpy", "pillow", "packaging"
    }  # fmt: skip
    assert not any("<" in line or "==" in line for line in lines)


def test_the_oldest_pins_meet_the_requirements(host):
    pins = install.requirements("tests/oldest.txt")
    host.update(pin.split("==") for pin in pins if "==" in pin)
    assert all(map(install.is_met, install.requirements("requirements.txt")))


def test_extras_come_from_pyproject():
    assert {line.split(">=")[0] for line in install.extra("cli")} == {"accelerate", "diffusers", "tqdm"}
    assert set(install.extra("cli")) < set(install.extra("test"))


@pytest.mark.parametrize(
    ("requirement", "met"),
    [
        ("torch>=2.1", True),
        ("torch>=2.1.2", True),
        ("torch>=2.10", False),
        ("torch==2.1.2", True),
        ("torch==2.1", False),
        ("einops", True),
        ("pytest", False),
        ("pytest==0", False),
    ],
)
def test_is_met(host, requirement, met):
    assert install.is_met(requirement) is met


@pytest.mark.parametrize(
    ("running", "oldest", "sentence"),
    [
        ((3, 9), False, "Python 3.10 or newer is needed, this is 3.9."),
        ((3, 10), False, ""),
        ((3, 14), False, ""),
        ((3, 11), True, ""),
        ((3, 12), True, "torch 2.1 needs Python 3.10 or 3.11, this is 3.12."),
    ],
)
def test_a_python_that_will_not_do_is_refused(running, oldest, sentence):
    assert install.refusal(running, oldest) == sentence
