"""The WebUI runs this file. It loads the pack as a package, for its relative imports, and registers it."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path

PACK = "ti_train_extension_pack"  # a unique name: a clone's folder may have any name, and Forge has a module `webui`

if PACK not in sys.modules:  # "Reload UI" runs this file again
    root = Path(__file__).resolve().parent.parent
    spec = importlib.util.spec_from_file_location(PACK, root / "__init__.py", submodule_search_locations=[str(root)])
    pack = importlib.util.module_from_spec(spec)
    sys.modules[PACK] = pack
    spec.loader.exec_module(pack)

importlib.import_module(f"{PACK}.webui_tab.register").register()
