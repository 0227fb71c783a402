"""A map of the items' embeddings, on which items that are alike lie near each other."""

import html
import json

import numpy as np

from mmrec_tf.reporting import page
from mmrec_tf.reporting.figures import COLORS
from mmrec_tf.reporting.material import Material
from mmrec_tf.reporting.page import Markup, Section

TITLE = "Embedding map"
MOST_POINTS = 600
_FEWEST, _FEWEST_FOR_TSNE = 3, 40
_WIDTH, _HEIGHT, _MARGIN = 760, 560, 14
_THUMBNAIL = 72  # pixels
# Shows title and picture beside the point that the pointer is on; without it titles stay.
_SCRIPT = """
(function () {
  var map = document.getElementById("map"), tip = document.getElementById("tip");
  var pictures = JSON.parse(document.getElementById("pictures").textContent);
  map.addEventListener("pointerover", function (event) {
    var number = event.target.getAttribute && event.target.getAttribute("data-n");
    if (number === null || number === undefined) { tip.style.display = "none"; return; }
    tip.textContent = "";
    if (pictures[number]) {
      var picture = document.createElement("img");
      picture.src = pictures[number]; tip.appendChild(picture);
    }
    tip.appendChild(document.createTextNode(event.target.firstChild.textContent));
    var box = map.getBoundingClientRect(), x = event.clientX - box.left;
    tip.style.left = (x > box.width / 2 ? x - 165 : x + 12) + "px";
    tip.style.top = (event.clientY - box.top + 8) + "px";
    tip.style.display = "block";
  });
  map.addEventListener("pointerleave", function () { tip.style.display = "none"; });
})();
"""


def section(material: Material) -> Section:
    """Up to 600 items, colored by category."""
    embedding = np.asarray(material.tower.embedding)
    number = len(embedding)
    if number < _FEWEST:
        return page.missing(TITLE, f"{number} items make no map.")
    rng = np.random.default_rng(0)
    items = np.sort(rng.permutation(number)[:MOST_POINTS])
    places, how = project(embedding[items])
    material.showcase.read(items)
    categories, showcase = material.categories, material.showcase
    points: list[str] = []
    pictures = []
    for place, item in zip(places, items.tolist(), strict=True):
        category = int(categories.of[item])
        said = html.escape(f"{showcase.title(item)} ({categories.names[category]})")
        points.append(
            f'<circle cx="{place[0]:.1f}" cy="{place[1]:.1f}" r="5" '
            f'fill="{COLORS[category % len(COLORS)]}" data-n="{len(points)}">'
            f"<title>{said}</title></circle>"
        )
        pictures.append(showcase.picture(item, side=_THUMBNAIL))
    drawing = Markup(
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="map of items">'
        f"{''.join(points)}</svg>"
    )
    # "<" in a title would end the script; a data URI has none.
    stored = json.dumps(pictures).replace("<", "\\u003c")
    return Section(
        TITLE,
        page.join(
            [
                page.paragraph(
                    f"{len(items):,} of {number:,} items by {how} of their embeddings, colored by "
                    f"{categories.name}. Near means alike to the model; axes and distances between "
                    "groups mean nothing. Point at an item to see what it is."
                ),
                _legend(material, items),
                page.element("div", drawing, page.element("div", id="tip"), class_="map", id="map"),
                Markup(f'<script type="application/json" id="pictures">{stored}</script>'),
                Markup(f"<script>{_SCRIPT}</script>"),
            ]
        ),
    )


def project(vectors: np.ndarray) -> tuple[np.ndarray, str]:
    """Places of vectors on a plane, within the drawing.

    Args:
      vectors: <float32>[n, dim], n at least 3.

    Returns:
      <float64>[n, 2] in pixels, and by what: "t-SNE" (van der Maaten and Hinton 2008), or "PCA" of
      few vectors.
    """
    # Half a second, which only a report has to wait for.
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    vectors = np.asarray(vectors, np.float64)
    few = len(vectors) < _FEWEST_FOR_TSNE or vectors.std() == 0
    if few or vectors.shape[1] < 2:
        wide = np.pad(vectors, ((0, 0), (0, max(0, 2 - vectors.shape[1]))))
        places = PCA(2, svd_solver="full").fit_transform(wide) if wide.std() else wide[:, :2]
    else:
        perplexity = min(30, (len(vectors) - 1) / 4)
        # On one thread: two wait for each other where the machine has other work.
        settings = {"init": "pca", "metric": "cosine", "max_iter": 400, "n_jobs": 1}
        places = TSNE(2, perplexity=perplexity, random_state=0, **settings).fit_transform(vectors)
    low, size = places.min(axis=0), np.maximum(np.ptp(places, axis=0), 1e-9)
    room = np.array([_WIDTH, _HEIGHT]) - 2 * _MARGIN
    return (places - low) / size * room + _MARGIN, "PCA" if few else "t-SNE"


def _legend(material: Material, items: np.ndarray) -> Markup:
    count = np.bincount(material.categories.of[items], minlength=len(material.categories.names))
    entries = [
        page.element(
            "span",
            Markup(f'<i style="background:{COLORS[place % len(COLORS)]}"></i>'),
            f"{name} ({count[place]:,})",
        )
        for place, name in enumerate(material.categories.names)
        if count[place]
    ]
    return page.element("div", *entries, class_="legend")
