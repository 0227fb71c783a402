"""A row of the items table, with its text and files -> an item as it is written."""

import argparse
import dataclasses
import functools
import itertools
import pathlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.items import files as media_files
from data.items import vectors
from data.items.files import Found, Medium
from data.items.shards import ItemRow
from data.items.speech import NAME as SPEECH
from data.items.speech import Transcriber
from data.items.vectors import ItemVectors, Matrix
from data.items.workers import Note
from data.tables import columns
from data.tables.entities import Entities
from data.tables.side_features import FeatureEncoder
from data.tables.table import Table
from mmrec_tf.errors import ConfigError
from mmrec_tf.media import audio, image, text, video
from mmrec_tf.records import PreparedItem, Quarantined
from mmrec_tf.records.record_proto import Content
from mmrec_tf.schema import ModalitySpec

# Within the class, `video` is one of its fields.
_NUM_FRAMES = video.NUM_FRAMES


@dataclass(frozen=True, kw_only=True)
class ContentOptions:
    """Where an item's text, picture, sound and video are, and how they are prepared.

    Attributes:
      media_root: the folder that paths of media are relative to; by default that of the table.
      text: the columns joined into an item's text, or ("none",); by default `title` and
        `description`, else `plot`.
      image: a column of paths, a template such as `images/{movieId}.jpg`, or "none".
      audio: as `image`.
      video: as `image`. Where an item has no sound of its own, that of its video is taken, unless
        `audio` is "none".
      max_images: at most so many pictures an item. Several are found by a template such as
        `images/{item}-*.jpg`, or named in one cell with "|" between them.
      vectors: by modality, a file of ready-made vectors; see `data.items.vectors.read_vectors`.
      image_max_side: larger pictures are shrunk to this, in pixels.
      sample_rate_hz: sounds are resampled to this.
      max_seconds: longer sounds are cut.
      audio_window: which part of a longer sound stays: "start", "center" or "loudest".
      video_frames: at most so many frames of a video stay, each shrunk as pictures are.
      video_pick: which: "spread" or "scenes"; see `mmrec_tf.media.video.prepare`.
      transcribe: "audio" where speech in an item's sound becomes a modality of text, "speech";
        None where not.
      speech_model: the folder of the Whisper model that does so; None for pocketsphinx, which
        knows English only. See `data.items.speech`.
    """

    media_root: str | None = None
    text: tuple[str, ...] | None = None
    image: str | None = None
    audio: str | None = None
    video: str | None = None
    max_images: int = 1
    vectors: Mapping[str, str] = dataclasses.field(default_factory=dict)
    image_max_side: int = 320
    sample_rate_hz: int = 16000
    max_seconds: float = 10.0
    audio_window: str = "loudest"
    video_frames: int = _NUM_FRAMES
    video_pick: str = "spread"
    transcribe: str | None = None
    speech_model: str | None = None

    def __post_init__(self) -> None:
        if self.transcribe not in (None, "audio"):
            raise ConfigError(f"--transcribe: wanted audio; got {self.transcribe!r}.")
        if self.transcribe is None and self.speech_model is not None:
            raise ConfigError(
                "--speech-model: has no effect without --transcribe audio; give both, or neither."
            )
        if self.transcribe is not None:
            Transcriber(self.speech_model or "").check()
        if self.video_pick not in video.PICKS or not 1 <= self.video_frames <= video.MOST_FRAMES:
            raise ConfigError(
                f"video: wanted 1 to {video.MOST_FRAMES} frames, picked by one of "
                f"{', '.join(video.PICKS)}; got {self.video_frames} by {self.video_pick!r}."
            )
        for name in ("max_images", "image_max_side", "sample_rate_hz", "max_seconds"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name}: wanted more than 0; got {getattr(self, name)}.")
        if self.audio_window not in audio.WINDOWS:
            raise ConfigError(
                f"audio_window: wanted one of {', '.join(audio.WINDOWS)}; "
                f"got {self.audio_window!r}."
            )
        vectors.check_names(self.vectors, taken=("text", "image", "audio", "video", SPEECH))


def add_arguments(parser: argparse.ArgumentParser, *, files: bool = True) -> None:
    """Adds the options of `ContentOptions` to a command.

    Args:
      parser: of the command.
      files: whether columns and files can be chosen; else only how media are prepared.
    """
    group = parser.add_argument_group("content")
    if files:
        group.add_argument(
            "--media-root",
            metavar="DIR",
            help="what paths are relative to (default: that of --items)",
        )
        group.add_argument(
            "--text",
            type=names,
            metavar="COLUMN,...",
            help="joined into an item's text (default: title and description, else plot); or none",
        )
        for name, example in (
            ("image", "images/{movieId}.jpg"),
            ("audio", "audio/{item}.*"),
            ("video", "video/{item}.*"),
        ):
            group.add_argument(
                f"--{name}",
                metavar="PLACE",
                help=f"a column of paths, a template such as {example}, or none",
            )
        group.add_argument(
            "--max-images",
            type=int,
            default=1,
            metavar="N",
            help="the most pictures of an item, where a template such as images/{item}-*.jpg finds "
            "several, or a cell has several paths with | between them (default: 1)",
        )
        group.add_argument(
            "--video-frames",
            type=int,
            default=video.NUM_FRAMES,
            metavar="N",
            help=f"frames of a video, at most {video.MOST_FRAMES} (default: {video.NUM_FRAMES})",
        )
        group.add_argument(
            "--video-pick",
            choices=video.PICKS,
            default="spread",
            help="which frames: spread over the clip, or one a scene (default: spread)",
        )
    vectors.add_argument(
        group,
        what="ready-made vectors as a modality NAME: .parquet with ids, or .npy with the ids of "
        "its rows in FILE.ids.txt or else as the rows of the items",
    )
    group.add_argument("--image-max-side", type=int, default=320, help="pixels; 320")
    group.add_argument("--sample-rate-hz", type=int, default=16000, help="16000")
    group.add_argument("--max-seconds", type=float, default=10.0, help="of a sound; 10")
    group.add_argument(
        "--audio-window",
        choices=audio.WINDOWS,
        default="loudest",
        help="what stays of a longer sound (default: loudest)",
    )
    group.add_argument(
        "--transcribe",
        choices=("audio",),
        help="write what is said in an item's sound as a text of its own, speech",
    )
    group.add_argument(
        "--speech-model",
        metavar="DIR",
        help="a Whisper model of TensorFlow, as transformers saves it, for --transcribe; without "
        "one pocketsphinx listens, which knows English only",
    )


def from_arguments(arguments: argparse.Namespace) -> dict[str, Any]:
    """What was typed for the options of `add_arguments`, as arguments of `ContentOptions`."""
    known = {field.name for field in dataclasses.fields(ContentOptions)}
    found = {name: value for name, value in vars(arguments).items() if name in known}
    return found | {"vectors": vectors.vectors_by_name(arguments.vectors)}


def names(text: str) -> tuple[str, ...]:
    """Reads names that commas separate, as they are typed."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


@dataclass(frozen=True)
class MediaItem:
    """Makes an item of its raw text and its files: the per-item function, wherever it runs.

    Attributes:
      media: by modality, what makes content of files.
      matrices: by modality, ready-made vectors.
      tracks: what makes a sound of a video's file; None where that is not wanted.
      speech: what makes text of a sound; None where that is not wanted.
    """

    media: Mapping[str, Medium]
    matrices: Mapping[str, Matrix] = dataclasses.field(default_factory=dict)
    tracks: Medium | None = None
    speech: Transcriber | None = None

    def _transcribe(
        self, item_id: str, sound: bytes, *, left_out: Mapping[str, str], note: Note
    ) -> str | Quarantined:
        """What is said in an item's sound; "" for nothing."""
        assert self.speech is not None
        name = media_files.medium_name(item_id, SPEECH, "")
        if name in left_out:
            return Quarantined(item_id, SPEECH, "", left_out[name])
        note(name, 0)
        self.speech.load()
        # From here on the time of one sound counts.
        note(name, 0)
        return text.prepare(self.speech(sound))

    def _sound_track(
        self,
        row: ItemRow,
        *,
        left_out: Mapping[str, str],
        note: Note,
        mended: list[Quarantined],
    ) -> bytes | Quarantined | None:
        """The sound of an item's video; None for a video without one, or a silent one."""
        files, _ = row.cells["media"]["video"]
        found = Found(*files[0])
        track = (
            self.tracks.load(row.item_id, found, left_out=left_out, note=note, mended=mended)
            if self.tracks is not None
            else None
        )
        # A video that is silent lacks nothing.
        if isinstance(track, Quarantined) and track.reason.startswith(("silent", video.NO_SOUND)):
            return None
        return track

    def __call__(self, row: ItemRow, left_out: Mapping[str, str], note: Note) -> PreparedItem:
        """Prepares one item; see `data.items.shards.Maker`."""
        content: dict[str, Content] = {}
        quarantined, beyond = [], {}
        mended: list[Quarantined] = []
        first: dict[str, bytes] = {}
        prepared = text.prepare(row.cells["text"])
        if prepared:
            content["text"] = prepared
        for modality, (files, more) in row.cells["media"].items():
            medium = self.media[modality]
            loaded = [
                medium.load(row.item_id, Found(*found), left_out=left_out, note=note, mended=mended)
                for found in files
            ]
            quarantined += [value for value in loaded if isinstance(value, Quarantined)]
            values = [value for value in loaded if not isinstance(value, Quarantined)]
            if values:
                content[modality] = values
                first[modality] = values[0]
            if more:
                beyond[modality] = more
        if self.tracks is not None and "video" in content and "audio" not in content:
            track = self._sound_track(row, left_out=left_out, note=note, mended=mended)
            if isinstance(track, Quarantined):
                quarantined.append(track)
            elif track:
                content["audio"] = [track]
                first["audio"] = track
        if self.speech is not None and "audio" in first:
            said = self._transcribe(row.item_id, first["audio"], left_out=left_out, note=note)
            if isinstance(said, Quarantined):
                quarantined.append(said)
            elif said:
                content[SPEECH] = said
        for modality, number in row.cells["vectors"].items():
            vector = self.matrices[modality].load(number, item_id=row.item_id, modality=modality)
            if isinstance(vector, Quarantined):
                quarantined.append(vector)
            else:
                content[modality] = vector
        features = row.cells["features"]
        return PreparedItem(
            row.number,
            row.item_id,
            content,
            features,
            tuple(quarantined),
            beyond,
            tuple(mended),
        )


class Layout:
    """Where the parts of an item stand in its row, and what makes content of them.

    Args:
      catalog: the table of the items.
      options: which columns and files to take, and how to prepare them.

    Attributes:
      root: the media root.
      media: by modality, what makes content of files.
      places: by modality, where these are: a column or a template.
      asked: the modalities that items may have.
      specs: by modality, the form that its content has.

    Raises:
      ConfigError: for a column that the table lacks.
      DatasetError: when there is no media root.
    """

    def __init__(self, catalog: Entities, options: ContentOptions):
        self.root = root = pathlib.Path(options.media_root or catalog.table.path.parent)
        media_files.check_root(root)
        self._text = _text_columns(options.text, catalog.table)
        self._locators: dict[str, media_files.Locator] = {}
        self.media: dict[str, Medium] = {}
        self.places: dict[str, str] = {}
        prepare_image = functools.partial(image.prepare, max_side=options.image_max_side)
        prepare_audio = functools.partial(
            audio.prepare,
            sample_rate_hz=options.sample_rate_hz,
            max_seconds=options.max_seconds,
            window=options.audio_window,
        )
        prepare_video = functools.partial(
            video.prepare,
            num_frames=options.video_frames,
            max_side=options.image_max_side,
            pick=options.video_pick,
        )
        for name, place, function, max_bytes, max_files in (
            ("image", options.image, prepare_image, image.MAX_BYTES, options.max_images),
            ("audio", options.audio, prepare_audio, audio.MAX_BYTES, 1),
            ("video", options.video, prepare_video, video.MAX_BYTES, 1),
        ):
            place = place or media_files.default_place(
                name, catalog.table, root, item=catalog.column
            )
            if place in (None, media_files.ABSENT):
                continue
            self._locators[name] = media_files.Locator(
                name, root, table=catalog.table, place=place, max_files=max_files
            )
            self.media[name] = Medium(name, root, function, max_bytes)
            self.places[name] = str(place)
        if "video" not in self.places and (
            options.video_frames != _NUM_FRAMES or options.video_pick != "spread"
        ):
            raise ConfigError(
                "--video-frames, --video-pick: wanted items with videos; there is no place for "
                "any. Name one (--video), or leave these out."
            )
        self.tracks = None
        if "video" in self.places and options.audio != media_files.ABSENT:
            function = functools.partial(video.sound_track, prepare=prepare_audio)
            self.tracks = Medium("audio", root, function, video.MAX_BYTES)
        asked = {**dict.fromkeys(["text"] if self._text else []), **dict.fromkeys(self.places)}
        self.asked = (*asked, *(["audio"] if self.tracks and "audio" not in asked else []))
        self.speech = None
        if options.transcribe is not None:
            self.speech = Transcriber(options.speech_model or "")
            if "audio" not in self.asked:
                raise ConfigError(
                    "--transcribe audio: wanted items with sounds; there is no place for any. Name "
                    "one (--audio, --video), or leave it out."
                )
            self.asked = (*self.asked, SPEECH)
        self.specs = {
            "text": ModalitySpec(kind="text"),
            "image": ModalitySpec(kind="image"),
            "audio": ModalitySpec(kind="audio", sample_rate_hz=options.sample_rate_hz),
            "video": ModalitySpec(kind="video", num_frames=options.video_frames),
            SPEECH: ModalitySpec(kind="text"),
        }

    def warn_of_none(self, table: Table, name: str, num_items: int) -> str:
        """What to say when no item has a picture, or a sound, though a place for them is known.

        Args:
          table: of the items.
          name: "image", "audio" or "video".
          num_items: how many items there are.
        """
        place, rows = self.places[name], columns.first_rows(table)
        named = [found.name for row in rows for found in self._locators[name].find(row).found]
        if not named:
            return f"{name}: 0 of {num_items} items have any; {place!r} names no files."
        way = "name their place by --media-root, or by a template"
        if place in table.columns:
            likely = columns.place_of(name, place, [row.cells[place] for row in rows], self.root)
            way = f"would {likely} be right?" if "{" in likely else way
        return (
            f"{name}: 0 of {num_items} items have any; no file that {place!r} names could be used, "
            f"such as {named[0]!r} below {self.root} (quarantine.csv says why); {way}"
        ).rstrip("?.") + ("?" if "would" in way else ".")

    def preview(self, table: Table) -> dict[str, dict[str, Any]]:
        """By modality of files: the `place`, and of how many of the first items there are files."""
        rows = columns.first_rows(table)
        found = {}
        for name, place in self.places.items():
            files = [self._locators[name].find(row).found for row in rows]
            there = sum(any((self.root / f.name).is_file() for f in some) for some in files)
            found[name] = {"place": place, "items": there, "of": len(rows)}
        return found

    def rows(
        self,
        catalog: Entities,
        features: FeatureEncoder,
        stays: NDArray[np.bool_],
        *,
        vectors: Mapping[str, ItemVectors],
    ) -> Iterator[ItemRow]:
        """The items of the table, then those that only the interactions name.

        Args:
          catalog: the table.
          features: what encodes their side features.
          stays: <bool>[item], which of them are wanted.
          vectors: by modality, ready-made vectors.
        """

        def numbers_of_rows(item: str) -> dict[str, int]:
            return {name: v.row[item] for name, v in vectors.items() if item in v.row}

        numbers = itertools.count()
        listed = 0
        for listed, (item, row) in enumerate(catalog.rows(), 1):
            if stays[listed - 1]:
                cells = {
                    "text": _join_sentences([row.cells[name] for name in self._text]),
                    "media": {name: at.find(row) for name, at in self._locators.items()},
                    "vectors": numbers_of_rows(item),
                    "features": features.encode(row),
                }
                yield ItemRow(next(numbers), item, cells)
        bare = {"text": "", "media": {}, "features": features.missing()}
        for item in itertools.compress(itertools.islice(catalog.ids, listed, None), stays[listed:]):
            yield ItemRow(next(numbers), item, {**bare, "vectors": numbers_of_rows(item)})


def _text_columns(asked: tuple[str, ...] | None, table: Table) -> tuple[str, ...]:
    if asked == (media_files.ABSENT,):
        return ()
    if asked is None:
        longer = [name for name in ("description", "plot") if name in table.columns][:1]
        asked = tuple(name for name in ("title", *longer) if name in table.columns)
    for name in asked:
        table.required_column(name, name, role="text")
    return asked


def _join_sentences(parts: list[str]) -> str:
    """Parts of a text as sentences of one."""
    whole = ""
    for part in filter(None, parts):
        whole += (" " if whole.endswith((".", "!", "?")) else ". ") * bool(whole) + part
    return whole
