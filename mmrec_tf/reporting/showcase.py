"""Items as people know them: a title, a small picture, a short sound, a category."""

import base64
import io
import warnings

import numpy as np
import PIL.Image
import PIL.ImageFile
import PIL.ImageOps

from mmrec_tf.dataset.directory import Dataset
from mmrec_tf.dataset.titles import read_names, title_of
from mmrec_tf.media.video import split_frames
from mmrec_tf.records.inspection import category_names
from mmrec_tf.reporting.page import Markup, element

SIDE = 114  # pixels of a picture in a list
# Of one sound, and of all of a page.
_MOST_SOUND_BYTES, _ALL_SOUND_BYTES = 192 << 10, 6 << 20
_OTHERS = "other"


class Showcase:
    """How the items of a dataset are shown.

    Args:
      dataset: Dataset.

    Attributes:
      sounds_left_out: how many sounds were too long, or too many for one page.
    """

    def __init__(self, dataset: Dataset):
        self._dataset = dataset
        kinds = {name: spec.kind for name, spec in dataset.schema.modalities.items()}
        self._first = {kind: name for name, kind in reversed(kinds.items())}
        self._names = read_names(dataset)
        self._column = {name: column for column, name in enumerate(kinds)}
        self.sounds_left_out = 0
        self._sound_bytes = 0
        self._heard: set[int] = set()
        self._known: dict[tuple[str, int], bytes] = {}

    def read(self, items: np.ndarray) -> None:
        """Reads what `title` and the like will be asked for, all at once: where content lies on
        disk, each reading goes through whole shards."""
        items = np.unique(items)
        for kind in ("text", "image", "audio", "video"):
            name = self._first.get(kind)
            if name is None:
                continue
            has = items[self._dataset.catalog.present[items, self._column[name]]]
            new = np.array([i for i in has.tolist() if (kind, i) not in self._known], np.int64)
            if len(new):
                values = self._dataset.catalog.content[name][new]
                self._known |= {(kind, i): v for i, v in zip(new.tolist(), values, strict=True)}

    def title(self, item: int) -> str:
        """What people call an item; its id where nothing is known (`dataset.titles`)."""
        name = str(self._dataset.catalog.item_id[item])
        known = self._names.get(name, {}).get("title", "")
        return known or title_of(self._known.get(("text", item), b"")) or name

    def picture(self, item: int, *, side: int = SIDE) -> str:
        """A data URI of an item's picture as a small JPEG, or of the frame in the middle of its
        video; "" without one that can be read."""
        return data_uri("image/jpeg", self.thumbnail(item, side=side))

    def thumbnail(self, item: int, *, side: int = SIDE) -> bytes:
        """An item's picture, or the frame in the middle of its video, as a small JPEG; b"" without
        one that can be read."""
        data = self._known.get(("image", item))
        if data is None:
            frames = split_frames(self._known.get(("video", item), b""))
            data = frames[len(frames) // 2] if frames else None
        return b"" if data is None else small_jpeg(data, side=side)

    def card(self, item: int, *, note: object = "", hit: bool = False) -> Markup:
        """An item in a list: picture or its absence, title, sound, and a note below."""
        source = self.picture(item)
        seen = Markup()
        if source:
            seen = Markup(f'<img src="{source}" alt="">')
        elif "image" in self._first or "video" in self._first:
            seen = element("div", "no picture", class_="blank")
        below = element("div", note, class_="soft") if note else ""
        title = element("div", self.title(item))
        return element(
            "div", seen, title, self._sound(item), below, class_="item hit" if hit else "item"
        )

    def _sound(self, item: int) -> Markup:
        data = self._known.get(("audio", item))
        # Once a page, however often the item is shown.
        if data is None or item in self._heard:
            return Markup()
        self._heard.add(item)
        if len(data) > _MOST_SOUND_BYTES or self._sound_bytes + len(data) > _ALL_SOUND_BYTES:
            self.sounds_left_out += 1
            return Markup()
        self._sound_bytes += len(data)
        source = data_uri("audio/wav", data)
        return Markup(f'<audio controls preload="none" src="{source}"></audio>')


class Categories:
    """What items are told apart by in drawings.

    Of the categorical side feature that most items have, each item's most frequent category; where
    there is none, how often train met the item.

    Args:
      dataset: Dataset.
      most: categories beyond so many, the rare ones, are one.

    Attributes:
      name: of the feature, or "popularity".
      names: of the categories, the most frequent first.
      of: <int64>[item], each item's place in `names`.
    """

    def __init__(self, dataset: Dataset, *, most: int = 10):
        features, schema = dataset.catalog.features, dataset.schema
        categorical = {
            name: (features[name] > 0).any(axis=1).sum()
            for name, spec in schema.item_features.items()
            if spec.kind == "categorical" and spec.vocabulary
        }
        if categorical and max(categorical.values()):
            self.name = max(categorical, key=lambda name: categorical[name])
            spec, numbers = schema.item_features[self.name], features[self.name]
            count = np.bincount(numbers[numbers > 0], minlength=spec.num_categories)
            # Of several categories of an item, that which says the most: the rarest that is no
            # exception.
            order = np.argsort(-count, kind="stable")
            kept = [n for n in order.tolist() if count[n]][: most - 1]
            size = np.where(np.isin(np.arange(len(count)), kept), count, 1 << 60)
            size[0] = 1 << 61
            best = numbers[np.arange(len(numbers)), np.argmin(size[numbers], axis=1)]
            self.names = [category_names(spec, number)[0] for number in kept]
            place = {number: n for n, number in enumerate(kept)}
            self.of = np.array([place.get(n, len(kept)) for n in best.tolist()], np.int64)
            if (self.of == len(kept)).any():
                self.names.append(_OTHERS if _OTHERS not in self.names else "others")
            return
        self.name, count = "popularity", dataset.catalog.train_count
        warm = count[count > 0]
        low, high = np.quantile(warm, [1 / 3, 2 / 3]) if len(warm) else (0, 0)
        self.names = ["head", "middle", "tail", "cold"]
        self.of = np.where(count > high, 0, np.where(count > low, 1, np.where(count > 0, 2, 3)))


def small_jpeg(data: bytes, *, side: int = SIDE, lenient: bool = False) -> bytes:
    """A picture file's content as a small JPEG, b"" where it cannot be read.

    Args:
      data: of the file.
      side: of the longer side, in pixels.
      lenient: whether what is there of a picture that breaks off is shown.
    """
    strict, PIL.ImageFile.LOAD_TRUNCATED_IMAGES = PIL.ImageFile.LOAD_TRUNCATED_IMAGES, lenient
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's, of what is strange but legible
            with PIL.Image.open(io.BytesIO(data)) as opened:
                picture = opened.convert("RGB")
        picture.thumbnail((side, side))
    # A damaged file raises whatever its decoder does.
    except (OSError, ValueError, SyntaxError, EOFError, PIL.Image.DecompressionBombError):
        return b""
    finally:
        PIL.ImageFile.LOAD_TRUNCATED_IMAGES = strict
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=72, optimize=True)
    return out.getvalue()


def data_uri(kind: str, data: bytes) -> str:
    """Content within a page; "" of nothing."""
    return f"data:{kind};base64,{base64.b64encode(data).decode()}" if data else ""
