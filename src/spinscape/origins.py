"""Where numbers come from: the versions that they may depend on."""

import json
from functools import cache
from importlib.metadata import version

__all__ = ["versions"]


@cache
def versions() -> str:
    """Return the versions of spinscape, torch and numpy as JSON, for the attributes of results."""
    return json.dumps({name: version(name) for name in ("spinscape", "torch", "numpy")})
