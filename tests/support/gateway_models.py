"""Models that a gateway may ask, made of dictionaries: no TensorFlow runs."""

import asyncio
import types

import cv2
import grpc
import numpy as np

from serving.client import (
    FoundItems,
    ItemEmbeddings,
    Outputs,
    Ranking,
    Recommendations,
    SimilarItems,
    UserEmbeddings,
)
from serving.client.calls import CallError

NUM_ITEMS, DIM, K = 30, 4, 20
MODALITIES = ("text", "image")
WORDS = {word: place for place, word in enumerate("owl gull lark wren".split())}


def item_id(number: int) -> str:
    return f"i{number:02d}"


def vector_of(words: str) -> np.ndarray:
    """The vector of a word: one direction each; of none of them, all alike."""
    vector = np.full(DIM, 0.01, np.float32)
    for word, place in WORDS.items():
        vector[place] += word in words
    return vector / np.linalg.norm(vector)


def picture(color=(0, 0, 200)) -> bytes:
    """A small JPEG, which preparation leaves as it is."""
    pixels = np.full((24, 32, 3), color, np.uint8)
    return cv2.imencode(".jpg", pixels)[1].tobytes()


class World:
    """What the models know, and how they behave just now.

    Item n lies in direction n modulo 4. A user lies where the last item of the history does. Scores
    are ten times the cosine, less a hundredth of the item's number.

    Attributes:
      version: of both models.
      knows: further items by id and word, as a later version does.
      only: arms that have this version and know that; none for all, others have version 1.
      down: whether nothing answers.
      seconds: how long an answer takes.
      ranks_new: whether the recommender has `rank_new`.
      takes_video: whether the encoder does.
      asked: (signature, arm, what came) of each call.
    """

    def __init__(self):
        self.version = 1
        self.knows = {}
        self.only = ()
        self.down = False
        self.seconds = 0.0
        self.encoder_seconds = 0.0
        self.ranks_new = False
        self.takes_video = False
        self.asked = []
        self.closed = 0

    def items_of(self, arm: str) -> dict[str, np.ndarray]:
        words = list(WORDS)
        found = {item_id(n): vector_of(words[n % DIM]) for n in range(NUM_ITEMS)}
        knows = {} if self.only and arm not in self.only else self.knows
        return found | {name: vector_of(word) for name, word in knows.items()}

    def client(self, arm: str, seconds: float) -> "Models":
        return Models(self, arm, seconds)


class Models:
    """As `serving.client.AsyncClient`, for one row."""

    def __init__(self, world: World, arm: str, timeout: float):
        self.world, self.arm, self.timeout = world, arm, timeout

    @property
    def items(self):
        return self.world.items_of(self.arm)

    @property
    def version(self):
        return 1 if self.world.only and self.arm not in self.world.only else self.world.version

    async def _asked(self, signature, seconds=None, **what):
        world = self.world
        world.asked.append((signature, self.arm, what))
        if world.down:
            raise CallError("away", code=grpc.StatusCode.UNAVAILABLE, details="away")
        seconds = world.seconds if seconds is None else seconds
        await asyncio.sleep(min(seconds, self.timeout))
        if seconds >= self.timeout:
            raise CallError("late", code=grpc.StatusCode.DEADLINE_EXCEEDED, details="late")

    def _user(self, history):
        known = [one for one in history if one in self.items]
        return self.items[known[-1]] if known else None

    def _scores(self, history):
        user, items = self._user(history), self.items
        at = vector_of("") if user is None else user
        return {
            name: float(10 * vector @ at - place / 100)
            for place, (name, vector) in enumerate(items.items())
        }

    async def recommend(self, user_id, history, *, exclude, allow, deny, time):
        await self._asked(
            "recommend",
            user=user_id[0],
            history=list(history[0]),
            exclude=list(exclude[0]),
            allow=list(allow[0]),
            deny=list(deny[0]),
        )
        gone = {*history[0], *exclude[0]}
        scores = {n: s for n, s in self._scores(history[0]).items() if n not in gone}
        best = sorted(scores, key=lambda name: -scores[name])[:K]
        blank = K - len(best)
        score = np.array([[scores[name] for name in best] + [-1e9] * blank], np.float32)
        known = self._user(history[0]) is not None
        modality = ["text" if known else ""] * len(best) + [""] * blank
        because = [history[0][-1] if known else ""] * len(best) + [""] * blank
        return Recommendations(
            np.array([best + [""] * blank], object),
            score,
            1 / (1 + np.exp(-score / 10)),
            np.array([modality], object),
            np.array([because], object),
            self.version,
        )

    async def rank(self, user_id, item_id, *, history, time):
        await self._asked("rank", history=list(history[0]), items=list(item_id[0]))
        scores = self._scores(history[0])
        score = np.array([[scores.get(name, -1e9) for name in item_id[0]]], np.float32)
        probability = np.where(score > -1e9, 1 / (1 + np.exp(-np.maximum(score, -99) / 10)), 0)
        return Ranking(np.array(item_id, object), score, probability, self.version)

    async def embed_user(self, user_id, history):
        await self._asked("embed_user", history=list(history[0]))
        user = self._user(history[0])
        known = np.array([user is not None])
        return UserEmbeddings(
            np.zeros([1, DIM], np.float32) if user is None else user[None],
            known,
            self.version,
        )

    async def similar_items(self, item_id):
        await self._asked("similar_items", item=item_id[0])
        items = self.items
        found = FoundItems(*self._nearest(items.get(item_id[0]), without=item_id[0]), None)
        return SimilarItems(found.item_id, found.score, self.version)

    def _nearest(self, vector, *, without="", k=10):
        scores = {
            name: float(other @ vector)
            for name, other in (self.items if vector is not None else {}).items()
            if name != without
        }
        best = sorted(scores, key=lambda name: (-scores[name], name))[:k]
        return np.array([best], object), np.array([[scores[one] for one in best]], np.float32)

    def _content(self, content):
        words = " ".join(content.get("text", [[]])[0])
        # A picture says its word in its size: 8 pixels more for each.
        return vector_of(words)

    async def search(self, **content):
        await self._asked("search", self.world.encoder_seconds, **content)
        found = self._nearest(self._content(content), k=content.get("k") or 10)
        return FoundItems(*found, np.zeros([1, 2], bool), self.version)

    async def embed_item(self, **content):
        await self._asked("embed_item", self.world.encoder_seconds, **content)
        has = np.array([[bool(content.get(name, [[]])[0]) for name in MODALITIES]])
        vector = self._content(content)
        answer = {
            "embedding": vector[None],
            "weights": (has / max(1, has.sum())).astype(np.float32),
            "present": has,
            "unreadable": np.zeros([1, 2], bool),
            "modalities": np.stack([[vector, vector]]).astype(np.float32),
            "version": self.version,
        }
        names = [name for name in ItemEmbeddings._fields if name in answer]
        return ItemEmbeddings(**{name: answer[name] for name in names})

    async def predict(self, model, inputs, *, signature):
        await self._asked(signature, **inputs)
        assert signature == "rank_new" and self.world.ranks_new
        history = [one.decode() for one in inputs["history"][0] if one]
        at = self._user(history)
        at = vector_of("") if at is None else at
        # Half a point above what an item of the catalog there would have.
        score = 10 * inputs["embedding"] @ at + 0.5
        blank = np.full(score.shape, b"text", object)
        outputs = {"score": score, "probability": 1 / (1 + np.exp(-score / 10))}
        return Outputs(
            {**outputs, "modality": blank, "history_item": np.full(score.shape, b"", object)},
            version=self.version,
        )

    async def metadata(self, model):
        await self._asked("metadata", model=model)
        names = ["recommend", *(["rank_new"] if self.world.ranks_new else [])]
        if model == "encoder":
            names = ["embed_item", "search"]
        inputs = dict.fromkeys([*MODALITIES, *(["video"] if self.world.takes_video else [])])
        signatures = {name: types.SimpleNamespace(inputs=inputs) for name in names}
        return types.SimpleNamespace(signatures=signatures)

    async def close(self):
        self.world.closed += 1
