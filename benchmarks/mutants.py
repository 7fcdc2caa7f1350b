"""Do the tests see a mistake? Changes one thing of our code at a time and runs the tests of its file.

python benchmarks/mutants.py --count 200           a random sample of all changes
python benchmarks/mutants.py ti_train/training     of these files only
python benchmarks/mutants.py --dtypes              of dtypes only

A change is a comparison, an operator, a number, a dtype, a condition, a result or a call that is another one or is
missing. It is made in a copy of the repository. The tests of a file are those that mirror it; where there are none,
those that import it. What no test reaches without a host is left out. Needs fork().
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.processor_time import cpu_seconds  # noqa: E402

OURS = ("ti_train", "nodes", "webui_tab")
MOST_TESTS = 3  # files that import a module which none mirrors
SECONDS = 120  # of CPU for the tests of a file
LEFT_OUT = (".git", ".venv*", ".*_cache", ".hypothesis", "__pycache__", "node_modules")  # of the copy
COMPARISONS: dict[type, type] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
}  # fmt: skip
OPERATORS: dict[type, type] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult, ast.Pow: ast.Mult, ast.And: ast.Or, ast.Or: ast.And, ast.BitOr: ast.BitAnd,
    ast.BitAnd: ast.BitOr,
}  # fmt: skip
BESIDE = {  # tests that reach a module through another one
    "ti_train/host.py": [
        "hosts/test_adapter.py",
        "test_embedding.py",
        "evaluation/test_comparison.py",
        "training/test_condensing.py",
    ],
    "ti_train/formats/reading.py": ["formats/test_formats.py", "formats/test_layouts.py"],
    "ti_train/formats/preview.py": ["formats/test_modelspec.py", "formats/test_formats.py"],
    "ti_train/hosts/diffusers/original_layout.py": ["hosts/test_diffusers_loading.py"],
    "ti_train/hosts/diffusers/packed_convolutions.py": ["hosts/test_diffusers_hardware.py"],
    "ti_train/hosts/weights.py": ["hosts/test_adapter.py"],
    "ti_train/training/cross_initialization.py": ["training/test_initial_vectors.py"],
    "ti_train/training/loop.py": [f"training/test_loop_{of}.py" for of in ("resumed", "saving", "failures")],
    "ti_train/training/passes.py": ["training/test_loop.py"],
    "ti_train/training/pictures.py": ["training/test_keeping.py", "training/test_checkpoint.py"],
    "ti_train/training/steps.py": ["training/test_loop.py", "training/test_ablations.py"],
    "ti_train/training/state_file.py": ["training/test_checkpoint.py"],
    "ti_train/commands/convert.py": ["commands/test_export_commands.py"],
    "ti_train/commands/merge.py": ["commands/test_export_commands.py"],
    "ti_train/data/picture.py": ["data/test_masks.py"],
    "ti_train/data/removal.py": ["webui_tab/test_pictures.py"],
    "nodes/page/embeddings.py": ["nodes/test_page_routes.py"],
    "nodes/page/folder_view.py": ["nodes/test_page_routes.py"],
    "nodes/page/records.py": ["nodes/test_page_routes.py"],
    "nodes/page/answers.py": ["nodes/test_page_routes.py"],
    "webui_tab/folders.py": ["webui_tab/test_pictures.py"],
    "webui_tab/request.py": ["webui_tab/test_jobs.py"],
    "webui_tab/unfinished.py": ["webui_tab/test_jobs.py"],
}
DTYPES = {"float64": "float32", "float32": "float16", "float16": "float32", "bfloat16": "float16", "float": "half"}
NAMES = {"min": "max", "max": "min", "any": "all", "all": "any"}


@dataclass(frozen=True)
class Mutant:
    """One change of a file. what: before -> after. source: the whole file's."""

    file: str
    line: int
    what: str
    source: str


def changed(node: ast.AST) -> Iterator[ast.AST]:
    """The changes of one node, made in the node itself; it is as it was after each."""
    match node:
        case ast.Compare(ops=[op]) if type(op) in COMPARISONS:
            yield from _with(node, "ops", [COMPARISONS[type(op)]()])
        case ast.BinOp(op=op) | ast.BoolOp(op=op) if type(op) in OPERATORS:
            yield from _with(node, "op", OPERATORS[type(op)]())
        case ast.Constant(value=bool(value)):
            yield from _with(node, "value", not value)
        case ast.Constant(value=int(value) | float(value)):
            yield from _with(node, "value", value + 1)
        case ast.Attribute(attr=name) if name in NAMES | DTYPES:
            yield from _with(node, "attr", (NAMES | DTYPES)[name])
        case ast.Name(id=name) if name in NAMES:
            yield from _with(node, "id", NAMES[name])
        case ast.If(test=test) | ast.IfExp(test=test) | ast.While(test=test):
            yield from _with(node, "test", ast.UnaryOp(ast.Not(), test))
        case ast.Return(value=ast.expr() as value) if ast.unparse(value) != "None":
            yield from _with(node, "value", ast.Constant(None))
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            yield from _with(node, "operand", ast.UnaryOp(ast.USub(), operand))
        case ast.Expr(value=ast.Call()):
            yield from _with(node, "value", ast.Constant(None))
        case ast.AugAssign(op=op) if type(op) in OPERATORS:
            yield from _with(node, "op", OPERATORS[type(op)]())


def _with(node: ast.AST, field: str, value: object) -> Iterator[ast.AST]:
    before = getattr(node, field)
    setattr(node, field, value)
    yield node
    setattr(node, field, before)


def code_in(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes below one that run: no annotations, and no messages."""
    for field, value in ast.iter_fields(node):
        if field in ("annotation", "returns", "decorator_list") or isinstance(node, ast.JoinedStr):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                yield child
                yield from code_in(child)


def changes_in(file: Path, dtypes: bool) -> list[int]:
    """The numbers of its changes. dtypes: of those only."""
    nodes = [node for node in list(code_in(parsed(file))) for _ in changed(node)]
    return [number for number, node in enumerate(nodes) if not dtypes or getattr(node, "attr", None) in DTYPES]


def mutant_of(file: Path, number: int) -> Mutant:
    """number: of the change, from 0."""
    tree = parsed(file)
    for node in list(code_in(tree)):
        before = ast.unparse(node)
        for _ in changed(node):
            if not number:
                what = f"{before.splitlines()[0]} -> {ast.unparse(node).splitlines()[0]}"
                return Mutant(file.relative_to(ROOT).as_posix(), getattr(node, "lineno", 0), what, ast.unparse(tree))
            number -= 1
    raise IndexError(f"{file} has fewer changes")


def parsed(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


def own_tests(file: Path) -> list[str]:
    """The test files of a module, relative to the repository; [] if there are none."""
    path = file.relative_to(ROOT)
    *folders, name = path.parts[path.parts[0] == "ti_train" :]
    stem = folders.pop() if name == "host.py" and folders else Path(name).stem.strip("_")  # of __main__.py: main
    names = {f"test_{stem}.py", f"test_{stem}_command.py", f"test_{'_'.join([*folders[-1:], stem])}.py"}
    there = [test for test in sorted((ROOT / "tests").rglob("test_*.py")) if _runs(test)]
    near = [ROOT / "tests" / Path(*each) for each in (folders, folders[:1]) if each or not folders]
    mirrors = [test for test in there if test.name in names and test.parent in near]
    module = ".".join(path.with_suffix("").parts)
    importing = [test for test in there if f"{module} import" in test.read_text(encoding="utf-8")]
    beside = [ROOT / "tests" / test for test in BESIDE.get(path.as_posix(), ())]
    chosen = [*mirrors, *beside] or sorted(importing, key=lambda test: test.stat().st_size)[:MOST_TESTS]
    return [test.relative_to(ROOT).as_posix() for test in chosen]


def _runs(test: Path) -> bool:
    """Whether some of its tests need no host and are quick: pytest fails where it has none to run."""
    text = test.read_text(encoding="utf-8")
    return not {"comfyui", "webui"} & {*test.parts} and text.count("def test_") > text.count("mark.slow")


def survives(copy: Path, tests: Sequence[str], mutant: Mutant | None = None) -> bool:
    """Whether the tests pass with a change, or without, in a child of this process, which has the libraries loaded."""
    file = copy / mutant.file if mutant else None
    original = file.read_bytes() if file else b""
    if file and mutant:
        file.write_text(mutant.source, encoding="utf-8")
    child = os.fork()
    if not child:
        _run(copy, tests)
    passed = ended_well(child)
    if file:
        file.write_bytes(original)
    return passed


def _run(copy: Path, tests: Sequence[str]) -> NoReturn:
    os.setpgid(0, 0)
    status = 1
    try:
        with (copy / "said").open("w") as said:
            os.dup2(said.fileno(), 1)
            os.dup2(said.fileno(), 2)
        os.chdir(copy)
        sys.path[0] = str(copy)
        import pytest

        status = pytest.main(["-x", "-q", "-p", "no:cacheprovider", "-m", "not slow", *tests])
    finally:
        os._exit(status)


def ended_well(child: int) -> bool:
    """Waits for a process; False if it needs more CPU than it may, which an endless loop does."""
    try:
        while True:
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                return os.waitstatus_to_exitcode(status) == 0
            if cpu_seconds(child) > SECONDS:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
                return False
            time.sleep(0.05)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)  # what its tests have started


def main(given: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="*", default=OURS, help="files or folders (default: all of our code)")
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--minutes", type=float, default=60, help="after which the sample ends")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--skip", type=int, default=0, help="of the sample: those that an earlier call has tried")
    parser.add_argument("--dtypes", action="store_true", help="only changes of dtypes")
    a = parser.parse_args(given)
    paths = [ROOT / path for path in a.paths]
    files = sorted(file for path in paths for file in (path.rglob("*.py") if path.is_dir() else [path]))
    tests = {file.relative_to(ROOT).as_posix(): own_tests(file) for file in files}
    print("Without tests that run without a host:", *(name for name, own in tests.items() if not own))
    tested = [file for file in files if tests[file.relative_to(ROOT).as_posix()]]
    drawn = [(file, number) for file in tested for number in changes_in(file, a.dtypes)]
    sample = random.Random(a.seed).sample(drawn, min(a.count, len(drawn)))
    chosen = [mutant_of(*each) for each in sample[a.skip :]]
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        copy = Path(folder) / "copy"
        shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(*LEFT_OUT), symlinks=True)
        seen = list(tried(chosen, tests, copy, time.monotonic() + 60 * a.minutes))
    print(f"{sum(seen)} of {len(seen)} changes (of {len(drawn)}) are seen by the tests of their own file.")
    return 0


def tried(chosen: Sequence[Mutant], tests: dict[str, list[str]], copy: Path, until: float) -> Iterator[bool]:
    """Whether each is seen; prints those that are not. until: by the monotonic clock."""
    load_libraries()
    passing: dict[str, bool] = {}
    for mutant in chosen:
        own = tests[mutant.file]
        if mutant.file not in passing:
            passing[mutant.file] = survives(copy, own)
            if not passing[mutant.file]:
                print(f"{mutant.file}: {' '.join(own)} fail without a change", flush=True)
        if time.monotonic() > until:
            return
        if passing[mutant.file]:
            survived = survives(copy, own, mutant)
            if survived:
                print(f"{mutant.file}:{mutant.line}: {mutant.what}", flush=True)
            yield not survived


def load_libraries() -> None:
    """What each child would load for itself otherwise."""
    sys.dont_write_bytecode = True
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    import diffusers  # noqa: F401
    import hypothesis  # noqa: F401
    import pytest  # noqa: F401
    import torch
    import transformers  # noqa: F401

    torch.set_num_threads(1)  # a fork has only the thread that forked


if __name__ == "__main__":
    sys.exit(main())
