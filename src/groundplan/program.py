"""Start one of our modules as a process of its own: `python -m groundplan.program MODULE ARGUMENT...`.

What loading hundreds of modules makes stays. To look for garbage among it meanwhile, and once more at the end, is a
quarter of the computing of a start, so neither is done here. `MODULE.main()` reads `sys.argv` and returns the exit
code.
"""

from __future__ import annotations

import gc
import importlib
import sys

from groundplan.core.settings import clear_libpq_formats, disable_pydantic_plugins


def main() -> int:
    gc.disable()
    disable_pydantic_plugins()
    clear_libpq_formats()
    name = sys.argv[1]
    del sys.argv[0]
    module = importlib.import_module(name)
    gc.freeze()
    gc.enable()
    code: int = module.main()
    return code


if __name__ == "__main__":
    sys.exit(main())
