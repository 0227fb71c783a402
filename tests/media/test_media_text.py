import unicodedata

import pytest

from mmrec_tf.media import text


@pytest.mark.parametrize(
    "raw, prepared",
    [
        ("<p>One<br/>two &amp; <b>N</b>ote</p>", "One two & Note"),
        ("&lt;b&gt;bold&lt;/b&gt; escaped twice &amp;amp; more", "bold escaped twice & more"),
        ("3 < 5 and a <3 b", "3 < 5 and a <3 b"),
        ("seen<!-- hidden --> <script>var x = '<p>'</script>too", "seen too"),
        ("never closed <!-- all of this", "never closed"),
        ("a <!DOCTYPE html> b <STYLE>p {}</STYLE>c", "a b c"),
        ("caf\u0065\u0301\u00a0\u200bbar\x00\r\n\tend", "caf\u00e9 bar end"),
        ("next\u0085line, line\u2028 and\u2029paragraph\x1c\x1f", "next line, line and paragraph"),
        ("hidden \u200b between \ufeff spaces", "hidden between spaces"),
        ("\u200bhid\u00adden\u200b at the ends\u200e", "hidden at the ends"),
        (
            "a family \U0001f468\u200d\U0001f469 is joined",
            "a family \U0001f468\u200d\U0001f469 is joined",
        ),
        ("\u0647\u200c\u0647 and \ue000 stay", "\u0647\u200c\u0647 and \ue000 stay"),
        ("lone surrogate \ud800 goes", "lone surrogate goes"),
        ("\ubd84\ub9ac \u1107\u116e\u11ab", "\ubd84\ub9ac \ubd84"),
        ("zero &#0; and &shy; and &#x200b; go", "zero \ufffd and and go"),
        ("  \n\t&nbsp; ", ""),
        ("", ""),
    ],
)
def test_prepare(raw, prepared):
    assert text.prepare(raw) == prepared
    assert text.prepare(prepared) == prepared
    prepared.encode("utf-8")


def test_every_character_is_kept_replaced_or_removed_as_its_category_says():
    for code in [*range(0x3000), *range(0xD7F0, 0xE010), *range(0xFE00, 0x10000), 0xE0001]:
        character = chr(code)
        want = character
        if character.isspace():
            want = " "
        elif unicodedata.category(character) in ("Cc", "Cf", "Cs"):
            want = character if character in "\u200c\u200d" else ""
        want = unicodedata.normalize("NFC", " ".join(f"x{want}y".split()))
        if character not in "<&":
            assert text.prepare(f"x{character}y") == want, hex(code)


def test_prepare_cuts_and_stays_quick_on_hostile_input():
    assert text.prepare("ab cd", max_characters=3) == "ab"
    for hostile in ("<!--", "<a", "<script", "&lt;", "<", "\u200b", "\u0301"):
        assert len(text.prepare(hostile * 300_000)) <= 5000
