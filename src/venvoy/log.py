"""Where venvoy's own diagnostics go: the stdlib logger `venvoy`, silent unless somebody listens.

`VENVOY_LOG=DEBUG` (or another level) adds a handler on stderr, `VENVOY_LOG_JSON=1` makes its lines JSON,
`VENVOY_LOG_FORMAT` is a `logging` format string for its text lines.
"""

from __future__ import annotations

import logging
import os

logger = logging.getLogger("venvoy")
logger.addHandler(logging.NullHandler())

_DEFAULT_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        import json  # start-up time: only those who ask for JSON lines pay for it

        line = {
            "time": self.formatTime(record),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)


def configure_from_environment() -> None:
    """Add the handler the environment variables ask for; a no-op where `VENVOY_LOG` is not set.

    Raises:
        ValueError: `VENVOY_LOG` is not a level name of `logging`.
    """
    wanted = os.environ.get("VENVOY_LOG", "").strip().upper()
    if not wanted:
        return
    level = logging.getLevelNamesMapping().get(wanted)
    if level is None:
        names = ", ".join(("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"))
        raise ValueError(f"VENVOY_LOG={wanted!r} is not a log level; use one of {names}")
    handler = logging.StreamHandler()
    if os.environ.get("VENVOY_LOG_JSON", "") not in ("", "0"):
        handler.setFormatter(_JsonFormatter())
    else:
        handler.setFormatter(logging.Formatter(os.environ.get("VENVOY_LOG_FORMAT") or _DEFAULT_FORMAT))
    logger.addHandler(handler)
    logger.setLevel(level)


configure_from_environment()
