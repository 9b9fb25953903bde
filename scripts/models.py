"""Fetch and check the embedded models, so that the tests need no network afterwards."""

import sys

from groundplan.core.errors import GroundplanError
from groundplan.core.settings import load_settings
from groundplan.runtime.models import MINILM, SMOLLM2, ensure


def main() -> int:
    for model in (SMOLLM2, MINILM):
        sys.stderr.write(f"groundplan: model {model.name} (checked by SHA-256)\n")
        try:
            ensure(load_settings().models, model.name)
        except GroundplanError as error:
            sys.stderr.write(f"groundplan: {error}\n")
            return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
