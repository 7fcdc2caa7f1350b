"""Who may import what, and that the package works wherever and under whatever name it is loaded."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "ti_train"
HOSTS = sorted((PACKAGE / "hosts").rglob("*.py"))
CORE = sorted({*PACKAGE.rglob("*.py")} - {*HOSTS})
HOST_PACKAGES = {
    "backend", "comfy", "comfy_api", "comfy_execution", "diffusers", "folder_paths", "gradio", "ldm_patched",
    "modules", "modules_forge", "open_clip", "transformers",
}  # fmt: skip
OF_THE_JUDGES = {"clip": {"open_clip"}, "dino": {"transformers"}}  # imported when an evaluation asks for them
BESIDE_IT = {"benchmarks", "demo", "nodes", "tests", "webui_tab"}
OWN = {  # what the adapters of a folder stand on; what lies beside the folders stands on no host
    "hosts": set(),
    "comfy": {"comfy", "comfy_kitchen"},
    "diffusers": {"diffusers", "transformers"},
    "webui": {"backend", "ldm_patched", "modules", "modules_forge"},
}
ONE_WEBUI = {  # and within webui/, where one module is one program
    "host": {"modules"},
    "families": set(),
    "a1111": {"modules"},
    "reforge": {"ldm_patched", "modules", "modules_forge"},
    "forge": {"backend", "modules"},
}


def imported_by(file: Path) -> list[tuple[int, str]]:
    """(level, dotted name) of every import, those within functions too; the level counts leading dots."""
    found: list[tuple[int, str]] = []
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [(0, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found.append((node.level, node.module or ""))
    return found


def own_imports(file: Path) -> set[str]:
    """The project's modules that a file imports, by their names from the root."""
    package = file.relative_to(ROOT).parts[:-1]
    return {
        ".".join([*package[: len(package) - level + 1], *filter(None, [name])])
        for level, name in imported_by(file)
        if level
    }


def packages_of(file: Path) -> set[str]:
    return {name.partition(".")[0] for level, name in imported_by(file) if level == 0}


@pytest.mark.parametrize("file", CORE, ids=lambda file: file.stem)
def test_the_core_imports_no_host(file):
    assert packages_of(file) & HOST_PACKAGES <= OF_THE_JUDGES.get(file.stem, set())


@pytest.mark.parametrize("file", [file for file in CORE if file.parent.name != "commands"], ids=lambda file: file.stem)
def test_the_core_reaches_no_adapter(file):
    assert not {name for name in own_imports(file) if name.startswith("ti_train.hosts")}


@pytest.mark.parametrize("file", HOSTS, ids=lambda file: f"{file.parent.name}.{file.stem}")
def test_an_adapter_imports_its_own_host_and_no_other(file):
    folder = next(iter(file.relative_to(PACKAGE / "hosts").parts[:-1]), "hosts")
    own = ONE_WEBUI.get(file.stem, OWN[folder]) if folder == "webui" else OWN[folder]
    assert packages_of(file) & HOST_PACKAGES <= own
    adapters = {name.split(".")[2] for name in own_imports(file) if name.startswith("ti_train.hosts.")}
    assert adapters & {*OWN} <= {folder}


@pytest.mark.parametrize("file", CORE + HOSTS, ids=lambda file: file.stem)
def test_within_the_package_all_imports_are_relative(file):
    assert "ti_train" not in packages_of(file)


@pytest.mark.parametrize("file", CORE + HOSTS, ids=lambda file: file.stem)
def test_the_package_knows_nothing_of_what_lies_beside_it(file):
    """It is installed without the demo, the nodes and the tab."""
    assert not packages_of(file) & BESIDE_IT
    assert all(name.startswith("ti_train") for name in own_imports(file))


def module_file(dotted: str) -> Path | None:
    """The file of a module of the project by its name from the root, or None."""
    place = ROOT.joinpath(*dotted.split("."))
    return next((file for file in (place.with_suffix(".py"), place / "__init__.py") if file.is_file()), None)


def names_in(file: Path) -> set[str]:
    """All names that a module has at its top, and a package's modules."""
    found = {path.stem for path in file.parent.iterdir()} if file.stem == "__init__" else set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        match node:
            case ast.ImportFrom() | ast.Import():
                found |= {alias.asname or alias.name for alias in node.names}
            case ast.FunctionDef() | ast.ClassDef():
                found.add(node.name)
            case ast.Name(ctx=ast.Store()):
                found.add(node.id)
    return found


IN_A_HOST = sorted(path for folder in ("nodes", "webui_tab", "scripts") for path in (ROOT / folder).rglob("*.py"))


@pytest.mark.parametrize("file", IN_A_HOST, ids=lambda file: f"{file.parent.name}.{file.stem}")
def test_what_a_hosts_part_imports_of_the_project_is_there(file):
    """mypy does not see these parts, and their own tests need a host."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            parts = file.parent.relative_to(ROOT).parts
            package = parts[: len(parts) - node.level + 1]
            name = ".".join([*package, *filter(None, [node.module])])
            source = module_file(name)
            assert source, f"{file.name}, line {node.lineno}: there is no module {name}"
            assert {alias.name for alias in node.names} <= names_in(source), f"{file.name}, line {node.lineno}"


def run(code: str, folder: Path) -> str:
    environment = {**os.environ, "PYTHONPATH": "", "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=folder, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_every_private_function_is_called():
    """One of a host was not, after its caller had moved: Forge loaded another checkpoint in mid-training."""
    packages = [ROOT / folder for folder in ("ti_train", "nodes", "webui_tab")]
    trees = [ast.parse(file.read_text(encoding="utf-8")) for folder in packages for file in folder.rglob("*.py")]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    defined = {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    named = {getattr(node, "attr", None) or getattr(node, "id", None) for node in nodes}
    private = {name for name in defined if name.startswith("_") and not name.startswith("__")}
    assert private - named == {"_known"}, "pydantic calls this one"


def test_importing_the_core_loads_no_host():
    """A host that starts up must not wait for libraries that only the command line needs."""
    loaded = run("import sys, ti_train.training.loop, ti_train.__main__; print(*sys.modules)", ROOT).split()
    assert "ti_train.training.loop" in loaded
    assert not {"diffusers", "transformers", "open_clip", "accelerate"} & set(loaded)


AS_COMFYUI_DOES = """
import importlib.util, sys
from pathlib import Path
path = Path({folder!r})
name = str(path).replace(".", "_x_")  # ComfyUI names the module by its path
spec = importlib.util.spec_from_file_location(name, path / "__init__.py", submodule_search_locations=[str(path)])
module = importlib.util.module_from_spec(spec)
sys.modules[name] = module
spec.loader.exec_module(module)
loop = importlib.import_module(".ti_train.training.loop", name)
assert "ti_train" not in sys.modules, "a second copy was imported under its bare name"
print(loop.train.__module__ == name + ".ti_train.training.loop")
"""


def test_the_pack_loads_under_a_modules_name_that_is_a_path(tmp_path):
    folder = tmp_path / "custom_nodes" / "Textual Inversion-1.0"
    shutil.copytree(PACKAGE, folder / "ti_train", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "__init__.py").write_text("from .ti_train.training import loop\n", encoding="utf-8")
    code = AS_COMFYUI_DOES.format(folder=str(folder))
    assert run(code, tmp_path) == "True"
