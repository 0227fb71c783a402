"""The recipes of CONTRIBUTING.md, followed in a copy of the checkout: what they make trains."""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]


def files_of(recipe: str) -> set[str]:
    """The files of code that a recipe names, but for tests and pages."""
    page = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    section = page.partition(f"### {recipe}\n")[2].partition("\n### ")[0]
    named = re.findall(r"^\d\. `([\w/.]+\.py)`", section, re.M)
    assert named, recipe
    return {name for name in named if not name.startswith("tests/")}


def edit(folder: pathlib.Path, name: str, *, at: str, line: str, code: str = "") -> str:
    """Puts code before a line of a file, and another line after it; returns the file's name."""
    path = folder / name
    text = path.read_text("utf-8")
    assert text.count(at) == 1, f"{name} has {text.count(at)} times {at!r}"
    path.write_text(text.replace(at, code + at + line), "utf-8")
    return name


FAMILY_CONFIG = '''
@dataclass(frozen=True)
class LettersConfig:
    """How often each letter occurs; `num_letters` of the alphabet are counted."""

    num_letters: int = shapes_weights(26)


'''
FAMILY = '''"""Counts of letters."""

import tensorflow as tf

from mmrec_tf.encoders.encoder import ModalityEncoder


class Encoder(ModalityEncoder):
    """A text as the shares of its letters."""

    def __init__(self, num_letters, **kwargs):
        super().__init__(trainable_layers=0, **kwargs)
        self.num_letters = num_letters

    @property
    def output_dim(self):
        return self.num_letters

    def content_spec(self):
        return tf.TensorSpec([None, self.num_letters], tf.float32)

    def preprocess(self, raw):
        raw = tf.strings.lower(raw)
        letters = [chr(ord("a") + n) for n in range(self.num_letters)]
        without = [tf.strings.length(tf.strings.regex_replace(raw, c, "")) for c in letters]
        counts = tf.strings.length(raw)[:, None] - tf.stack(without, axis=1)
        return tf.cast(counts, tf.float32)

    def call(self, content, training=False):
        return content / tf.maximum(tf.reduce_sum(content, axis=1, keepdims=True), 1.0)

    def get_config(self):
        config = {**super().get_config(), "num_letters": self.num_letters}
        del config["trainable_layers"]
        return config


def build_encoder(config, spec, *, values=None, assets=None):
    return Encoder(config.num_letters)
'''
FUSION = '''
@tf.keras.utils.register_keras_serializable("mmrec_tf")
class Loudest(Mean):
    """Weighs a modality by its length."""

    def logits(self, modalities):
        return tf.norm(tf.cast(modalities, tf.float32), axis=-1)


'''
ARCHITECTURE = '''
@tf.keras.utils.register_keras_serializable("mmrec_tf")
class Doubled(Flattened):
    """All features, and their squares."""

    def call(self, inputs, training=False):
        deep, wide = super().call(inputs, training=training)
        return tf.concat([deep, tf.square(deep)], axis=1), wide


'''
LOSS = '''
def hinge_loss(logits, labels, weights):
    """A positive stands one above each negative, or it costs the difference."""
    gap = tf.maximum(1.0 - logits[:, :1] + logits[:, 1:], 0.0)
    return tf.reduce_sum(weights[:, 1:] * gap, axis=1)


'''
SOURCE = '''"""Likes as a text file: a user and an item a line."""

import dataclasses

from data.sources import media_folder


@dataclasses.dataclass(frozen=True)
class Likes:
    """Where the file is."""

    path: str


def add_arguments(parser):
    """Adds the option."""
    parser.add_argument("--likes", required=True)


def from_arguments(arguments):
    """What was typed."""
    return Likes(arguments.likes)


def prepare(options, out, **how):
    """Hands two tables to media-folder."""
    import pathlib

    folder = pathlib.Path(options.path).parent
    pairs = [line.split() for line in open(options.path, encoding="utf-8")]
    items = sorted({item for _, item in pairs})
    (folder / "items.csv").write_text("item,title\\n" + "".join(f"{i},{i}\\n" for i in items))
    rows = "".join(f"{u},{i},{n}\\n" for n, (u, i) in enumerate(pairs))
    (folder / "interactions.csv").write_text("user,item,timestamp\\n" + rows)
    settings = media_folder_settings(folder)
    return media_folder.prepare(settings, out, **how)


def media_folder_settings(folder):
    """The same as if media-folder had been called."""
    import argparse

    parser = argparse.ArgumentParser()
    media_folder.add_arguments(parser)
    tables = ["--items", str(folder / "items.csv")]
    tables += ["--interactions", str(folder / "interactions.csv")]
    return media_folder.from_arguments(parser.parse_args(tables))
'''


def add_encoder_family(folder):
    config, package = "mmrec_tf/config/encoders.py", "mmrec_tf/encoders/text/__init__.py"
    (folder / "mmrec_tf/encoders/text/letters.py").write_text(FAMILY, "utf-8")
    at = "@dataclass(frozen=True)\nclass BertConfig"
    edit(folder, "mmrec_tf/config/text.py", at=at, line="", code=FAMILY_CONFIG.lstrip())
    edit(folder, config, at="from mmrec_tf.config.text import (", line=" LettersConfig,")
    edit(folder, config, at='"text": {\n', line='        "letters": LettersConfig,\n')
    edit(folder, config, at="class TextConfig(\n", line="    LettersConfig,\n")
    edit(folder, package, at="FAMILIES = {\n", line='    "letters": letters,\n')
    edit(folder, package, at="from mmrec_tf.encoders.text import ", line="letters, ")
    # The third file, the `__init__.py` beside the second, has no name of its own on the page.
    return {"mmrec_tf/config/KIND.py", config, "mmrec_tf/encoders/KIND/NAME.py"}


def add_fusion(folder):
    fusion, config = "mmrec_tf/towers/fusion.py", "mmrec_tf/config/retrieval.py"
    line = '    "loudest": Loudest,\n'
    return {
        edit(folder, fusion, at="FUSIONS = {\n", line=line, code=FUSION),
        edit(folder, config, at="FUSIONS = (\n", line='    "loudest",\n'),
    }


def add_ranking_architecture(folder):
    layers, config = "mmrec_tf/ranking/feature_interaction.py", "mmrec_tf/config/ranking.py"
    at, line = "INTERACTIONS: dict[str, Callable] = {\n", '    "doubled": _plain(Doubled),\n'
    return {
        edit(folder, layers, at=at, line=line, code=ARCHITECTURE),
        edit(folder, config, at="\nARCHITECTURES = (", line='"doubled", '),
    }


def add_ranking_loss(folder):
    losses, config = "mmrec_tf/ranking/losses.py", "mmrec_tf/config/ranking.py"
    line = '    "hinge": lambda logits, labels, weights, _: hinge_loss(logits, labels, weights),\n'
    return {
        edit(folder, losses, at="LOSSES: dict[str, Callable] = {\n", line=line, code=LOSS),
        edit(folder, config, at="RANKING_LOSSES = (", line='"hinge", '),
    }


def add_dataset_source(folder):
    (folder / "data/sources/likes.py").write_text(SOURCE, "utf-8")
    line = '    "likes": (likes, "a user and an item a line"),\n'
    command = edit(folder, "data/prepare.py", at="SOURCES = {\n", line=line)
    edit(folder, command, at="from data.sources import ", line="likes, ")
    return {"data/sources/NAME.py", command}


# Each: what to do, and what a config says to have it trained.
RECIPES = {
    "Add a family of encoders to a kind of content": (
        add_encoder_family,
        {"modalities": ["text", "vector"], "text.family": "letters", "text.num_letters": 20},
    ),
    "Add a fusion": (add_fusion, {"item.fusion": "loudest"}),
    "Add a ranking architecture": (add_ranking_architecture, {"ranking.architecture": "doubled"}),
    "Add a ranking loss": (add_ranking_loss, {"ranking.loss": "hinge"}),
    "Add a dataset source": (add_dataset_source, {}),
}
TRAINED = """
import json, pathlib, sys
import mmrec_tf as mm
from data import prepare
from support import small_world

folder = pathlib.Path(sys.argv[1])
dataset = mm.open_dataset(small_world.write(folder / "world"))
for settings in json.loads(sys.argv[2]):
    config = small_world.config(
        modalities=["audio", "vector"], user__profile=False, training__epochs=1
    ).override(settings, schema=dataset.schema)
    retrieval = mm.RetrievalModel(config, dataset)
    mm.train(retrieval, dataset)
    ranking = mm.RankingModel(config, dataset, retrieval=retrieval)
    mm.train(ranking, dataset)
    print("trained", settings)
(folder / "likes.txt").write_text("".join(f"u{n % 5} i{n % 7}\\n" for n in range(70)))
likes = ["likes", "--likes", str(folder / "likes.txt"), "--out", str(folder / "out")]
assert prepare.main(likes) == 0
print("items", mm.open_dataset(folder / "out").schema.num_items)
"""


@pytest.fixture(scope="module")
def followed(tmp_path_factory):
    """A copy of the checkout in which all recipes were followed, and what each touched."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("mmrec_tf", "data"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    return folder, {recipe: act(folder) for recipe, (act, _) in RECIPES.items()}


def test_a_recipe_names_every_file(followed):
    for recipe, touched in followed[1].items():
        assert touched == files_of(recipe), recipe


@pytest.mark.slow
def test_what_the_recipes_make_trains(followed, tmp_path):
    settings = [wanted for _, wanted in RECIPES.values() if wanted]
    found = subprocess.run(
        [sys.executable, "-c", TRAINED, str(tmp_path), json.dumps(settings)],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(map(str, [followed[0], ROOT / "tests"])),
            "TF_CPP_MIN_LOG_LEVEL": "3",
        },
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert found.returncode == 0, found.stderr[-3000:]
    assert found.stdout.count("trained") == len(settings)
    assert "items 7" in found.stdout
