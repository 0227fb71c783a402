"""The items' embeddings for TensorBoard's projector, with their titles and pictures."""

import io
import math
import pathlib

import numpy as np
import PIL.Image

from mmrec_tf.records.files import replace_file, write_text
from mmrec_tf.reporting.showcase import Categories, Showcase
from mmrec_tf.runs.run import Run

# Beyond, a browser hardly turns them, and a sprite may not be larger than 8192 pixels.
MOST_POINTS = 5000
_SIDE = 48  # pixels of a picture in the sprite


def write_projector(run: Run, directory: str | pathlib.Path) -> pathlib.Path:
    """Writes what TensorBoard's projector shows of a run: `items.tsv`, `metadata.tsv`, `sprite.png`
    where items have pictures, and `projector_config.pbtxt`, each aside and then into place.

    Args:
      run: Run, finished.
      directory: of the log. Of more than `MOST_POINTS` items so many are drawn at random.

    Returns:
      The config's file.
    """
    folder = pathlib.Path(directory)
    folder.mkdir(parents=True, exist_ok=True)
    dataset, embedding = run.dataset, run.retrieval.embed_all()
    rng = np.random.default_rng(0)
    items = np.sort(rng.permutation(len(embedding))[:MOST_POINTS])
    rows = ("\t".join(f"{value:.6g}" for value in row) for row in embedding[items].tolist())
    write_text(folder / "items.tsv", "\n".join(rows) + "\n")
    showcase, categories = Showcase(dataset), Categories(dataset)
    showcase.read(items)
    lines = [f"id\ttitle\t{_cell(categories.name)}\ttrain interactions"]
    for item in items.tolist():
        category = categories.names[categories.of[item]]
        count = int(dataset.catalog.train_count[item])
        cells = (str(dataset.catalog.item_id[item]), showcase.title(item), category, str(count))
        lines.append("\t".join(map(_cell, cells)))
    write_text(folder / "metadata.tsv", "\n".join(lines) + "\n")
    config = ['tensor_name: "items"', 'tensor_path: "items.tsv"', 'metadata_path: "metadata.tsv"']
    sprite = _sprite(showcase, items)
    if sprite is not None:
        with replace_file(folder / "sprite.png") as new:
            sprite.save(new, "PNG")
        config.append(f'sprite {{ image_path: "sprite.png" single_image_dim: [{_SIDE}, {_SIDE}] }}')
    path = folder / "projector_config.pbtxt"
    write_text(path, "embeddings { " + " ".join(config) + " }\n")
    return path


def _sprite(showcase: Showcase, items: np.ndarray) -> PIL.Image.Image | None:
    """All pictures in one, row by row, gray where there is none; None without any picture."""
    side = math.ceil(math.sqrt(len(items)))
    whole, any_picture = PIL.Image.new("RGB", (side * _SIDE, side * _SIDE), "#d0d4d8"), False
    for place, item in enumerate(items.tolist()):
        data = showcase.thumbnail(item, side=_SIDE)
        if data:
            any_picture = True
            with PIL.Image.open(io.BytesIO(data)) as picture:
                left = place % side * _SIDE + (_SIDE - picture.width) // 2
                top = place // side * _SIDE + (_SIDE - picture.height) // 2
                whole.paste(picture, (left, top))
    return whole if any_picture else None


def _cell(text: str) -> str:
    """What a cell of a table may hold: no tab, no end of a line."""
    return " ".join(text.split()) or "-"
