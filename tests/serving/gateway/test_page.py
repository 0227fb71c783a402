"""The page: without script through the application, with script in a real Chromium."""

import asyncio
import contextlib
import re
import shutil
import socket
import threading

import pytest
import uvicorn
from support import clips
from support.gateway_models import picture

from serving.gateway.http.app import build_app
from serving.gateway.http.forms import MOST_FILE_BYTES
from serving.gateway.http.keys import Keys
from serving.gateway.lists.requests import new_id
from serving.gateway.page.routes import changes, page_routes
from serving.gateway.page.views import document
from serving.gateway.store.records import Shown, ShownList


def cards(reply):
    assert reply.status == 200, reply.text
    return re.findall(r'name="item" value="([^"]*)"><input type="hidden" name="list"', reply.text)[
        ::2
    ]


def test_it_works_without_script(shop):
    async def act(call, gateway):
        first = await call("GET", "/?user=u1")
        listed = re.search(r'name="list" value="([^"]*)"', first.text)[1]
        form = {"user": "u1", "item": "i06", "list": listed, "position": "0", "type": "like"}
        click = await call("POST", "/page/event", form=form)
        after = await call("GET", click.headers["location"])
        hidden = await call("POST", "/page/event", form={**form, "item": "i02", "type": "hide"})
        last = await call("GET", hidden.headers["location"])
        return first, click, after, last, await gateway.store.events(0, 9, 9)

    first, click, after, last, log = shop.run(act, page=True)
    assert cards(first)[0] == "i05" and click.status == 303
    assert cards(after)[0] == "i02" and "You like lark 6." in after.text
    assert "New in the list: lark 10, lark 14" in after.text
    assert "i02" not in cards(last) and "lark 2 is not shown to you again." in last.text
    assert log[0].list and log[0].position == 0
    assert "default-src 'self'" in first.headers["content-security-policy"]
    # Nothing that such a policy forbids, and nothing from elsewhere.
    for text in (first.text, after.text):
        assert "style=" not in text and "onclick" not in text and "http://" not in text
        assert not re.search(r"<script(?! type=\"module\" src=\"/page/page.mjs\">)", text)


def test_items_are_added_found_and_withdrawn_without_script(shop):
    async def act(call, gateway):
        await call("GET", "/?user=u1")
        form = {"user": "u1", "id": "n/1", "title": "a gull", "price": "3", "text": ""}
        files = [("image", "a.jpg", picture()), ("audio", "", b"")]
        added = await call("POST", "/page/items", form=form, files=files)
        home = await call("GET", "/?user=u1")
        file = await call("GET", re.search(r'src="(/v1/items/n[^"]*)"', home.text)[1])
        found = await call("POST", "/search", form={"user": "u1", "text": "a lark"})
        near = await call("GET", "/similar?user=u1&item=i02")
        gone = await call("POST", "/page/withdraw", form={"user": "u1", "item": "n/1"})
        after = await call("GET", gone.headers["location"])
        return added, home, file, found, near, after

    added, home, file, found, near, after = shop.run(act, page=True)
    assert "a gull was added. It is in the lists from now on." in added.text
    assert 'value="0.500"' in added.text and "50&nbsp;%" in added.text
    assert "n/1" in cards(home) and ">New</span>" in home.text and file.body == picture()
    assert "Found for “a lark”" in found.text and "lark 2<" in found.text
    assert "Similar to lark 2" in near.text and "lark 6<" in near.text
    assert "a gull was withdrawn." in after.text and "n/1" not in cards(after)


def test_a_clip_is_added_and_found_without_script(shop):
    film = clips.film(clips.gray([10, 90, 200]), tone_seconds=0.3)

    async def act(call, gateway):
        shop.world.takes_video = True
        home = await call("GET", "/?user=u1")
        form = {"user": "u1", "id": "n1", "title": "a gull", "text": ""}
        files = [("image", "", b""), ("video", "a.mp4", film)]
        added = await call("POST", "/page/items?user=u1", form=form, files=files)
        frame = await call("GET", re.search(r'src="(/v1/items/n1/video/2)"', added.text)[1])
        found = await call("POST", "/search", form={"user": "u1", "text": ""}, files=files)
        files = [("image", "a.jpg", picture()), ("video", "a.mp4", b"no film")]
        half = await call("POST", "/page/items", form={**form, "id": "n2"}, files=files)
        return home, added, frame, found, half, await call("GET", "/?user=u1")

    home, added, frame, found, half, after = shop.run(act, page=True)
    assert home.text.count('name="video" type="file"') == 2
    assert "Of a clip 8 frames are read. This" in home.text
    assert "trained without sounds." in home.text and 'name="audio"' not in home.text
    assert "3 frames of the clip count" in added.text and 'alt="Frame 3 of the clip"' in added.text
    assert frame.status == 200 and frame.headers["content-type"] == "image/jpeg"
    assert "Found for a clip" in found.text
    assert "Not read: video 1: " in half.text and "frames of the clip" not in half.text
    # The card shows the first frame.
    assert "n1" in cards(after) and 'src="/v1/items/n1/video/0"' in after.text


def test_the_page_offers_what_the_model_takes(shop):
    async def act(call, gateway):
        without = await call("GET", "/?user=u1")
        await gateway.servers.close()
        shop.world.down = True
        gateway.servers._signatures.clear()
        return without, await call("GET", "/?user=u1")

    without, unknown = shop.run(act, page=True)
    assert 'name="video"' not in without.text and 'name="image"' in without.text
    assert "This model was trained without sounds and clips." in without.text
    # Who cannot be asked may take everything.
    assert 'name="video"' in unknown.text and "trained without" not in unknown.text


def test_what_is_too_large_is_said_on_a_page(shop):
    large = b"x" * (MOST_FILE_BYTES + 1)

    async def act(call, gateway):
        form, path = {"user": "u2", "id": "n1"}, "/page/items?user=u2"
        one = await call("POST", path, form=form, files=[("image", "a.jpg", large)])
        both = [("image", "a.jpg", large), ("image", "b.jpg", large)]
        return [one, await call("POST", path, form=form, files=both)]

    one, both = shop.run(act, page=True)
    assert (one.status, both.status) == (413, 413)
    assert "image: wanted at most 16,777,216 bytes a file" in one.text
    assert "All files together: wanted at most 24 MiB; got 32.0 MiB." in both.text
    assert all('href="/?user=u2"' in page.text for page in (one, both))


def test_a_user_is_forgotten(shop):
    async def act(call, gateway):
        gone = await call("POST", "/page/forget", form={"user": "u1"})
        return await call("GET", gone.headers["location"])

    reply = shop.run(act, page=True)
    assert "You were forgotten" in reply.text and "Empty: like something." in reply.text


def test_what_comes_from_outside_is_escaped(shop):
    evil = "<script>alert(1)</script>\"'&"

    async def act(call, gateway):
        form = {"user": evil, "id": evil, "title": evil + " gull"}
        pages = [await call("POST", "/page/items", form=form, files=[("image", "", b"")])]
        for path in ("/?user=", "/similar?item=i01&user=", "/?did=like&item=i01&user="):
            pages.append(await call("GET", path + "%3Cscript%3Ealert(1)%3C/script%3E%22'%26"))
        pages.append(await call("POST", "/search", form={"user": evil, "text": evil}))
        pages.append(await call("POST", "/page/event", form={"user": evil, "item": "a"}))
        return pages

    for page in shop.run(act, page=True):
        assert "<script>" not in page.text and "alert" in page.text or page.status == 400


def test_what_goes_wrong_is_a_page_that_says_so(shop):
    async def act(call, gateway):
        return [
            await call("POST", "/page/items", form={"user": "u1", "id": ""}, files=[]),
            await call("POST", "/search", form={"user": "u1", "text": ""}),
            await call("GET", "/page/none.css"),
            await call(
                "POST", "/page/event", form={"user": "u1"}, headers={"origin": "http://evil"}
            ),
        ]

    pages = shop.run(act, page=True)
    assert [page.status for page in pages] == [400, 400, 404, 403]
    assert all('role="alert"' in page.text for page in pages[:3])


def test_changes_are_said():
    def shown(*items):
        places = [Shown(item=item) for item in items]
        return ShownList(id=new_id(), user="u", time=0, items=places)

    assert changes(None, shown("a"), {}) == ["This is your first list."]
    assert changes(shown("a", "b"), shown("a", "b"), {}) == ["The list is as it was."]
    assert changes(shown("a", "b"), shown("b", "a"), {}) == ["The same items, in another order."]
    assert changes(shown("a", "b"), shown("c", "a"), {}) == [
        "New in the list: c.",
        "1 of 2 left it.",
    ]


def test_a_document_is_whole():
    text = document("T", "<p>x</p>", user="u")
    assert text.startswith("<!doctype html><html lang=") and text.endswith("</html>")


@contextlib.contextmanager
def served(shop):
    """The gateway on a port, in a thread."""
    gateway = shop.gateway()
    app = build_app(gateway, Keys(None), more=page_routes(gateway))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        config = uvicorn.Config(app, log_config=None, http="httptools", ws="none")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=lambda: server.run(sockets=[taken]), daemon=True)
        thread.start()
        while not server.started:
            assert thread.is_alive()
            threading.Event().wait(0.02)
        yield f"http://127.0.0.1:{taken.getsockname()[1]}", gateway
        server.should_exit = True
        thread.join(10)


@pytest.fixture
def browser():
    """A Chromium; tests are skipped where there is none, or no playwright."""
    api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        pytest.skip("needs chromium on the PATH: apt-get install chromium")
    with api.sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield found
        found.close()


def test_in_a_real_browser(shop, browser, tmp_path):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    expect = pytest.importorskip("playwright.sync_api").expect

    async def fill():
        gateway = shop.gateway()
        await gateway.store.open()
        await shop.seed(gateway.store)
        await gateway.store.close()

    # Playwright has an event loop in this thread.
    filling = threading.Thread(target=lambda: asyncio.run(fill()))
    filling.start()
    filling.join()
    shop.world.takes_video = True
    with served(shop) as (address, _):
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        asked, faults = [], []
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda line: faults.append(line.text))
        page.on("pageerror", lambda error: faults.append(str(error)))

        def first():
            return page.locator("article h2").first.inner_text()

        def fine():
            for width in (360, 768, 1280):
                page.set_viewport_size({"width": width, "height": 900})
                assert page.evaluate("document.documentElement.scrollWidth") <= width
            found = axe.Axe().run(page).response["violations"]
            assert [one["id"] for one in found if one["impact"] in ("serious", "critical")] == []

        page.goto(f"{address}/?user=u1")
        assert first() == "gull 5"
        fine()
        # A click changes the list, without another document; by keyboard as by mouse.
        page.evaluate("window.same = true")
        page.locator("button.like").nth(1).focus()
        page.keyboard.press("Enter")
        expect(page.locator("#status")).to_contain_text("You like")
        assert page.evaluate("window.same") and page.url == f"{address}/?user=u1"
        assert page.locator("#status").get_attribute("aria-live") == "polite"
        # A picture uploaded as a new item is in the list.
        path = tmp_path / "new.jpg"
        path.write_bytes(picture())
        form = page.locator("form[action^='/page/items']")
        form.locator("[name=id]").fill("new1")
        form.locator("[name=title]").fill("a new gull")
        form.locator("[name=image]").set_input_files(path)
        form.locator("button:not(.record)").click()
        expect(page.locator("h1")).to_have_text("Added")
        fine()
        page.get_by_role("link", name="Back to your list").click()
        expect(page.locator("h1")).to_have_text("For you")
        card = page.locator("article", has_text="a new gull")
        assert card.locator(".slot").inner_text() == "New"
        assert card.locator("img").evaluate("i => i.decode().then(() => i.naturalWidth)") == 32
        # Search by words and by a picture.
        page.locator("form[action^='/search'] [name=text]").fill("wren")
        page.locator("form[action^='/search'] button:not(.record)").click()
        expect(page.locator("h1")).to_contain_text("Found for")
        assert first() == "wren 3"
        fine()
        page.locator("form[action^='/search'] [name=text]").fill("")
        page.locator("form[action^='/search'] [name=image]").set_input_files(path)
        page.locator("form[action^='/search'] button:not(.record)").click()
        expect(page.locator("h1")).to_have_text("Found for a picture")
        page.go_back()
        expect(page.locator("h1")).to_have_text("For you")
        # A clip uploaded as a new item, too; one that is too large is said before it is sent.
        clip, large = tmp_path / "new.mp4", tmp_path / "large.mp4"
        form = page.locator("form[action^='/page/items']")
        form.locator("[name=id]").fill("new2")
        form.locator("[name=title]").fill("a gull that moves")
        large.write_bytes(bytes(MOST_FILE_BYTES + 1))
        form.locator("[name=video]").set_input_files(large)
        form.locator("button:not(.record)").click()
        valid = "input => input.validationMessage"
        assert "at most 16.0 MiB" in form.locator("[name=video]").evaluate(valid)
        expect(page.locator("h1")).to_have_text("For you")
        clip.write_bytes(clips.film(clips.gray([10, 90, 200])))
        form.locator("[name=video]").set_input_files(clip)
        form.locator("button:not(.record)").click()
        expect(page.locator("h1")).to_have_text("Added")
        expect(page.locator(".frames img")).to_have_count(3)
        fine()
        page.get_by_role("link", name="Back to your list").click()
        card = page.locator("article", has_text="a gull that moves")
        assert card.locator("img").evaluate("i => i.decode().then(() => i.naturalWidth)") == 48
        fine()
        assert faults == [] and all(url.startswith(address) for url in asked)
        page.close()
