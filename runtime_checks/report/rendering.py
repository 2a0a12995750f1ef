"""What every page of ours is made with: templates that escape, and files replaced in one step."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

TEMPLATES = ("runtime_checks.report", "templates")


def environment() -> Environment:
    """Jinja over our templates: everything is escaped, an unknown name is an error."""
    made = Environment(
        loader=PackageLoader(*TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # tojson escapes <, >, & and ' as well, so that no text can end the script block it stands in.
    made.policies["json.dumps_kwargs"] = {"sort_keys": True, "allow_nan": False}
    return made


def source(names: Sequence[str]) -> Markup:
    """Files of the template folder as they are: braces in them are theirs, not Jinja's."""
    made, loader = environment(), PackageLoader(*TEMPLATES)
    text = "\n".join(loader.get_source(made, name)[0] for name in names)
    return Markup(text)  # noqa: S704 - our own files


def script_hash(script: str) -> str:
    """The hash by which a page's content security policy lets this script run and no other."""
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def replace_text(path: Path, text: str) -> None:
    """Write a file, replacing what is there in one step. Raises OSError on a full disk."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        unfinished.write_text(text, encoding="utf-8")
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
