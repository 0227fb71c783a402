"""The HTTP service on models of dictionaries: what a shop asks, and what it gets."""

import asyncio
import hashlib
import io
import json
import time

import pytest
from support import clips
from support.gateway_models import NUM_ITEMS, picture

from mmrec_tf.errors import ConfigError
from mmrec_tf.media.video import prepare as prepare_video
from mmrec_tf.media.video import split_frames
from serving.gateway.http.keys import Key, read_keys


def event(number, item, *, user="u1", type="click", **more):
    return {"id": f"e{number}", "user": user, "item": item, "type": type, **more}


def events(*given):
    return {"events": list(given)}


def ids(reply):
    assert reply.status == 200, reply.body
    return [one["item"] for one in reply.json()["items"]]


async def recommend(call, **asked):
    return await call("POST", "/v1/recommend", json_={"user": "u1", **asked})


def test_a_click_changes_the_next_list_of_its_user(shop):
    async def act(call, gateway):
        before = ids(await recommend(call, k=5))
        told = await call("POST", "/v1/events", json_=events(event(1, "i02")))
        after = await recommend(call, k=5)
        return before, told, after

    before, told, after = shop.run(act)
    # First by the gull, then by the lark; nothing that was met.
    assert before == ["i05", "i09", "i13", "i17", "i21"]
    assert told.status == 200
    assert told.json() == {"accepted": 1, "duplicates": 0, "rejected": []}
    assert ids(after) == ["i06", "i10", "i14", "i18", "i22"]
    answer = after.json()
    assert answer["version"] == 1 and answer["arm"] == "default" and answer["degraded"] == []
    first = answer["items"][0]
    assert first["slot"] == "model" and first["why"] == {"modality": "text", "item": "i02"}
    # The whole history is sent each time: what replaces the stored one must not lose it.
    assert shop.world.asked[-1][2]["history"] == ["i00", "i01", "i02"]


def test_ten_thousand_clicks_are_each_in_the_next_list(shop):
    async def act(call, gateway):
        late = 0
        for number in range(300):
            user, item = f"u{number % 50}", f"i{number % NUM_ITEMS:02d}"
            await call("POST", "/v1/events", json_=events(event(number, item, user=user)))
            late += item in ids(await recommend(call, user=user))
            late += shop.world.asked[-1][2]["history"][-1] != item
        return late

    assert shop.run(act, events_per_second=0) == 0


def test_retries_are_counted_as_such_and_what_is_wrong_is_named(shop):
    async def act(call, gateway):
        now = time.time()
        given = [
            event(1, "i02"),
            event(1, "i02"),
            event(2, "i02", type="clik"),
            event(3, "i02", time=now - 90_000),
            event(4, "i02", time=now + 60),
            event(5, ""),
            {"id": "e6", "user": "u1", "type": "click"},
            event(7, "i02", colour="red"),
            event(8, "i03", time=now - 60, position=3),
            event(9, "i03", position=-1),
        ]
        return await call("POST", "/v1/events", json_=events(*given))

    answer = shop.run(act).json()
    assert (answer["accepted"], answer["duplicates"]) == (2, 1)
    reasons = {one["index"]: one["reason"] for one in answer["rejected"]}
    assert set(reasons) == {2, 3, 4, 5, 6, 7, 9}
    assert "type: unknown type 'clik'; did you mean 'click'?" in reasons[2]
    assert reasons[3].startswith("time: wanted seconds since 1970 UTC, at most a day ago")
    assert reasons[4].startswith("time:") and reasons[5].startswith("item:")
    assert "`item`" in reasons[6] and "`colour`" in reasons[7] and reasons[9].startswith("position")


def test_events_of_one_request_keep_their_order(shop):
    async def act(call, gateway):
        await call(
            "POST", "/v1/events", json_=events(*(event(n, f"i{n:02d}") for n in (9, 3, 7, 5)))
        )
        return (await call("GET", "/v1/users/u1")).json()["history"]

    assert shop.run(act) == ["i00", "i01", "i09", "i03", "i07", "i05"]


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "field"),
    [
        ("POST", "/v1/recommend", b'{"k": 0}', 400, "k"),
        ("POST", "/v1/recommend", b'{"k": "ten"}', 400, "k"),
        ("POST", "/v1/recommend", b'{"history": ["a", ""]}', 400, "history[1]"),
        ("POST", "/v1/recommend", b'{"userid": "a"}', 400, "userid"),
        ("POST", "/v1/recommend", b'{"cursor": "none"}', 400, "cursor"),
        ("POST", "/v1/recommend", b'{"cursor": "a.1", "deny": ["a=b"]}', 400, "deny"),
        ("POST", "/v1/recommend", b"{", 400, ""),
        ("POST", "/v1/recommend", b"\xff\xfe", 400, ""),
        ("POST", "/v1/events", b'{"events": []}', 400, "events"),
        ("POST", "/v1/events", b'{"events": [' + b"1," * 1000 + b"1]}", 400, "events"),
        ("POST", "/v1/events", b" " * (2**20 + 1), 413, ""),
        ("GET", "/v1/items/none", b"", 404, "id"),
        ("GET", "/v1/items?limit=1000", b"", 400, "limit"),
        ("GET", "/v1/items/" + 300 * "x", b"", 400, "id"),
        ("POST", "/v1/search", b"words", 415, ""),
        ("GET", "/v1/nothing", b"", 404, ""),
        ("GET", "/v1/events", b"", 405, ""),
    ],
)
def test_bad_input_gets_an_answer_that_names_the_field(shop, method, path, body, status, field):
    reply = shop.run(lambda call, gateway: call(method, path, body), seeded=False)
    assert reply.status == status, reply.body
    error = reply.json()["error"]
    assert error["field"] == field and error["code"] and error["message"]


def test_a_cursor_gives_the_rest_of_the_list_without_repeats(shop):
    async def act(call, gateway):
        pages, asked = [], {"k": 6}
        while True:
            reply = await recommend(call, **asked)
            pages.append(ids(reply))
            if reply.json()["next"] is None:
                break
            asked = {"k": 6, "cursor": reply.json()["next"]}
        models = [one for one in shop.world.asked if one[2].get("user") == "u1"]
        other = await recommend(call, user="u2", cursor=asked["cursor"])
        return pages, len(models), other

    pages, models, other = shop.run(act)
    assert [len(page) for page in pages] == [6, 6, 6, 2] and models == 1
    assert len({item for page in pages for item in page}) == 20
    assert other.status == 400 and other.json()["error"]["field"] == "cursor"


def test_what_was_withdrawn_is_in_no_list_after_the_answer(shop):
    async def act(call, gateway):
        first = await recommend(call, k=3)
        gone = ids(first)[0]
        again = (await recommend(call, k=3)).json()
        told = await call("DELETE", f"/v1/items/{again['items'][0]['item']}")
        lists = [ids(await recommend(call, user=user, k=30)) for user in ("u1", "u2", "")]
        later = await call("DELETE", "/v1/items/i09")
        page = ids(await recommend(call, k=3, cursor=first.json()["next"]))
        similar = ids(await call("GET", "/v1/items/i01/similar?k=50"))
        state = (await call("GET", f"/v1/items/{gone}")).json()["state"]
        return gone, told, lists, later, page, similar, state

    gone, told, lists, later, page, similar, state = shop.run(act)
    assert told.status == later.status == 204 and state == "withdrawn"
    assert all(gone not in shown for shown in lists)
    assert "i09" not in page and "i09" not in similar and gone not in similar


def test_a_new_item_is_in_a_list_within_seconds(shop):
    async def act(call, gateway):
        await recommend(call)  # The version is known by now.
        start = time.monotonic()
        put = await call(
            "PUT",
            "/v1/items/new1",
            form={"title": "a gull", "categories": "genre=odd, style=new", "price": "9.5"},
            files=[("image", "a.jpg", picture())],
        )
        shown = await recommend(call)
        seconds = time.monotonic() - start
        again = await call(
            "PUT",
            "/v1/items/new1",
            form={"title": "a gull", "categories": ["style=new", "genre=odd"], "price": "9.50"},
            files=[("image", "a.jpg", picture())],
        )
        file = await call("GET", "/v1/items/new1/image/0")
        item = await call("GET", "/v1/items/new1")
        return put, shown.json(), seconds, again, file, item.json()

    put, shown, seconds, again, file, item = shop.run(act)
    assert put.status == 201 and again.status == 200 and seconds < 2
    assert put.json() == {
        "id": "new1",
        "state": "live",
        "title": "a gull",
        "categories": ["genre=odd", "style=new"],
        "price": 9.5,
        "images": ["/v1/items/new1/image/0"],
        "weights": {"text": 0.5, "image": 0.5},
        # Neither is an input of this encoder.
        "unused": ["features"],
    }
    assert item["state"] == "live" and file.body == picture() and file.headers["content-type"]
    fresh = [one for one in shown["items"] if one["slot"] == "fresh"]
    assert [one["item"] for one in fresh] == ["new1"]
    # Of an export without rank_new it has the score of its nearest neighbor, i01.
    assert fresh[0]["score"] == pytest.approx(9.99, abs=0.02)
    assert sum(one[0] == "embed_item" for one in shop.world.asked) == 1


def test_rank_new_is_asked_where_the_export_has_it(shop):
    shop.world.ranks_new = True

    async def act(call, gateway):
        await recommend(call)
        await call("PUT", "/v1/items/new1", form={"title": "gull"})
        return (await recommend(call)).json()["items"][0]

    first = shop.run(act)
    assert first["item"] == "new1" and first["score"] == pytest.approx(10.5, abs=0.01)
    inputs = next(one[2] for one in shop.world.asked if one[0] == "rank_new")
    assert inputs["embedding"].shape == (1, 32, 4) and inputs["present"].sum() == 1


def test_at_most_three_of_ten_are_fresh_and_filters_hold_for_them(shop):
    async def act(call, gateway):
        await recommend(call)
        for number in range(8):
            genre = "genre=odd" if number % 2 else "genre=new"
            form = {"title": f"gull {number}", "categories": genre}
            await call("PUT", f"/v1/items/new{number}", form=form)
        free = (await recommend(call, k=20)).json()["items"]
        only = (await recommend(call, allow=["genre=new"])).json()["items"]
        without = (await recommend(call, deny=["genre=new"])).json()["items"]
        some = (await recommend(call, exclude=["new1", "new2"])).json()["items"]
        return free, only, without, some

    free, only, without, some = shop.run(act)
    slots = [one["slot"] for one in free]
    assert slots[:10].count("fresh") == 3 and slots[10:].count("fresh") == 3
    assert [one["item"] for one in only if one["slot"] == "fresh"] == ["new0", "new2", "new4"]
    assert [one["item"] for one in without if one["slot"] == "fresh"] == ["new1", "new3", "new5"]
    assert [one["item"] for one in some if one["slot"] == "fresh"] == ["new0", "new3", "new4"]


def test_a_click_on_a_fresh_item_counts_as_one_on_its_neighbor(shop):
    async def act(call, gateway):
        await recommend(call)
        await call("PUT", "/v1/items/new1", form={"title": "wren"})
        await call("POST", "/v1/events", json_=events(event(1, "new1")))
        return await recommend(call)

    shown = ids(shop.run(act))
    # Wrens have the numbers 3, 7, ...: i03 stands for it, and is in the history by that.
    assert shop.world.asked[-1][2]["history"] == ["i00", "i01", "i03"]
    assert shown[:3] == ["i07", "i11", "i15"] and "new1" not in shown


def test_a_slow_encoder_gets_a_202_and_the_item_is_live_later(shop):
    shop.world.encoder_seconds = 0.4

    async def act(call, gateway):
        await recommend(call)
        put = await call("PUT", "/v1/items/new1", form={"title": "gull"})
        before = [one["slot"] for one in (await recommend(call)).json()["items"]]
        for _ in range(100):
            await asyncio.sleep(0.05)
            state = (await call("GET", "/v1/items/new1")).json()["state"]
            if state == "live":
                break
        return put, before, state, ids(await recommend(call))

    put, before, state, after = shop.run(act, encode_seconds=0.1)
    assert put.status == 202 and put.json()["state"] == "pending" and "fresh" not in before
    assert state == "live" and "new1" in after


def test_items_that_wait_outlive_a_restart(shop):
    async def put(call, gateway):
        shop.world.down = True
        return await call("PUT", "/v1/items/new1", form={"title": "gull"})

    async def look(call, gateway):
        for _ in range(100):
            state = (await call("GET", "/v1/items/new1")).json()["state"]
            if state == "live":
                break
            await asyncio.sleep(0.05)
        return state

    assert shop.run(put).status == 202
    shop.world.down = False
    assert shop.run(look) == "live"


def test_a_new_version_gets_embeddings_of_its_own_and_publishes_what_it_knows(shop):
    async def act(call, gateway):
        await recommend(call)
        for name, word in (("new1", "gull"), ("new2", "wren")):
            await call("PUT", f"/v1/items/{name}", form={"title": word})
        shop.world.version, shop.world.knows = 2, {"new2": "wren"}
        swapped = (await recommend(call)).json()
        for _ in range(100):
            await asyncio.sleep(0.02)
            states = [
                (await call("GET", f"/v1/items/{name}")).json()["state"]
                for name in ("new1", "new2")
            ]
            later = (await recommend(call)).json()
            if not later["degraded"] and states[1] == "published":
                break
        return swapped, states, later

    swapped, states, later = shop.run(act)
    assert swapped["version"] == 2 and swapped["degraded"] == ["fresh"]
    assert states == ["live", "published"] and later["degraded"] == []
    assert [one["item"] for one in later["items"] if one["slot"] == "fresh"] == ["new1"]


def test_an_item_is_published_once_all_arms_know_it(shop):
    async def act(call, gateway):
        await recommend(call)
        await call("PUT", "/v1/items/new1", form={"title": "gull"})
        known, states = shop.world.knows, []
        # Only the canary knows it; then both do.
        for arms in (["canary"], ["canary", "stable"]):
            shop.world.version += 1
            shop.world.knows = known | {"new1": "gull"}
            shop.world.only = arms
            for _ in range(40):
                await asyncio.sleep(0.01)
                for user in ("u1", "u2", "u3", "u4"):
                    items = [
                        one["item"] for one in (await recommend(call, user=user)).json()["items"]
                    ]
                    assert len(items) == len({*items})
            states.append((await call("GET", "/v1/items/new1")).json()["state"])
        return states

    assert shop.run(act, arms={"stable": 0.5, "canary": 0.5}) == ["live", "published"]


def test_fresh_items_are_scored_ahead_of_the_list_that_follows_a_click(shop):
    async def act(call, gateway):
        for number in range(40):
            await call("PUT", f"/v1/items/new{number}", form={"title": "gull"})
        await recommend(call)
        asked = []
        for items in (["i05"], []):
            shop.world.asked.clear()
            await call("POST", "/v1/events", json_=events(*(event(9, one) for one in items)))
            await asyncio.sleep(0.05)
            asked.append([one[0] for one in shop.world.asked])
            shop.world.asked.clear()
            answer = (await recommend(call)).json()
            asked.append([one[0] for one in shop.world.asked])
        return asked, answer

    shop.world.ranks_new = True
    asked, answer = shop.run(act)
    # Of more than 32 those nearest to the user; the list itself asks for nothing but its items.
    assert asked == [["embed_user", "rank_new"], ["recommend"], [], ["recommend"]]
    assert "fresh" in [one["slot"] for one in answer["items"]]


def test_a_video_is_taken_as_its_frames_where_the_model_takes_them(shop):
    film = clips.film(clips.gray([10, 90, 200]))

    async def act(call, gateway):
        files = [("video", "a.mp4", film)]
        refused = await call("PUT", "/v1/items/no", form={"title": "owl"}, files=files)
        shop.world.takes_video = True
        await gateway.servers.signatures("", "encoder", again=True)
        put = await call("PUT", "/v1/items/new1", form={"title": "owl"}, files=files)
        asked = next(one[2] for one in shop.world.asked if one[0] == "embed_item")
        frames = [(await call("GET", path)) for path in put.json()["frames"]]
        found = await call("POST", "/v1/search", files=files, form={})
        sought = next(one[2] for one in shop.world.asked[::-1] if one[0] == "search")
        bad = await call("PUT", "/v1/items/new2", files=[("video", "a.mp4", b"no film")], form={})
        half = await call(
            "PUT", "/v1/items/new3", form={"title": "owl"}, files=[("video", "a.mp4", b"no film")]
        )
        two = await call("PUT", "/v1/items/new4", form={"title": "owl"}, files=[*files, *files])
        again = await call("PUT", "/v1/items/new1", form={"title": "owl"}, files=files)
        return refused, put, asked, frames, found, sought, bad, half, two, again

    refused, put, asked, frames, found, sought, bad, half, two, again = shop.run(act)
    assert refused.status == 400 and refused.json()["error"]["field"] == "video"
    assert "takes no videos" in refused.json()["error"]["message"]
    assert "it takes image, text" in refused.json()["error"]["message"]
    assert put.status == 201 and put.json()["state"] == "live" and len(frames) == 3
    # As `serving.client` prepares a file.
    expected = split_frames(prepare_video(film))
    assert asked["video"] == [expected] == sought["video"]
    assert [frame.body for frame in frames] == expected and found.status == 200
    assert bad.status == 400 and bad.json()["error"]["field"] == "video"
    assert half.status == 201 and "video 1: " in half.json()["unreadable"][0]
    assert two.status == 400 and "at most 1 file" in two.json()["error"]["message"]
    assert again.status == 200


def test_a_video_waits_for_an_encoder_that_does_not_answer(shop):
    async def act(call, gateway):
        shop.world.down = True
        files = [("video", "a.mp4", clips.film(clips.gray([10, 90])))]
        return await call("PUT", "/v1/items/new1", form={"title": "owl"}, files=files)

    reply = shop.run(act)
    assert reply.status == 202 and len(reply.json()["frames"]) == 2


@pytest.mark.parametrize(
    ("form", "files", "field"),
    [
        ({}, [], "text"),
        ({}, [("image", "a.jpg", b"no picture")], "image"),
        ({}, [("audio", "a.wav", b"no sound")], "audio"),
        ({"title": "a", "price": "much"}, [], "price"),
        ({"title": "a", "categories": "comedy"}, [], "categories"),
        ({"title": "a", "color": "red"}, [], "color"),
        ({"title": ["a", "b"]}, [], "title"),
        ({"title": "a"}, [("film", "a.mp4", b"x")], "film"),
        ({"text": "x" * 20_001}, [], "text"),
    ],
)
def test_items_that_cannot_be_taken_are_refused(shop, form, files, field):
    reply = shop.run(lambda call, gateway: call("PUT", "/v1/items/n", form=form, files=files))
    assert reply.status == 400 and reply.json()["error"]["field"] == field


def test_what_cannot_be_read_is_named_and_the_rest_is_taken(shop):
    files = [("image", "a.jpg", b"no picture"), ("image", "b.jpg", picture())]

    async def act(call, gateway):
        return await call("PUT", "/v1/items/n", form={"title": "gull"}, files=files)

    answer = shop.run(act).json()
    assert answer["unreadable"] == ["image 1: not a picture"] or answer["unreadable"][0].startswith(
        "image 1: "
    )
    assert len(answer["images"]) == 1 and answer["state"] == "live"


def test_without_models_lists_come_from_the_store_and_nothing_fails(shop):
    async def act(call, gateway):
        normal = ids(await recommend(call, k=3))
        shop.world.down = True
        await call("POST", "/v1/events", json_=events(event(1, normal[0])))
        await call("DELETE", f"/v1/items/{normal[1]}")
        mine = await recommend(call, k=3)
        stranger = await recommend(call, user="", k=3)
        odd = await recommend(call, user="u9", k=3, allow=["genre=odd"], exclude=["i01"])
        similar = await call("GET", "/v1/items/i01/similar")
        search = await call("POST", "/v1/search", form={"text": "gull"})
        return normal, mine, stranger, odd, similar, search, await call("GET", "/readyz")

    normal, mine, stranger, odd, similar, search, ready = shop.run(act)
    # The last list without what was clicked and what was withdrawn.
    assert ids(mine)[0] == normal[2] and mine.json()["degraded"] == ["model"]
    assert mine.json()["items"][0]["slot"] == "last" and mine.json()["items"][0]["score"] is None
    assert ids(stranger) == ["i00", "i01", "i02"] and ids(odd) == ["i03", "i05", "i07"]
    assert stranger.json()["items"][0]["slot"] == "popular"
    assert similar.json()["degraded"] == ["model"] and search.status == 503
    assert search.headers["retry-after"] and ready.status == 200


def test_a_slow_model_is_given_up_at_the_deadline_and_then_left_alone(shop):
    async def act(call, gateway):
        shop.world.seconds = 9.0
        took = []
        for _ in range(8):
            start = time.monotonic()
            assert (await recommend(call)).json()["degraded"] == ["model"]
            took.append(time.monotonic() - start)
        left = (await call("GET", "/readyz")).json()["left_alone"]
        shop.world.seconds = 0.0
        await asyncio.sleep(0.6)
        return took, left, (await recommend(call)).json()["degraded"]

    took, left, degraded = shop.run(act, deadline_seconds=0.1)
    assert max(took) < 0.25 and max(took[5:]) < 0.05 and left == ["/list"] and degraded == []


def test_an_erased_user_is_a_stranger(shop):
    async def act(call, gateway):
        await call(
            "POST", "/v1/events", json_=events(event(1, "i02"), event(2, "i03", type="hide"))
        )
        await recommend(call)
        before = (await call("GET", "/v1/users/u1")).json()
        told = await call("DELETE", "/v1/users/u1")
        late = await call("POST", "/v1/events", json_=events(event(1, "i02")))
        await recommend(call)
        asked = shop.world.asked[-1][2]
        return before, told, late.json(), asked, (await call("GET", "/v1/users/u1")).json()

    before, told, late, asked, after = shop.run(act)
    assert before["history"] == ["i00", "i01", "i02"] and before["disliked"] == ["i03"]
    assert (before["events"], before["lists"]) == (2, 1)
    assert told.status == 202 and told.json() == {"erased": True, "remains_in": ["the dataset"]}
    assert late["duplicates"] == 1
    # A version that was trained on the user must not be asked by the id.
    assert asked["user"] == "" and asked["history"] == []
    assert after["history"] == [] and after["erased"] and after["lists"] == 1


def test_one_place_is_drawn_and_logged_with_its_probability(shop):
    async def act(call, gateway):
        await recommend(call)
        await call("PUT", "/v1/items/new1", form={"title": "wren"})
        answers = [(await recommend(call)).json() for _ in range(60)]
        kept = [await gateway.store.find_list(one["list"]) for one in answers]
        return answers, kept

    answers, kept = shop.run(act, exploration=0.5, temperature=2.0)
    for answer, shown in zip(answers, kept, strict=True):
        slots = [one["slot"] for one in answer["items"]]
        assert slots[9] == "explore" and slots.count("explore") == 1 and len(slots) == 10
        pool = {one.item: one for one in shown.pool}
        assert sum(one.propensity for one in shown.pool) == pytest.approx(1)
        assert shown.items[9].propensity == pool[answer["items"][9]["item"]].propensity
        assert pool["new1"].fresh
        assert len({one["item"] for one in answer["items"]}) == 10
    assert len({answer["items"][9]["item"] for answer in answers}) > 3


def test_users_are_dealt_onto_arms_and_stay(shop):
    async def act(call, gateway):
        seen = {}
        for number in range(200):
            answer = (await recommend(call, user=f"u{number}")).json()
            seen[number] = answer["arm"]
            assert shop.world.asked[-1][1] == answer["arm"]
        again = [(await recommend(call, user=f"u{n}")).json()["arm"] for n in range(20)]
        return seen, again

    seen, again = shop.run(act, arms={"stable": 0.75, "canary": 0.25}, events_per_second=0)
    assert again == [seen[number] for number in range(20)]
    assert 30 <= list(seen.values()).count("canary") <= 70


def test_keys_have_scopes(shop):
    def key(name, scope):
        return hashlib.sha256(name.encode()).hexdigest(), Key(name, scope)

    keys = dict([key("shop", "server"), key("web", "browser")])

    def bearer(token):
        return {"authorization": f"Bearer {token}"}

    async def act(call, gateway):
        body = json.dumps({"user": "u1"}).encode()
        asked = [("POST", "/v1/recommend", body), ("DELETE", "/v1/items/i05", b"")]
        found = {}
        for method, path, data in asked:
            for token in ("shop", "web", "guess", None):
                headers = bearer(token) if token else {}
                found[path, token] = (await call(method, path, data, headers=headers)).status
        health = (await call("GET", "/healthz")).status
        page = (await call("GET", "/openapi.json")).json()
        return found, health, page

    found, health, page = shop.run(act, keys=keys)
    assert [found["/v1/recommend", token] for token in ("shop", "web", "guess", None)] == [
        200,
        200,
        401,
        401,
    ]
    assert [found["/v1/items/i05", token] for token in ("shop", "web", "guess")] == [204, 403, 401]
    assert health == 200 and page["paths"]["/v1/recommend"]["post"]["security"] == [{"key": []}]


def test_files_of_keys_are_read_strictly(tmp_path):
    path = tmp_path / "keys.json"
    digest = hashlib.sha256(b"secret").hexdigest()
    path.write_text(json.dumps({"keys": [{"name": "a", "scope": "server", "sha256": digest}]}))
    assert read_keys(path).check("Bearer secret", browser=False) == "a"
    for text in (
        "{",
        '{"keys": []}',
        json.dumps({"keys": [{"name": "a", "scope": "all", "sha256": digest}]}),
        json.dumps({"keys": [{"name": "a", "scope": "server", "sha256": "secret"}]}),
        json.dumps({"keys": 2 * [{"name": "a", "scope": "server", "sha256": digest}]}),
    ):
        path.write_text(text)
        with pytest.raises(ConfigError, match="keys.json: "):
            read_keys(path)


def test_who_asks_too_often_is_told_when_to_come_again(shop):
    async def act(call, gateway):
        many = [event(n, "i02", user="bot") for n in range(50)]
        taken = (await call("POST", "/v1/events", json_=events(*many))).json()
        replies = [await recommend(call) for _ in range(12)]
        return taken, replies

    taken, replies = shop.run(act, events_per_second=1, requests_per_second=5)
    assert taken["accepted"] == 20 and len(taken["rejected"]) == 30
    assert "too many events of this user" in taken["rejected"][0]["reason"]
    refused = [one for one in replies if one.status == 429]
    assert len(refused) == 3 and refused[0].headers["retry-after"] == "1"


def test_a_list_of_another_user_takes_no_clicks(shop):
    async def act(call, gateway):
        shown = (await recommend(call)).json()["list"]
        mine = event(1, "i05", list=shown, position=0)
        other = event(2, "i05", user="u2", list=shown)
        unheard = event(3, "i05", user="u2", list="gone")
        return (await call("POST", "/v1/events", json_=events(mine, other, unheard))).json()

    answer = shop.run(act)
    assert answer["accepted"] == 2
    assert answer["rejected"] == [{"index": 1, "reason": "list: was made for another user"}]


def test_a_page_of_another_origin_is_refused(shop):
    async def act(call, gateway):
        body = json.dumps(events(event(1, "i02"))).encode()
        return [
            (await call("POST", "/v1/events", body, headers={"origin": origin})).status
            for origin in ("http://test", "http://evil.example")
        ]

    assert shop.run(act) == [200, 403]


def test_search_and_similar_items(shop):
    async def act(call, gateway):
        await recommend(call)
        await call("PUT", "/v1/items/new1", form={"title": "wren"})
        return (
            ids(await call("POST", "/v1/search", form={"text": "a lark", "k": "3"})),
            ids(await call("GET", "/v1/items/i02/similar?k=2")),
            ids(await call("GET", "/v1/items/new1/similar?k=2")),
            await call("POST", "/v1/search", form={"text": " "}),
            await call("POST", "/v1/search", form={"text": "lark", "k": "99"}),
        )

    words, near, fresh, blank, many = shop.run(act)
    assert words == ["i02", "i06", "i10"] and near == ["i06", "i10"] and fresh == ["i03", "i07"]
    assert blank.status == 400 and blank.json()["error"]["field"] == "text"
    assert many.status == 400 and many.json()["error"]["field"] == "k"


def test_items_come_page_by_page(shop):
    async def act(call, gateway):
        first = (await call("GET", "/v1/items?limit=20")).json()
        rest = (await call("GET", f"/v1/items?limit=20&cursor={first['next']}")).json()
        return first, rest

    first, rest = shop.run(act)
    found = [one["id"] for page in (first, rest) for one in page["items"]]
    assert found == [f"i{n:02d}" for n in range(NUM_ITEMS)] and rest["next"] is None


def test_the_openapi_page_holds_every_endpoint(shop):
    page = shop.run(lambda call, gateway: call("GET", "/openapi.json"), seeded=False).json()
    assert page["openapi"] == "3.1.0"
    told = {f"{method.upper()} {path}" for path, of in page["paths"].items() for method in of}
    assert told >= {
        "POST /v1/events",
        "POST /v1/recommend",
        "PUT /v1/items/{id}",
        "DELETE /v1/items/{id}",
        "GET /v1/items",
        "GET /v1/items/{id}/similar",
        "POST /v1/search",
        "GET /v1/users/{id}",
        "DELETE /v1/users/{id}",
        "GET /metrics",
    }
    text = json.dumps(page)
    for name in {one.split('"')[0] for one in text.split("#/components/schemas/")[1:]}:
        assert name in page["components"]["schemas"]


def test_metrics_count_and_name_nobody(shop):
    async def act(call, gateway):
        shown = (await recommend(call)).json()
        click = event(1, shown["items"][0]["item"], list=shown["list"])
        await call("POST", "/v1/events", json_=events(click, event(1, "i05"), event(2, "")))
        await recommend(call)
        return (await call("GET", "/metrics")).text

    text = shop.run(act)
    for line in (
        'mmrec_gateway_requests_total{route="/v1/recommend",status="200"} 2.0',
        'mmrec_gateway_events_total{outcome="accepted",type="click"} 1.0',
        'mmrec_gateway_events_total{outcome="duplicate",type="click"} 1.0',
        'mmrec_gateway_events_total{outcome="rejected",type=""} 1.0',
        'mmrec_gateway_impressions_total{arm="default",slot="model"} 20.0',
        'mmrec_gateway_clicks_total{arm="default",slot="model"} 1.0',
        "mmrec_gateway_click_to_list_seconds_count 1.0",
    ):
        assert line in text
    assert "u1" not in text and "i05" not in text


def test_logs_are_json_without_ids_of_users(shop):
    from serving.gateway.http import logs

    stream = io.StringIO()
    logs.set_up(stream)

    async def act(call, gateway):
        await recommend(call)
        return await call("GET", "/v1/users/somebody", headers={"x-request-id": "r1"})

    reply = shop.run(act)
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [one["route"] for one in lines] == ["/v1/recommend", "/v1/users/{id}"]
    assert lines[1]["request"] == "r1" == reply.headers["x-request-id"]
    assert lines[1]["status"] == "200" and float(lines[1]["ms"]) > 0
    assert "somebody" not in stream.getvalue()
