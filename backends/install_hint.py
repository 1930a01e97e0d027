"""How an extra is added to this very installation: hints that can be typed as they stand.

An installation may be a clone (editable or run in place), made from a folder or a wheel, or from an
index; `pip` on the PATH may be another Python's.
"""

import json
import shutil
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from urllib.parse import unquote, urlsplit

_ROOT = Path(__file__).resolve().parents[1]


def suggest_install(extra: str) -> str:
    """Return the command that installs an extra, such as `pip install '.[demo]'`."""
    found = shutil.which("pip")
    beside = found is not None and Path(found).parent == Path(sys.executable).parent
    pip = "pip" if beside else f"{sys.executable} -m pip"
    return f"{pip} install '{_find_source()}[{extra}]'"


def _find_source() -> str:
    """Return what this was installed from: a folder, a wheel, or the name in an index."""
    if (_ROOT / "pyproject.toml").is_file():
        return "." if Path.cwd() == _ROOT else str(_ROOT)
    try:
        told = distribution("joulegate").read_text("direct_url.json")
        source = Path(unquote(urlsplit(json.loads(told or "{}").get("url", "")).path))
    except (PackageNotFoundError, ValueError, OSError):
        return "joulegate"
    return str(source) if source.is_absolute() and source.exists() else "joulegate"
