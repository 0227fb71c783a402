"""Multipart forms: words, pictures and sounds of an item or of a search."""

import math
from typing import NamedTuple

from starlette.datastructures import UploadFile
from starlette.requests import Request

from serving.gateway.fresh.content import PutContent
from serving.gateway.refusals import Refusal, invalid

MOST_FILE_BYTES = 16 * 2**20
MOST_BODY_BYTES = 24 * 2**20
MOST_FILES = 16
FILES = ("image", "audio", "video")
MOST_WORDS = 20_000
MOST_CATEGORIES = 100


class Form(NamedTuple):
    """What came: words by field, in order, and files by field."""

    words: dict[str, list[str]]
    files: dict[str, list[bytes]]


async def read_form(request: Request, *, words: tuple[str, ...]) -> Form:
    """Reads a form whose files are `image`, `audio` and `video`.

    Args:
      request: of `multipart/form-data` or of `application/x-www-form-urlencoded`.
      words: fields that may come beside the files.

    Raises:
      Refusal: for other fields, too much, or a body that is no form.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in ("multipart/form-data", "application/x-www-form-urlencoded"):
        raise Refusal(415, "unsupported", f"wanted multipart/form-data; got {kind or 'nothing'}.")
    found = Form({}, {})
    try:
        form = await request.form(
            max_files=2 * MOST_FILES, max_fields=500, max_part_size=MOST_WORDS * 4
        )
    except ValueError as error:
        raise Refusal(400, "invalid", f"wanted a form; {error}") from error
    try:
        for name, value in form.multi_items():
            if isinstance(value, UploadFile):
                await _add_file(found, name, value)
            elif name in FILES and not value:
                continue  # A browser's field of files that was left empty.
            elif name not in words:
                raise invalid(name, f"wanted one of {', '.join((*words, *FILES))}")
            else:
                found.words.setdefault(name, []).append(value)
    finally:
        await form.close()
    return found


async def _add_file(found: Form, name: str, file: UploadFile) -> None:
    if name not in FILES:
        raise invalid(name, f"wanted files as {', '.join(FILES)}")
    data = await file.read(MOST_FILE_BYTES + 1)
    if len(data) > MOST_FILE_BYTES:
        raise Refusal(
            413, "too_large", f"{name}: wanted at most {MOST_FILE_BYTES:,} bytes a file", field=name
        )
    if data or file.filename:
        found.files.setdefault(name, []).append(data)
    most = 1 if name == "video" else MOST_FILES
    if len(found.files.get(name, ())) > most:
        raise invalid(name, f"wanted at most {most} file{'s' * (most > 1)}")


def one_of(form: Form, name: str) -> str:
    """The only value of a field; "" where there is none.

    Raises:
      Refusal: for several, or too long a one.
    """
    values = form.words.get(name, [])
    if len(values) > 1:
        raise invalid(name, f"wanted one; got {len(values)}")
    text = values[0] if values else ""
    if len(text) > MOST_WORDS:
        raise invalid(name, f"wanted at most {MOST_WORDS:,} characters; got {len(text):,}")
    return text


def content_of(form: Form) -> PutContent:
    """An item of a form.

    Raises:
      Refusal: that names the field at fault.
    """
    categories = [
        part.strip() for one in form.words.get("categories", []) for part in one.split(",")
    ]
    categories = [part for part in categories if part]
    for part in categories:
        name, sign, value = part.partition("=")
        if not (name and sign and value) or len(part) > 256:
            raise invalid("categories", f"wanted such as genre=comedy; got {part[:60]!r}")
    if len(categories) > MOST_CATEGORIES:
        raise invalid("categories", f"wanted at most {MOST_CATEGORIES}; got {len(categories)}")
    price = one_of(form, "price").strip()
    try:
        number = float(price) if price else None
    except ValueError:
        number = math.nan
    if number is not None and not 0 <= number < 1e12:
        raise invalid("price", f"wanted a number of 0 or more; got {price[:40]!r}")
    return PutContent(
        title=one_of(form, "title"),
        text=one_of(form, "text"),
        categories=tuple(categories),
        price=number,
        images=tuple(form.files.get("image", ())),
        sounds=tuple(form.files.get("audio", ())),
        videos=tuple(form.files.get("video", ())),
    )
