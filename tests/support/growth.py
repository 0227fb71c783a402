"""A dataset that has grown since a run was trained on it."""

import dataclasses

import numpy as np
from support import small_world
from support.small_world import NUM_ITEMS, NUM_USERS

from mmrec_tf import open_dataset, records
from mmrec_tf.dataset.directory import Dataset
from mmrec_tf.schema import SPLITS, FeatureSpec

GONE = (3, 12)  # items that the grown dataset does without


NEW_ITEMS, NEW_USERS = 6, 12


def grow(dataset: Dataset, folder, *, schema=None, modalities=None, extra=True) -> Dataset:
    """The small world a while later: items in another order, two gone and six new, users too, and
    categories and prices that are numbered and scaled anew.

    Args:
      schema: fields of the schema to replace.
      modalities: those of the content that are kept; None for all.
      extra: whether there is anything new.
    """
    rng = np.random.default_rng(1)
    old = {item.number: item for item in records.read_items(dataset.directory, dataset.schema)}
    # The content of each shows its cluster; that of item 3 has no vector.
    items = [(f"n{n}", {3: 6}.get(n, n), None) for n in range(NEW_ITEMS * extra)]
    kept = [number for number in reversed(range(NUM_ITEMS)) if number not in GONE]
    items += [(old[number].item_id, number, old[number]) for number in kept]
    place = {item_id: row for row, (item_id, _, _) in enumerate(items)}
    users = list(records.read_users(dataset.directory, dataset.schema))
    order = [*range(NUM_USERS - 1, -1, -1)]
    rows = {split: {} for split in SPLITS}
    for split in SPLITS:
        data = dataset.interactions(split)
        for user, item in zip(data.user.tolist(), data.item.tolist(), strict=True):
            if item not in GONE:
                rows[split].setdefault(user, []).append(place[small_world.item_id(item)])
    with records.DatasetWriter(folder) as writer:
        for item_id, number, item in items:
            if item is None:
                content = {
                    name: value
                    for name, value in small_world.content(number, rng).items()
                    if name in ("text", "vector")
                }
                features = {"genre": [2], "price": 0.1}
            else:
                content = item.content
                # There 2 is night and 3 is day; here evening, day and night are 2, 3 and 4.
                genres = [{2: 4, 3: 3}[int(value)] for value in item.features.get("genre", ())]
                price = item.features.get("price")
                features = {"genre": genres, "price": None if price is None else price / 2}
            if modalities is not None:
                content = {name: content[name] for name in modalities if name in content}
            writer.write_item(item_id, content=content, features=features)
        for user in order:
            writer.write_user(
                users[user].user_id, profile=users[user].profile, features=users[user].features
            )
        for user in range(NEW_USERS * extra):
            writer.write_user(f"w{user}")
        for split in SPLITS:
            for row, user in enumerate(order):
                if user in rows[split]:
                    found = rows[split][user]
                    writer.write_interactions(
                        split, row, item=found, timestamp=list(range(len(found)))
                    )
            for user in range(NEW_USERS * extra):
                # One new item of its cluster is met in train, the other one later.
                own = [place[f"n{n}"] for n in range(NEW_ITEMS) if n % 3 == user % 3]
                met = [place[f"i{n + user % 3}"] for n in (6, 9, 15, 18)]
                first = user % 2
                some = [*met, own[first]] if split == "train" else [own[1 - first]]
                writer.write_interactions(
                    split, NUM_USERS + user, item=some, timestamp=list(range(len(some)))
                )
        fields = {
            "num_users": NUM_USERS + NEW_USERS * extra,
            "num_items": len(items),
            "item_features": {
                "genre": FeatureSpec("categorical", ("evening", "day", "night"), width=2),
                "price": FeatureSpec("numeric", std=2.0),
            },
            "modalities": {
                name: spec
                for name, spec in dataset.schema.modalities.items()
                if modalities is None or name in modalities
            },
        }
        writer.finish(
            dataclasses.replace(dataset.schema, **{**fields, **(schema or {})}),
            source={"name": "grown"},
            split_rule="given",
        )
    return open_dataset(folder)
