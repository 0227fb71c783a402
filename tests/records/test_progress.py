"""Without a terminal, a line a minute."""

import io
import sys
import types

import pytest

from mmrec_tf.records import progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass when the test says so; no bar has said anything yet."""
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    monkeypatch.setattr(progress._Lines, "_last", None)
    now = [1000.0]
    monkeypatch.setattr(progress, "time", types.SimpleNamespace(monotonic=lambda: now[0]))
    return now


def said(monkeypatch, work, stream=None):
    stream = stream or io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    work()
    return stream.getvalue()


def epochs(clock, number, seconds):
    def work():
        for epoch in range(number):
            bar = progress.show_progress(total=2, desc=f"epoch {epoch + 1}", unit="batch")
            for _ in range(2):
                clock[0] += seconds / 2
                bar.update()
                bar.refresh()
            bar.close()

    return work


def test_short_work_says_nothing(monkeypatch, clock):
    assert said(monkeypatch, epochs(clock, 3, 10)) == ""


def test_a_line_a_minute_over_many_short_bars(monkeypatch, clock):
    lines = said(monkeypatch, epochs(clock, 12, 20)).splitlines()
    assert len(lines) == 4  # 240 seconds
    assert lines[0].startswith("epoch 3: batch 2 of 2, ")


def test_a_terminal_has_bars(monkeypatch, clock):
    assert "\r" in said(monkeypatch, epochs(clock, 1, 1), Terminal())


def test_it_can_be_switched_off(monkeypatch, clock):
    monkeypatch.setenv("TQDM_DISABLE", "1")
    assert said(monkeypatch, epochs(clock, 12, 20), Terminal()) == ""
