"""What columns may be whose names are not the ones looked for: guesses, to be proposed only."""

import re
from collections.abc import Sequence
from datetime import datetime

# By what is looked for, the names that it has elsewhere.
_NAMES = {
    "item": r"(item|product|sku|asin|isbn|movie|film|article|video|track|song|book|game|news|"
    r"recipe|offer|content|object|business|parent_asin)s?[ _-]?(id|no|nr|number|code)?|id|pid|iid",
    "user": r"(user|customer|client|member|visitor|reviewer|account|buyer|person|viewer|session|"
    r"profile)s?[ _-]?(id|no|nr|number|code|name)?|uid|cid",
    "text": r"(item|product|movie|article|video)?[ _-]?(name|title|titel|text|caption|headline|"
    r"heading|subject|summary|abstract|description|desc|overview|plot|body|content|synopsis|label)",
    "rating": r"(rating|rate|score|stars?|overall|grade|review_score)s?",
    "event": r"(event|action|behaviou?r|interaction|activity)s?[ _-]?(type|name|kind)?|type",
    "position": r"(position|rank|slot|index_in_list|pos)",
    "profile": r"(bio|about|description|desc|profile|self_description|interests)",
}
_OPTIONS = {
    "item": "--item-column",
    "user": "--user-column",
    "text": "--text",
    "rating": "--rating-column",
    "event": "--event-column",
    "position": "--position-column",
    "profile": "--profile-column",
}
_TIME = re.compile(
    r"(^|[ _-])(time|date|datetime|ts|when|day|epoch|unix|at|created|updated|bought|viewed|clicked|"
    r"purchased|ordered|watched|rated)($|[ _-])|time|date$|stamp|(At|On|Date|Time)$"
)
# From 1980 to 2100.
_SECONDS = (315_532_800, 4_102_444_800)
_IMAGES = re.compile(r"\.(jpe?g|png|webp|bmp|tiff?|gif|avif|heic)$", re.I)
_VIDEOS = re.compile(r"\.(mp4|webm|mkv|mov|avi|m4v|mpe?g|ogv|3gp|wmv|flv)$", re.I)
_SOUNDS = re.compile(r"\.(wav|flac|ogg|mp3|opus|m4a|aac|wma|aiff?)$", re.I)


def likely_column(role: str, columns: Sequence[str]) -> str:
    """The option that names the column which may be what is looked for; "" where none may be."""
    pattern = _NAMES.get(role)
    if pattern is None:
        return ""
    fits = [name for name in columns if re.fullmatch(pattern, name.strip(), re.I)]
    # An id goes before what stands beside it.
    fits.sort(key=lambda name: not name.lower().endswith("id"))
    return option(_OPTIONS[role], fits[0]) if fits else ""


def likely_time(column: str, cells: Sequence[str]) -> str:
    """What to do with a column that may hold times; "" where it holds none.

    Args:
      column: its name.
      cells: some of its cells.
    """
    cells = [cell for cell in cells if cell]
    if not cells:
        return ""
    numbers = list(filter(None, map(_number, cells)))
    if len(numbers) == len(cells):
        if not _TIME.search(column):
            return ""
        if all(_SECONDS[0] <= number <= _SECONDS[1] for number in numbers):
            return option("--timestamp-column", column)
        if all(_SECONDS[0] <= number / 1000 <= _SECONDS[1] for number in numbers):
            return f"--timestamp-column, once {column!r} is in seconds and not in milliseconds"
        if all(looks_compact(cell) for cell in cells):
            return option("--date-column", column)
        return ""
    if all(map(is_date, cells)):
        return option("--date-column", column)
    if _TIME.search(column):
        return f"--date-column, once {column!r} is in ISO 8601, such as 2021-04-30"
    return ""


def likely_media(cells: Sequence[str]) -> str:
    """ "image", "audio" or "video" where the cells name such files; "" where they do not."""
    cells = [cell for cell in cells if cell]
    for name, pattern in (("image", _IMAGES), ("audio", _SOUNDS), ("video", _VIDEOS)):
        if sum(bool(pattern.search(cell.split("?")[0])) for cell in cells) * 2 > len(cells):
            return name
    return ""


def looks_compact(cell: str) -> bool:
    """Whether digits are a date without hyphens, such as 20210430."""
    return len(cell) == 8 and cell.isdecimal() and cell[:2] in ("19", "20") and is_date(cell)


def is_date(cell: str) -> bool:
    """Whether a cell is a date in ISO 8601."""
    try:
        datetime.fromisoformat(cell)
    except ValueError:
        return False
    return True


def option(name: str, value: str) -> str:
    """An option as it is typed."""
    return f'{name} "{value}"' if re.search(r"[^\w./-]", value) else f"{name} {value}"


def _number(cell: str) -> float | None:
    try:
        return float(cell)
    except ValueError:
        return None
