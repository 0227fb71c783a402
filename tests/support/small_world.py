"""A tiny dataset with every modality and every kind of gap, and a config that fits it in seconds.

Items belong to one of three clusters, by their number; so do users, who mostly meet items of
their own. Words, pictures and sounds show the cluster.
"""

import io
import pathlib
import wave

import cv2
import numpy as np
import tensorflow as tf

from mmrec_tf import RankingModel, Recommender, RetrievalModel
from mmrec_tf.config import (
    AudioConfig,
    Config,
    ImageConfig,
    RankingConfig,
    TextConfig,
    TrainingConfig,
    UserConfig,
)
from mmrec_tf.media.video import join_frames
from mmrec_tf.records import DatasetWriter
from mmrec_tf.schema import SPLITS, FeatureSpec, ModalitySpec, Schema

NUM_USERS, NUM_ITEMS, NUM_CLUSTERS = 40, 30, 3
COLD = (27, 28, 29)  # one a cluster, met in valid and test only
BARE = 26  # has no content at all
NEWCOMER = 39  # has no train interaction
SAMPLE_RATE_HZ = 4000
EVENTS = ("view", "buy")
NUM_POSITIONS = 4
MODALITIES = ("text", "image", "audio", "vector")
# The settings of a model without encoders to make.
VECTORS = {
    "modalities": ["vector"],
    "user__profile": False,
    "user__id_embedding": True,
}

_WORDS = ("owl night forest", "gull sea harbor", "lark field morning")
_COLORS = ((40, 40, 160), (160, 40, 40), (40, 160, 40))


def item_id(item: int) -> str:
    return f"i{item}"


def user_id(user: int) -> str:
    return "ü7" if user == 7 else f"u{user}"


def picture(cluster: int, rng: np.random.Generator) -> bytes:
    pixels = rng.integers(0, 60, (24, 40, 3)) + np.array(_COLORS[cluster])
    return cv2.imencode(".jpg", pixels.astype(np.uint8))[1].tobytes()


def sound(cluster: int, rng: np.random.Generator) -> bytes:
    time = np.arange(SAMPLE_RATE_HZ // 4) / SAMPLE_RATE_HZ
    tone = 0.5 * np.sin(2 * np.pi * 300 * (cluster + 1) * time) + 0.02 * rng.normal(size=len(time))
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE_HZ)
        file.writeframes((np.clip(tone, -1, 1) * 32767).astype("<i2").tobytes())
    return out.getvalue()


def content(item: int, rng: np.random.Generator) -> dict:
    """An item's content; every fifth item lacks its text, the next one its picture, and so on."""
    cluster = item % NUM_CLUSTERS
    everything = {
        "text": f"{_WORDS[cluster]} {item}",
        "image": picture(cluster, rng),
        "audio": sound(cluster, rng),
        "vector": (3 * np.eye(6)[cluster] + rng.normal(size=6)).astype(np.float32),
    }
    if item == BARE:
        return {}
    lacking = dict(enumerate(MODALITIES)).get(item % 5)
    return {name: value for name, value in everything.items() if name != lacking}


def interactions(rng: np.random.Generator) -> dict[str, list[list[int]]]:
    """Each user's items by split: five and one stray in train, two each in valid and test."""
    splits: dict[str, list[list[int]]] = {split: [] for split in SPLITS}
    for user in range(NUM_USERS):
        own = np.arange(user % NUM_CLUSTERS, NUM_ITEMS, NUM_CLUSTERS)
        cold, warm = own[-1], rng.permutation(own[:-1]).tolist()
        stray = int(rng.integers(0, COLD[0] // 3)) * 3 + (user + 1) % NUM_CLUSTERS
        train = rng.permutation([*warm[:5], stray]).tolist()
        splits["train"].append([] if user == NEWCOMER else train)
        splits["valid"].append([warm[5], int(cold)])
        splits["test"].append([warm[6], warm[7]] if user % 2 else [warm[6], int(cold)])
    return splits


def stray(split: str, user: int) -> int:
    """A warm item of the third cluster, which the user never meets else; valid has another one
    than test."""
    return 3 * (user % 4 + (4 if split == "test" else 0)) + (user + 2) % NUM_CLUSTERS


def labels_of(user: int, item: np.ndarray) -> dict[str, np.ndarray]:
    """What came of it when a user met some items, as `write_interactions` takes it.

    Items of the user's own cluster are rated 5, others 2. All are viewed, those of the own cluster
    that have an even number are bought. The position follows from the numbers alone.
    """
    own = item % NUM_CLUSTERS == user % NUM_CLUSTERS
    return {
        "rating": np.where(own, 5.0, 2.0),
        "events": np.stack([np.ones_like(own), own & (item % 2 == 0)], axis=1),
        "position": (user + item) % NUM_POSITIONS,
    }


def gallery(item: int, rng: np.random.Generator) -> list[bytes]:
    """One to three pictures; every fourth item has its first one twice."""
    found = [picture((item + n) % NUM_CLUSTERS, rng) for n in range(1 + item % 3)]
    return [*found, found[0]] if item % 4 == 3 else found


def clip(item: int, rng: np.random.Generator) -> bytes:
    """The frames of a video, one to five pictures of the item's cluster and the others."""
    return join_frames([picture((item + n) % NUM_CLUSTERS, rng) for n in range(1 + item % 5)])


def schema_of(
    *, ordered: bool = False, labels: bool = False, galleries: bool = False, clips: bool = False
) -> Schema:
    """The schema of what `write` writes."""
    return Schema(
        num_users=NUM_USERS,
        num_items=NUM_ITEMS,
        modalities={
            "text": ModalitySpec("text"),
            "image": ModalitySpec("image", max_values=4 if galleries else 1),
            "audio": ModalitySpec("audio", sample_rate_hz=SAMPLE_RATE_HZ),
            "vector": ModalitySpec("vector", dim=6),
            **({"video": ModalitySpec("video", num_frames=5)} if clips else {}),
        },
        item_features={
            "genre": FeatureSpec("categorical", vocabulary=("night", "day"), width=2),
            "price": FeatureSpec("numeric"),
        },
        user_features={"age": FeatureSpec("numeric")},
        profile=True,
        ordered=ordered,
        ratings=labels,
        events=EVENTS if labels else (),
        num_positions=NUM_POSITIONS if labels else 0,
    )


def write(
    folder: pathlib.Path,
    *,
    ordered: bool = False,
    labels: bool = False,
    galleries: bool = False,
    clips: bool = False,
    seed: int = 0,
) -> pathlib.Path:
    """Writes the dataset directory.

    Args:
      folder: where it is to stand.
      ordered: what the schema says.
      labels: whether interactions have ratings, types of events and positions. Each user then
        meets a `stray` in valid and in test, too, so that there are low ratings to foretell.
      galleries: whether items with a picture have several, see `gallery`.
      clips: whether items with a picture have a video, too, see `clip`.
      seed: another one gives other items and interactions.
    """
    rng = np.random.default_rng(seed)
    with DatasetWriter(folder) as writer:
        for item in range(NUM_ITEMS):
            # 2 and 3 are the vocabulary's words.
            genres = [2, 3][item % 2 :] if item % 4 else []
            price = None if item % 6 == 5 else float(rng.normal())
            shown = content(item, rng)
            if galleries and "image" in shown:
                shown["image"] = gallery(item, rng)
            if clips and "image" in shown:
                shown["video"] = clip(item, rng)
            writer.write_item(
                item_id(item),
                content=shown,
                features={"genre": genres, "price": price},
            )
        for user in range(NUM_USERS):
            profile = f"likes the {_WORDS[user % NUM_CLUSTERS]}" if user % 2 else None
            writer.write_user(
                user_id(user),
                profile=profile,
                features={"age": float(rng.normal()) if user % 5 else None},
            )
        for split, users in interactions(rng).items():
            for user, items in enumerate(users):
                if items:
                    if labels and split != "train":
                        items = [*items, stray(split, user)]
                    more = labels_of(user, np.array(items)) if labels else {}
                    writer.write_interactions(
                        split, user, item=items, timestamp=list(range(len(items))), **more
                    )
        writer.finish(
            schema_of(ordered=ordered, labels=labels, galleries=galleries, clips=clips),
            source={"name": "small_world"},
            split_rule="given",
        )
    return folder


def config(*, schema: Schema | None = None, **settings) -> Config:
    """Everything small that has an effect on a dataset of that schema; None for `write`'s.

    Settings are as for `Config.override`, "." written as "__".
    """
    small = Config(
        dim=8,
        text=TextConfig(
            weights="random",
            max_tokens=12,
            vocabulary_size=100,
            hidden_size=8,
            num_layers=1,
            num_heads=2,
        ),
        # Of all architectures the one that is made fastest, and a picture's trace survives random
        # weights in it.
        image=ImageConfig(architecture="VGG16", weights="random", size=32),
        audio=AudioConfig(
            trainable_layers=0,
            sample_rate_hz=SAMPLE_RATE_HZ,
            clip_seconds=0.25,
            num_mels=16,
            fft_length=256,
            hop_length=128,
            fmax_hz=2000.0,
            filters=(4, 8),
        ),
        user=UserConfig(history_length=4),
        ranking=RankingConfig(
            epochs=1, num_cross_layers=1, hidden=(8,), num_negatives=4, num_candidates=12
        ),
        training=TrainingConfig(epochs=2, batch_size=32, learning_rate=0.02),
    )
    changed = {name.replace("__", "."): value for name, value in settings.items()}
    return small.override(changed, schema=schema or schema_of())


def build_retrieval(dataset, **settings) -> RetrievalModel:
    """A model of `VECTORS` with its catalog, and all its weights drawn anew as if trained."""
    tf.keras.utils.set_random_seed(0)
    model = RetrievalModel(config(**{**VECTORS, **settings}), dataset, cache=None, initialize=False)
    rng = np.random.default_rng(0)
    for weight in model.trainable_variables:
        if weight.shape.rank:
            weight.assign(0.5 * rng.normal(size=weight.shape))
    model.popularity_weight.assign(0.7)
    return model


def build_recommender(
    dataset, *, ranking=True, calibration=None, unavailable=(), history="train", **settings
) -> Recommender:
    """Both stages of `build_retrieval`'s model, ranking drawn anew as well; or retrieval alone.

    It knows train only, so that what users meet in valid and test can be recommended.
    """
    retrieval = build_retrieval(dataset, **settings)
    model = None
    if ranking:
        model = RankingModel(retrieval.config, dataset, retrieval=retrieval, initialize=False)
        rng = np.random.default_rng(1)
        for weight in model.trainable_variables:
            if weight.shape.rank:
                weight.assign(0.3 * rng.normal(size=weight.shape))
    return Recommender(
        retrieval,
        model,
        dataset,
        calibration=calibration,
        unavailable=unavailable,
        history=history,
    )


def assert_same(got, want, *, tolerance=1e-3):
    """Same scores, and the same items in the same order, but for scores too near to tell apart.

    Args:
      got, want: `Recommendations`, the latter from Python.
      tolerance: how far scores may differ.
    """
    np.testing.assert_allclose(got.score, want.score, rtol=tolerance, atol=tolerance)
    gap = np.abs(np.diff(want.score, axis=1))
    # What would come behind the last one is not known.
    edge = np.zeros([len(gap), 1])
    near = np.minimum(np.hstack([gap[:, :1], gap]), np.hstack([gap, edge])) < 2 * tolerance
    assert near.mean() < 0.3, "too many scores lie near each other for this to say anything"
    np.testing.assert_array_equal(np.where(near, "", got.item_id), np.where(near, "", want.item_id))
