"""The page's scripts as far as they can be run and read without a page."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = sorted((ROOT / "web").rglob("*.js"))
API = """
const heard = {};
export const api = {
  addEventListener: (name, listener) => (heard[name] = listener),
  say: (name, detail) => heard[name]({ detail }),
  fetchApi: async () => Response.json({}),
};
"""


def test_the_scripts_that_need_no_page(tmp_path):
    """tests/page/*.test.mjs beside copies of the scripts, two folders below the host's."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("There is no Node.js on the PATH to run tests/page/*.test.mjs")
    (tmp_path / "package.json").write_text('{"type": "module"}', encoding="utf-8")
    beside, host = tmp_path / "extensions" / "ti-train", tmp_path / "scripts"
    for folder in (beside, host):
        folder.mkdir(parents=True)
    for file in (*(ROOT / "tests" / "page").glob("*.test.mjs"), *(ROOT / "web").glob("*.js")):
        shutil.copy(file, beside)
    (host / "api.js").write_text(API, encoding="utf-8")
    (host / "app.js").write_text("export const app = {};", encoding="utf-8")
    ran = subprocess.run([node, "--test", tmp_path], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout
    assert "pass 0" not in ran.stdout


def test_types_and_lint():
    """What `npm run check` says, where its tools are."""
    npm = shutil.which("npm")
    if npm is None or not (ROOT / "node_modules").is_dir():
        pytest.skip("TypeScript and ESLint are not here: npm install --no-package-lock")
    ran = subprocess.run([npm, "run", "check"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_text_is_never_parsed_as_html(script):
    """Names, prompts and captions come from users and from files."""
    source = script.read_text(encoding="utf-8")
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", source)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_only_the_hosts_current_modules_are_imported(script):
    """scripts/ui.js and extensions/core/* log a warning in every user's console."""
    imported = re.findall(r'from "(\.\./[^"]+)"', script.read_text(encoding="utf-8"))
    assert set(imported) <= {"../../scripts/app.js", "../../scripts/api.js"}
