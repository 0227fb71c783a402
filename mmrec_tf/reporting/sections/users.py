"""Ten users: what they met, what they are shown, and why."""

from collections.abc import Sequence

import numpy as np

from mmrec_tf.errors import ConfigError
from mmrec_tf.recommender.contributions import Explainer
from mmrec_tf.recommender.outputs import Recommendations
from mmrec_tf.reporting import page
from mmrec_tf.reporting.explanation import Teller
from mmrec_tf.reporting.material import Material
from mmrec_tf.reporting.page import Markup, Section

TITLE = "Ten users"
NUM_USERS, NUM_ITEMS = 10, 6


def section(material: Material) -> Section:
    """Users drawn at random of the split, with their history and their list."""
    if not len(material.users):
        return page.missing(TITLE, f"The {material.split} split has no users to show.")
    dataset, showcase = material.dataset, material.showcase
    drawn = np.random.default_rng(0).permutation(len(material.users))[:NUM_USERS]
    rows = np.sort(drawn)
    users = material.users[rows]
    histories = dataset.histories(history="train")
    ids = [str(dataset.users.user_id[user]) for user in users]
    answer = material.recommender.recommend(ids, k=min(NUM_ITEMS, dataset.schema.num_items))
    number = {name: n for n, name in enumerate(dataset.catalog.item_id.tolist())}
    shown = [[number[name] for name in row if name] for row in answer.item_id.tolist()]
    met = [histories.item[histories.offset[u] : histories.offset[u + 1]] for u in users]
    offset, items = material.relevant
    chosen = [items[offset[row] : offset[row + 1]] for row in rows]
    wanted = [*(part[-NUM_ITEMS:] for part in met), *shown, *(c[:NUM_ITEMS] for c in chosen)]
    showcase.read(np.concatenate([np.asarray(part, np.int64) for part in wanted]))
    whys, left_out = _whys(material, ids, answer)
    blocks = []
    for place, user in enumerate(ids):
        hits = set(shown[place]) & set(chosen[place].tolist())
        notes = whys[place]
        cards = [
            showcase.card(item, note=note, hit=item in hits)
            for item, note in zip(shown[place], notes, strict=False)
        ]
        blocks.append(_user(material, user, met[place], cards, chosen[place], len(hits)))
    lead = (
        f"{len(ids)} users of the {material.split} split, drawn at random. Green frames: the user "
        f"did choose it, in {material.split}. Why: what adds most to retrieval's score, which is "
        "taken apart exactly; content is named only where it outweighs the item's id."
    )
    told = [page.paragraph(lead), *blocks]
    if left_out:
        told.append(page.paragraph(f"Why is left out: {left_out}", class_="soft"))
    if showcase.sounds_left_out:
        told.append(
            page.paragraph(
                f"{showcase.sounds_left_out} sounds are left out, which are too long or would make "
                "this page too large.",
                class_="soft",
            )
        )
    return Section(TITLE, page.join(told))


def _user(
    material: Material,
    user: str,
    met: np.ndarray,
    cards: list[Markup],
    chosen: np.ndarray,
    hits: int,
) -> Markup:
    """One user's block."""
    showcase = material.showcase
    history = [showcase.card(item) for item in met[-NUM_ITEMS:].tolist()]
    if not history:
        before = page.paragraph("Nothing: shown is what is popular.", class_="missing")
    else:
        before = page.element("div", *history, class_="strip")
    named = "; ".join(showcase.title(item) for item in chosen[:NUM_ITEMS].tolist())
    more = f" and {len(chosen) - NUM_ITEMS} more" if len(chosen) > NUM_ITEMS else ""
    last = f", the last {len(history)}" if len(met) > len(history) else ""
    return page.element(
        "div",
        page.element("h3", f"User {user}"),
        page.element("div", f"Met in train: {len(met)} items{last}", class_="soft"),
        before,
        page.element("div", f"Is shown ({hits} of {len(chosen)} chosen)", class_="soft"),
        page.element("div", *cards, class_="strip"),
        page.element("div", f"Chose in {material.split}: {named}{more}", class_="soft"),
        class_="user",
    )


def _whys(
    material: Material, users: Sequence[str], answer: Recommendations
) -> tuple[list[list[str]], str]:
    """A sentence for each item that each user is shown; and why there are none, "" where there
    are."""
    teller, found = Teller(material.dataset, showcase=material.showcase), []
    explainer = Explainer(material.recommender)
    try:
        for user, row in zip(users, answer.item_id.tolist(), strict=True):
            items = [name for name in row if name]
            found.append([teller.sentence(one) for one in explainer.contributions(user, items)])
    except ConfigError as error:  # of a tower of one's own nothing is known
        return [[""] * len(row) for row in answer.item_id], str(error)
    return found, ""
