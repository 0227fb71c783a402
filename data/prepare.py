"""The command that makes dataset directories: `python -m data.prepare SOURCE ... --out DIR`."""

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Any

from mmrec_tf.errors import ConfigError, MmrecError


def main(argv: Sequence[str] | None = None) -> int:
    """Parses and calls; see `--help`.

    Returns:
      0; 2 for wrong usage, 1 for any other error of ours.
    """
    arguments = _parser().parse_args(argv)
    # Otherwise TensorFlow's greetings stand where one line of error should.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        manifest = arguments.run(arguments)
    except MmrecError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 2 if isinstance(error, ConfigError) else 1
    print(_summary(manifest, arguments.out))
    return 0


def _synthetic(arguments: argparse.Namespace) -> dict[str, Any]:
    from data import synthetic

    world = synthetic.World(
        num_users=arguments.users,
        num_items=arguments.items,
        num_clusters=arguments.clusters,
        seed=arguments.seed,
    )
    return synthetic.prepare(
        world,
        arguments.out,
        keep_source=arguments.keep_source,
        overwrite=arguments.overwrite,
        workers=arguments.workers,
    )


def _media_folder(arguments: argparse.Namespace) -> dict[str, Any]:
    from data import media_folder
    from data.interactions import InteractionColumns
    from data.side_features import FeatureColumns

    def features(categorical: tuple[str, ...], numeric: tuple[str, ...]) -> FeatureColumns:
        return FeatureColumns(
            categorical=categorical,
            numeric=numeric,
            separator=arguments.separator,
            vocabulary_size=arguments.vocabulary_size,
        )

    options = media_folder.MediaFolder(
        items=arguments.items,
        interactions=arguments.interactions,
        users=arguments.users,
        media_root=arguments.media_root,
        split=arguments.split,
        columns=InteractionColumns(
            user=arguments.user_column,
            item=arguments.item_column,
            timestamp=arguments.timestamp_column,
            date=arguments.date_column,
            rating=arguments.rating_column,
            weight=arguments.weight_column,
            split=arguments.split_column,
        ),
        text=arguments.text,
        image=arguments.image,
        audio=arguments.audio,
        profile=arguments.profile_column,
        item_features=features(arguments.item_categorical, arguments.item_numeric),
        user_features=features(arguments.user_categorical, arguments.user_numeric),
        image_max_side=arguments.image_max_side,
        sample_rate_hz=arguments.sample_rate_hz,
        max_seconds=arguments.max_seconds,
        skip_bad_rows=arguments.skip_bad_rows,
    )
    return media_folder.prepare(
        options, arguments.out, overwrite=arguments.overwrite, workers=arguments.workers
    )


def _features(arguments: argparse.Namespace) -> dict[str, Any]:
    from data import features

    options = features.Features(
        train=arguments.train,
        valid=arguments.valid,
        test=arguments.test,
        vectors=dict(arguments.vector),
    )
    return features.prepare(options, arguments.out, overwrite=arguments.overwrite)


def _summary(manifest: dict[str, Any], out: str) -> str:
    counts = manifest["counts"]
    interactions = ", ".join(f"{n} {split}" for split, n in counts["interactions"].items())
    lines = [
        f"users         {counts['users']}",
        f"items         {counts['items']}",
        f"interactions  {interactions} (split: {manifest['split_rule']})",
    ]
    for name, number in counts["present"].items():
        lines.append(f"{name:<13} {number} of {counts['items']} items")
    dropped = {f"{name} (repeated)": n for name, n in counts["duplicates"].items() if n}
    for table, reasons in counts["skipped_rows"].items():
        dropped |= {f"{table} ({reason})": n for reason, n in reasons.items()}
    if dropped:
        lines.append("dropped       " + ", ".join(f"{n} {name}" for name, n in dropped.items()))
    quarantined = sum(n for reasons in manifest["quarantine"].values() for n in reasons.values())
    where = f" (see {os.path.join(out, 'quarantine.csv')})" if quarantined else ""
    lines.append(f"quarantined   {quarantined} media{where}")
    lines.append(f"written to    {out}")
    return "\n".join(lines)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m data.prepare", description=__doc__)
    sources = parser.add_subparsers(required=True, metavar="SOURCE")
    _add_synthetic(sources.add_parser("synthetic", help="a planted world with a known answer"))
    _add_media_folder(
        sources.add_parser("media-folder", help="your tables and folders of pictures and sounds")
    )
    _add_features(
        sources.add_parser("features", help="matrices of interactions and ready-made vectors")
    )
    return parser


def _add_output(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", required=True, metavar="DIR", help="the dataset directory")
    parser.add_argument(
        "--overwrite", action="store_true", help="replace the dataset that stands there"
    )


def _add_workers(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--workers", type=_positive, help="threads that decode media (default: one a CPU)"
    )


def _add_synthetic(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=_synthetic)
    _add_output(parser)
    _add_workers(parser)
    parser.add_argument("--users", type=_positive, default=2000, help="default: 2000")
    parser.add_argument("--items", type=_positive, default=500, help="default: 500")
    parser.add_argument(
        "--clusters", type=_positive, help="4 to 30 (default: one for 30 items, but 4 to 16)"
    )
    parser.add_argument("--seed", type=int, default=0, help="default: 0")
    parser.add_argument(
        "--keep-source", metavar="DIR", help="keep the tables, pictures and sounds here"
    )


def _add_media_folder(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=_media_folder)
    _add_output(parser)
    _add_workers(parser)
    tables = parser.add_argument_group("tables (CSV, TSV, also .gz; Parquet)")
    tables.add_argument("--items", required=True, metavar="FILE")
    tables.add_argument("--interactions", required=True, metavar="FILE")
    tables.add_argument("--users", metavar="FILE")
    tables.add_argument(
        "--media-root", metavar="DIR", help="what paths are relative to (default: that of --items)"
    )
    tables.add_argument(
        "--split",
        choices=("given", "leave-last-out"),
        help="default: given where the interactions have a split column",
    )
    tables.add_argument(
        "--skip-bad-rows", action="store_true", help="pass over rows that cannot be used, and count"
    )
    columns = parser.add_argument_group("columns")
    for name, what in (
        ("user", "default: user"),
        ("item", "default: item"),
        ("timestamp", "seconds since 1970 UTC (default: timestamp)"),
        ("date", "ISO 8601 (default: date, where there is no timestamp)"),
        ("rating", "default: rating"),
        ("weight", "default: weight"),
        ("split", "train, valid (or val), test (default: split)"),
        ("profile", "a user's text (default: profile)"),
    ):
        columns.add_argument(f"--{name}-column", metavar="COLUMN", help=what)
    content = parser.add_argument_group("content")
    content.add_argument(
        "--text",
        type=_names,
        metavar="COLUMN,...",
        help="joined into an item's text (default: title and description, else plot); or none",
    )
    for name, example in (("image", "images/{movieId}.jpg"), ("audio", "audio/{item}.*")):
        content.add_argument(
            f"--{name}",
            metavar="PLACE",
            help=f"a column of paths, a template such as {example}, or none",
        )
    content.add_argument("--image-max-side", type=_positive, default=320, help="pixels; 320")
    content.add_argument("--sample-rate-hz", type=_positive, default=16000, help="16000")
    content.add_argument("--max-seconds", type=float, default=10.0, help="of a sound; 10")
    features = parser.add_argument_group("side features")
    for side in ("item", "user"):
        for kind in ("categorical", "numeric"):
            features.add_argument(f"--{side}-{kind}", type=_names, default=(), metavar="COLUMN,...")
    features.add_argument(
        "--separator", default="|", help="between several categories in one cell (default: |)"
    )
    features.add_argument(
        "--vocabulary-size",
        type=_positive,
        default=10_000,
        help="the most categories to keep of a column (default: 10000)",
    )


def _add_features(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=_features)
    _add_output(parser)
    parser.add_argument("--train", required=True, metavar="NPZ", help="sparse [user, item]")
    parser.add_argument("--valid", metavar="NPZ")
    parser.add_argument("--test", metavar="NPZ")
    parser.add_argument(
        "--vector",
        type=_pair,
        action="append",
        default=[],
        metavar="NAME=NPY",
        help="a modality's matrix [item, dim]; may be given several times",
    )


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"wanted a whole number of 1 or more; got {text!r}")
    return int(text)


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _pair(text: str) -> tuple[str, str]:
    name, separator, path = text.partition("=")
    if not (name and separator and path):
        raise argparse.ArgumentTypeError(f"wanted NAME=NPY; got {text!r}")
    return name, path


if __name__ == "__main__":
    sys.exit(main())
