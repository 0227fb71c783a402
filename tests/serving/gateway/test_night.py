"""The log as tables: cut, without the erased, the same twice, and read by `data.prepare`."""

import asyncio
import csv
import json

import numpy as np
import pytest
from support import clips, small_world

import mmrec_tf
from data import prepare
from mmrec_tf import records
from mmrec_tf.media import video
from serving.gateway.__main__ import main
from serving.gateway.night.nightly import prepare_arguments
from serving.gateway.seeding import seed, split_title
from serving.gateway.store.records import Event, Item
from serving.gateway.store.sqlite import SqliteStore


def rows(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def state(tmp_path, dataset):
    """A state seeded from the small world, with some clicks, a new item and an erased user."""
    path = tmp_path / "gateway.db"

    def event(number, user, item, type="click", **more):
        time = 1_800_000_000_000 + number
        return Event(id=f"e{number}", user=user, item=item, type=type, time=time, **more)

    async def fill():
        store = SqliteStore(path, synchronous="normal")
        await store.open()
        seeded = [await seed(store, dataset.directory) for _ in range(2)]
        assert [one.new for one in seeded] == [True, False]
        picture = small_world.picture(0, np.random.default_rng(0))
        new = Item(
            id="new, 1", title="an owl", digest="d", images=1, state="live", updated=1, price=2.5
        )
        await store.put_item(new, {"image": [picture]})
        await store.add_events([event(1, "u1", "new, 1", position=2), event(2, "u2", "i4", "hide")])
        await store.add_events([event(3, "u3", "i5"), event(4, "u1", "i6", "impression")])
        await store.erase("u3", 1_800_000_000_500)
        await store.withdraw("i2")
        await store.add_events([event(5, "u4", "i8"), event(900, "u3", "i9")])
        late = Item(id="late", title="put late", digest="d", updated=2**60, state="live")
        await store.put_item(late, {})
        history = (await store.history("u1")).liked, (await store.history("u3")).liked
        items = await store.items_of(["i0", "i3"])
        await store.close()
        return history, items

    return path, asyncio.run(fill())


def test_seeding_takes_histories_and_items(state, dataset):
    _, ((liked, again), items) = state
    known = dataset.known_interactions("all")
    mine = {f"i{n}" for n in known.item[known.user == 1]}
    # Valid and test, too: what is served knows all that users did.
    assert len(mine) > (dataset.interactions("train").user == 1).sum()
    assert set(liked) == mine | {"new, 1"} and liked[-1] == "new, 1"
    assert again == ["i9"]  # Erased, and back.
    assert items["i3"].images == 1 and items["i3"].sounds == 1 and items["i3"].title
    assert all("=" in one for one in items["i0"].categories)


def test_the_log_becomes_tables_that_prepare_reads(state, dataset, tmp_path, capsys):
    path, _ = state
    told = []
    for name in ("one", "two"):
        asked = ["export", "--state", str(path), "--dataset", str(dataset.directory)]
        assert main([*asked, "--out", str(tmp_path / name), "--until", "5"]) == 0
        told.append(json.loads((tmp_path / name / "export.json").read_text()))
    captured = capsys.readouterr()
    assert "not carried over from the dataset: vectors vector, the users' age" in captured.err
    # The same bytes twice.
    assert told[0] == told[1] and len(told[0]["sha256"]) == 64
    interactions = rows(tmp_path / "one" / "interactions.csv")
    logged = [row for row in interactions if row["event"] != "seed"]
    assert [(row["user"], row["item"], row["event"], row["position"]) for row in logged] == [
        ("u1", "new, 1", "click", "2"),
        ("u2", "i4", "hide", ""),
        ("u4", "i8", "click", ""),
    ]
    assert logged[0]["timestamp"] == "1800000000.001"
    assert not any(row["user"] == "u3" for row in interactions)
    assert any(row["user"] == "u5" for row in interactions)
    items = {row["item"]: row for row in rows(tmp_path / "one" / "items.csv")}
    assert items["new, 1"]["price"] == "2.5" and "late" not in items
    assert (tmp_path / "one" / items["new, 1"]["image"]).is_file()
    assert (tmp_path / "one" / "withdrawn.txt").read_text() == "i2\n"
    arguments = ["media-folder", "--items", str(tmp_path / "one" / "items.csv")]
    arguments += ["--interactions", str(tmp_path / "one" / "interactions.csv")]
    arguments += ["--image", "image", "--audio", "audio", "--item-categorical", "genre"]
    arguments += ["--event-weights", "seed=1,view=1,click=1,play=1,like=1,buy=1,dislike=0,hide=0"]
    # The same tables give the same dataset, which `data` has tests of its own for.
    assert prepare.main([*arguments, "--out", str(tmp_path / "prepared")]) == 0
    opened = mmrec_tf.open_dataset(tmp_path / "prepared")
    assert "new, 1" in opened.catalog.item_id.tolist()
    assert opened.schema.modalities.keys() >= {"text", "image", "audio"}


def test_videos_come_through_the_tables_frame_by_frame(tmp_path):
    films = [clips.film(clips.gray([10, 90, 200])), clips.film(clips.gray([50]))]
    frames = [video.split_frames(video.prepare(film)) for film in films]

    async def act():
        store = SqliteStore(tmp_path / "state.db", synchronous="normal")
        await store.open()
        for number, one in enumerate(frames):
            item = Item(
                id=f"v{number}",
                title="a film",
                digest="d",
                state="live",
                frames=len(one),
                updated=1,
            )
            await store.put_item(item, {"video": one})
        clicks = [
            Event(id=f"e{n}", user=f"u{n % 4}", item=f"v{n % 2}", type="click", time=1000 + n)
            for n in range(8)
        ]
        await store.add_events(clicks)
        await store.close()

    asyncio.run(act())
    tables = tmp_path / "tables"
    assert main(["export", "--state", str(tmp_path / "state.db"), "--out", str(tables)]) == 0
    asked = [*prepare_arguments(tables), "--split", "random", "--out", str(tmp_path / "dataset")]
    assert asked[asked.index("--video") + 1] == "video" and prepare.main(asked) == 0
    opened = mmrec_tf.open_dataset(tmp_path / "dataset")
    found = {
        one.item_id: video.split_frames(one.content["video"][0])
        for one in records.read_items(opened.directory, opened.schema)
    }
    assert found == {"v0": frames[0], "v1": frames[1]}


def test_a_cut_leaves_later_events_and_items_out(state, tmp_path):
    path, _ = state
    asked = ["export", "--state", str(path), "--out", str(tmp_path / "cut")]
    assert main([*asked, "--until", "2"]) == 0
    assert len(rows(tmp_path / "cut" / "interactions.csv")) == 2
    assert [row["item"] for row in rows(tmp_path / "cut" / "items.csv")] == ["new, 1"]
    assert main([*asked, "--until", "2"]) == 2  # It is there already.
    assert main([*asked, "--until", "99", "--overwrite"]) == 2
    assert main([*asked, "--overwrite"]) == 0
    assert len(rows(tmp_path / "cut" / "items.csv")) == 2


@pytest.mark.parametrize(
    ("text", "title", "rest"),
    [
        ("An owl. It hunts.", "An owl", "It hunts."),
        ("Who? Me.", "Who?", "Me."),
        ("An owl", "An owl", ""),
        (20 * "words ", "", 20 * "words "),
        ("", "", ""),
    ],
)
def test_a_text_without_a_title_is_split(text, title, rest):
    assert split_title(text) == (title, rest)
