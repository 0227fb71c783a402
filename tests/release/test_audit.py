"""The audit: what it asks, what it says, and what becomes of it without a network."""

import contextlib
import http.server
import json
import threading

import pytest

from mmrec_tf.errors import MmrecError
from release import audit

TWO = [("a", "1"), ("b", "2")]


@contextlib.contextmanager
def server(answer):
    """Answers every request with the same; what was asked is appended to the list that it gives."""
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *arguments):
            pass

    running = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=running.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{running.server_port}/", asked
    finally:
        running.shutdown()
        running.server_close()


def test_all_packages_are_asked_for_in_one_request():
    with server(b'{"results": [{}, {"vulns": [{"id": "PYSEC-1"}, {"id": "GHSA-2"}]}]}') as (
        url,
        asked,
    ):
        assert audit.ask(TWO, url=url) == {("b", "2"): ["PYSEC-1", "GHSA-2"]}
    (body,) = asked
    assert body["queries"][1] == {"package": {"name": "b", "ecosystem": "PyPI"}, "version": "2"}


@pytest.mark.parametrize("answer", [b"<html>", b"[]", b"{}", b'{"results": [{}]}'])
def test_another_answer_is_not_taken_for_none_found(answer):
    with server(answer) as (url, _), pytest.raises(MmrecError, match="wanted .*2"):
        audit.ask(TWO, url=url)


def test_what_is_found_is_named_and_what_is_accepted_is_counted():
    found = {("b", "2"): ["PYSEC-1", "GHSA-2"]}
    lines, count = audit.report(found, {"GHSA-2": "not called", "OLD-1": "gone"}, total=2)
    assert count == 1 and lines[0] == "b 2: PYSEC-1"
    assert "OLD-1. Take them out" in lines[1]
    assert lines[2].startswith("audit: 2 packages, 1 advisories beside 1 accepted ones. See")
    assert audit.report({}, {}, total=2) == (["audit: 2 packages, 0 advisories"], 0)


def test_only_a_strict_audit_fails(monkeypatch, capsys):
    found = b'{"results": [{"vulns": [{"id": "PYSEC-1"}]}, {}]}'
    monkeypatch.setattr(audit, "pins", lambda: TWO)
    with server(found) as (url, _):
        monkeypatch.setattr(audit, "ask", lambda pins, ask=audit.ask: ask(pins, url=url))
        assert [audit.main([]), audit.main(["--strict"])] == [0, 1]
    assert capsys.readouterr().out.count("a 1: PYSEC-1") == 2


def test_without_a_network_it_is_said_and_nothing_fails(monkeypatch, capsys):
    with server(b"") as (url, _):
        pass
    monkeypatch.setattr(audit, "ask", lambda pins, ask=audit.ask: ask(pins, url=url))
    assert audit.main(["--strict"]) == 0
    assert "audit: skipped, as https://api.osv.dev" in capsys.readouterr().out


def test_each_package_is_asked_for_once():
    pins = audit.pins()
    assert len(pins) == len(set(pins)) > 50 and "tensorflow" in dict(pins)
