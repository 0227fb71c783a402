"""Texts of any kind -> clean text for the graph, on the host, once."""

import html
import re
import unicodedata

# An unfinished comment or script reaches to the end, as in a browser, so that matching stays
# linear whatever the input.
_HIDDEN = re.compile(r"<!--.*?(?:-->|\Z)|<(script|style)\b.*?(?:</\1\s*>|\Z)", re.S | re.I)
_INLINE = re.compile(r"</?(?:a|abbr|b|em|font|i|small|span|strong|sub|sup|u)\b[^<>]*>", re.I)
_TAG = re.compile(r"</?[a-z][^<>]*>|<![a-z][^<>]*>", re.I)
_JOINERS = "\u200c\u200d"


def prepare(value: str, *, max_characters: int = 5000) -> str:
    """Cleans one text: markup, entities, control characters and repeated white space go.

    Catalog exports are often escaped twice, so markup is looked for again after entities are
    resolved.

    Args:
      value: raw text, possibly HTML.
      max_characters: the longest text returned.

    Returns:
      Unicode in normal form C on one line, encodable as UTF-8; "" when nothing remains.
    """
    # Markup can hide most of a text, so far more is read than kept, yet never without end.
    value = value[: 20 * max_characters]
    for _ in range(2):
        value = html.unescape(_without_markup(value))
    value = " ".join(_without_markup(value).split())
    if not value.isprintable():
        # What goes may have stood between two spaces.
        value = " ".join(value.translate(_PRINTABLE).split())
    return unicodedata.normalize("NFC", value)[:max_characters].rstrip()


def _without_markup(value: str) -> str:
    if "<" not in value:
        return value
    return _TAG.sub(" ", _INLINE.sub("", _HIDDEN.sub(" ", value)))


class _Printable(dict):
    """For `str.translate`: nothing for what cannot be seen or encoded; filled as it is asked."""

    def __missing__(self, code: int) -> int | None:
        character = chr(code)
        hidden = unicodedata.category(character) in ("Cc", "Cf", "Cs")
        self[code] = None if hidden and character not in _JOINERS else code
        return self[code]


_PRINTABLE = _Printable()
