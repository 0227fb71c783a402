"""What of an item's content weighed most: the words, the region of a picture, the span of a sound.

By occlusion (Zeiler and Fergus 2014, section 4.2): each piece is taken away in turn, the rest goes
through encoder and tower again, and what the score loses is the piece's weight.
"""

import io
import re
import wave
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import PIL.Image
import tensorflow as tf

from mmrec_tf.dataset.catalog import Content
from mmrec_tf.encoders.encoder import ModalityEncoder
from mmrec_tf.encoders.several import SeveralValues
from mmrec_tf.recommender.ranked import Request
from mmrec_tf.recommender.recommender import Recommender
from mmrec_tf.retrieval.item_inputs import item_inputs

# Of a text so many words are looked at, of a picture so many cells each way, of a sound so many
# spans.
MOST_WORDS, CELLS, SPANS = 64, 6, 10
_SIDE = 384  # pixels of a picture's longer side, which is scaled down before
_BATCH = 32


class Piece(NamedTuple):
    """A piece of content.

    Attributes:
      name: the word; or where it is, such as "left third of the top" or "0.5 to 1.0 s".
      place: of a word its first and last character, of a region its left, top, right and bottom
        edge as shares of the picture, of a span its start and end in seconds.
      weight: float, what retrieval's score loses without it.
    """

    name: str
    place: tuple[float, ...]
    weight: float


class Evidence(NamedTuple):
    """What of one modality weighed most.

    Attributes:
      modality: its name.
      kind: "text", "image" or "audio".
      pieces: the heaviest first.
      values: how many texts, pictures or sounds the item has.
      left_out: int, words behind those that are looked at.
      looked_at: place of the value that is looked at: the one that counts most, or the first where
        all count alike.
    """

    modality: str
    kind: str
    pieces: tuple[Piece, ...]
    values: int = 1
    left_out: int = 0
    looked_at: int = 0

    def to_json(self) -> dict[str, Any]:
        """As plain dictionaries, lists and scalars."""
        pieces = [{"name": p.name, "place": list(p.place), "weight": p.weight} for p in self.pieces]
        return {
            "modality": self.modality,
            "kind": self.kind,
            "pieces": pieces,
            "values": self.values,
            "looked_at": self.looked_at,
            "words_left_out": self.left_out,
        }


def occlude(
    recommender: Recommender, request: Request, item: int, modality: str
) -> Evidence | None:
    """What of an item's content weighs most for a user.

    The item is placed by its own content: where embeddings are smoothed, as they are before.

    Args:
      recommender: Recommender.
      request: Request of one user.
      item: its number.
      modality: a name.

    Returns:
      Evidence; None of ready-made vectors, which have no pieces that mean anything, of an absent
      modality, and of content that is one piece.
    """
    retrieval = recommender.retrieval
    kind = retrieval.schema.modalities[modality].kind
    if kind not in _PIECES:
        return None
    values = _values(recommender.dataset.catalog.content[modality], item)
    if not values:
        return None
    weights = retrieval.value_weights(modality, np.array([item]))
    chosen = 0 if weights is None else int(weights[0].argmax())
    whole, pieces, left_out = _PIECES[kind](bytes(values[chosen]))
    if len(pieces) < 2:
        return None
    encoder = retrieval.encoders[modality]
    vectors = _encode(encoder, [whole, *(changed for _, _, changed in pieces)])
    if len(values) > 1:
        every = np.repeat(
            _encode(encoder, [bytes(value) for value in values])[None], len(vectors), 0
        )
        every[:, chosen] = vectors
        vectors = every.mean(axis=1)
        if isinstance(encoder, SeveralValues):
            # What is left of the value may count less, too.
            there = tf.fill(every.shape[:2], True)
            vectors = encoder.pool(tf.constant(every), there)[0].numpy()
    count = len(vectors)
    inputs = dict(item_inputs(retrieval, tf.constant([item])))
    inputs = {
        "item": tf.repeat(inputs["item"], count, axis=0),
        "present": tf.repeat(inputs["present"], count, axis=0),
        "features": {n: tf.repeat(v, count, axis=0) for n, v in inputs["features"].items()},
        "encoded": {n: tf.repeat(v, count, axis=0) for n, v in inputs["encoded"].items()},
    }
    inputs["encoded"][modality] = tf.constant(vectors)
    embedding = retrieval.item_tower(inputs).embedding.numpy()
    # One column, or one for each interest.
    queries = np.atleast_2d(request.queries.numpy()[0])[:, : recommender.config.dim]
    scores = (embedding @ queries.T).max(axis=1)
    weight = (scores[0] - scores[1:]).tolist()
    found = [Piece(n, p, w) for (n, p, _), w in zip(pieces, weight, strict=True)]
    found.sort(key=lambda piece: -piece.weight)
    return Evidence(modality, kind, tuple(found), len(values), left_out, chosen)


def _values(content: np.ndarray | Content, item: int) -> list[bytes]:
    if isinstance(content, Content):
        asked = np.zeros([len(content)], bool)
        asked[item] = True
        return [bytes(v) for _, some in content.items(content.present & asked) for v in some]
    return [content[item]] if content[item] else []


def _encode(encoder: ModalityEncoder, values: list[bytes]) -> np.ndarray:
    """<float32>[value, features]."""
    parts = []
    for start in range(0, len(values), _BATCH):
        raw = tf.constant(values[start : start + _BATCH], tf.string)
        parts.append(encoder(encoder.preprocess(raw), training=False).numpy())
    return np.concatenate(parts)


# By kind: the content as it is compared, and of each piece its name, its place, and what is left
# without it; and how much is not looked at.
_Piece = tuple[str, tuple[float, ...], bytes]
_Pieces = tuple[bytes, list[_Piece], int]


def _words(data: bytes) -> _Pieces:
    text = data.decode("utf-8", "replace")
    found = list(re.finditer(r"\w+(?:['’-]\w+)*", text))
    pieces: list[_Piece] = []
    for match in found[:MOST_WORDS]:
        first, last = match.span()
        rest = f"{text[:first]} {text[last:]}".encode("utf-8", "replace")
        pieces.append((match.group(), (float(first), float(last)), rest))
    return data, pieces, max(len(found) - MOST_WORDS, 0)


def _regions(data: bytes) -> _Pieces:
    with PIL.Image.open(io.BytesIO(data)) as opened:
        picture = opened.convert("RGB")
    picture.thumbnail((_SIDE, _SIDE))
    pixels = np.asarray(picture)
    gray = pixels.mean(axis=(0, 1)).astype(np.uint8)
    rows = np.linspace(0, pixels.shape[0], CELLS + 1).astype(int)
    columns = np.linspace(0, pixels.shape[1], CELLS + 1).astype(int)
    pieces: list[_Piece] = []
    for (top, bottom), (left, right) in _grid(rows, columns):
        if top == bottom or left == right:
            continue
        changed = pixels.copy()
        changed[top:bottom, left:right] = gray
        height, width = pixels.shape[:2]
        place = (left / width, top / height, right / width, bottom / height)
        pieces.append((_where(place), place, _png(changed)))
    return _png(pixels), pieces, 0


def _grid(rows: np.ndarray, columns: np.ndarray) -> Iterator[tuple[tuple[int, int], ...]]:
    for edges in zip(rows[:-1].tolist(), rows[1:].tolist(), strict=True):
        for sides in zip(columns[:-1].tolist(), columns[1:].tolist(), strict=True):
            yield edges, sides


def _where(place: tuple[float, float, float, float]) -> str:
    """A region in words: of nine, the one that its middle is in."""
    across = min(int((place[0] + place[2]) / 2 * 3), 2)
    down = min(int((place[1] + place[3]) / 2 * 3), 2)
    if across == down == 1:
        return "middle"
    names = (("top", "", "bottom")[down], ("left", "", "right")[across])
    return " ".join(filter(None, names))


def _png(pixels: np.ndarray) -> bytes:
    out = io.BytesIO()
    PIL.Image.fromarray(pixels).save(out, "PNG", compress_level=1)
    return out.getvalue()


def _spans(data: bytes) -> _Pieces:
    with wave.open(io.BytesIO(data)) as file:
        settings, frames = file.getparams(), file.readframes(file.getnframes())
    size = settings.sampwidth * settings.nchannels
    number = len(frames) // size
    edges = np.linspace(0, number, SPANS + 1).astype(int).tolist()
    pieces: list[_Piece] = []
    for first, last in zip(edges[:-1], edges[1:], strict=True):
        if first == last:
            continue
        # Of 8 bits silence is the middle, of more it is 0.
        quiet = b"\x80" if settings.sampwidth == 1 else b"\0"
        changed = frames[: first * size] + quiet * ((last - first) * size) + frames[last * size :]
        out = io.BytesIO()
        with wave.open(out, "wb") as made:
            made.setparams(settings)
            made.writeframes(changed)
        place = (first / settings.framerate, last / settings.framerate)
        pieces.append((f"{place[0]:.2f} to {place[1]:.2f} s", place, out.getvalue()))
    return data, pieces, 0


_PIECES = {"text": _words, "image": _regions, "audio": _spans}
