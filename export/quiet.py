"""Keep what libraries say in passing away from the user's terminal."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator


@contextlib.contextmanager
def quiet_tools() -> Iterator[io.StringIO]:
    """No warnings, no log lines below errors, nothing on standard error; exceptions pass as ever.

    Yields what standard error has been told so far: a native library's reason for an exception.
    """
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    told = io.StringIO()
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(told):
            warnings.simplefilter("ignore")
            yield told
    finally:
        logging.disable(disabled)
