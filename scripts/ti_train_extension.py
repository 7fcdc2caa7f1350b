"""Run by the WebUI: loads the pack as a package, so that imports within it are relative, and registers it."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path

PACK = "ti_train_extension_pack"  # a name of its own: the folder of a clone may have any, and Forge has `webui` itself

if PACK not in sys.modules:  # "Reload UI" runs this file again
    root = Path(__file__).resolve().parent.parent
    spec = importlib.util.spec_from_file_location(PACK, root / "__init__.py", submodule_search_locations=[str(root)])
    pack = importlib.util.module_from_spec(spec)
    sys.modules[PACK] = pack
    spec.loader.exec_module(pack)

importlib.import_module(f"{PACK}.webui_tab.register").register()
