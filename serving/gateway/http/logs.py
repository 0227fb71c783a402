"""Logs as JSON, one object a line; ids of users are in none of them."""

import json
import logging
import time
from typing import IO

# What the standard library puts on every record.
_OWN = set(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message"}


class JsonLines(logging.Formatter):
    """A record as one line: time, level, logger, message, and what `extra` brought."""

    def format(self, record: logging.LogRecord) -> str:
        """As `logging.Formatter.format`."""
        when = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        told = {
            "time": f"{when}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **{name: value for name, value in vars(record).items() if name not in _OWN},
        }
        if record.exc_info:
            told["error"] = self.formatException(record.exc_info)
        return json.dumps(told, default=str, ensure_ascii=False)


def set_up(stream: IO[str], *, level: int = logging.INFO) -> None:
    """Sends the logs of the gateway and of its server to a stream, as JSON."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLines())
    for name in ("gateway", "uvicorn", "uvicorn.error"):
        logger = logging.getLogger(name)
        logger.handlers[:] = [handler]
        logger.setLevel(level if name == "gateway" else logging.WARNING)
        logger.propagate = False
