"""Both clients and the load test over TLS, with and without a certificate of their own."""

import asyncio

import grpc
import pytest
from support.certificates import Authority
from support.scripted_server import Script, answer

import serving.client.__main__ as command
from mmrec_tf.errors import ConfigError, ServingError
from serving.client import AsyncClient, Client, Tls
from serving.client.calls import Target, predict_request
from serving.load_test.load import run


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def files(authority):
    return {name: authority.issue(name) for name in ("server", "client")}


def server(authority, files, *, mutual=False):
    certificate, key = (path.read_bytes() for path in files["server"])
    return Script(
        answer(),
        credentials=grpc.ssl_server_credentials(
            [(key, certificate)],
            root_certificates=authority.path.read_bytes() if mutual else None,
            require_client_auth=mutual,
        ),
    )


def sync(address, **settings):
    with Client(address, **settings) as client:
        return client.recommend(["u1"])


def asynchronous(address, **settings):
    async def ask():
        async with AsyncClient(address, **settings) as client:
            return await client.recommend(["u1"])

    return asyncio.run(ask())


WAYS = pytest.mark.parametrize("ask", [sync, asynchronous])


@WAYS
def test_a_server_with_a_certificate_is_asked(authority, files, ask):
    with server(authority, files) as script:
        found = ask(script.address, tls=Tls(ca=authority.path))
        assert found.item_id[0, 0] == "i1" and script.peers == [None]


@WAYS
def test_a_client_with_a_certificate_is_known(authority, files, ask):
    certificate, key = files["client"]
    with server(authority, files, mutual=True) as script:
        tls = Tls(authority.path, certificate, key)
        assert ask(script.address, tls=tls).item_id[0, 0] == "i1"
        assert script.peers == [[b"client"]]
        with pytest.raises(ServingError, match=f"no answer from {script.address}"):
            ask(script.address, tls=Tls(authority.path), timeout_seconds=0.5)


def test_who_cannot_be_trusted_is_not_asked(authority, files, tmp_path):
    other = Authority(tmp_path / "other")
    with server(authority, files) as script:
        for tls in (Tls(ca=other.path), Tls(), None):
            with pytest.raises(ServingError, match="no answer from .*TLS"):
                sync(script.address, tls=tls, timeout_seconds=0.5)
        assert script.requests == []
    with Script(answer()) as clear, pytest.raises(ServingError, match="no answer from"):
        sync(clear.address, tls=Tls(ca=authority.path), timeout_seconds=0.5)


def test_files_that_cannot_be_used_are_named(authority, files, tmp_path):
    certificate, key = files["client"]
    words, other = tmp_path / "words.pem", files["server"][1]
    words.write_text("no certificate")
    for tls, message in (
        (Tls(ca=tmp_path / "none.pem"), "tls: ca .*none.pem cannot be read: No such file"),
        (Tls(ca=words), "words.pem holds no certificates in PEM form"),
        (Tls(ca=key), "client.key holds no certificates in PEM form"),
        (Tls(certificate=certificate), "wanted a certificate and its key.*the key is missing"),
        (Tls(key=key), "wanted a certificate and its key.*the certificate is missing"),
        (Tls(certificate=certificate, key=other), "wanted a certificate and its key in PEM form"),
        (Tls(certificate=key, key=certificate), "wanted a certificate and its key in PEM form"),
    ):
        with pytest.raises(ConfigError, match=message):
            sync("127.0.0.1:1", tls=tls)


def test_the_command_takes_the_files(authority, files, capsys):
    certificate, key = map(str, files["client"])
    arguments = ["recommend", "--user", "u1", "--tls-ca", str(authority.path)]
    with server(authority, files, mutual=True) as script:
        arguments += ["--address", script.address]
        assert command.main([*arguments, "--tls-certificate", certificate, "--tls-key", key]) == 0
        assert capsys.readouterr().out.startswith("   1\ti1\t")
    assert command.main([*arguments, "--tls-key", key]) == 2
    assert "the certificate is missing" in capsys.readouterr().err


def test_the_load_test_takes_the_files(authority, files):
    requests = [predict_request(Target("recommender"), {"x": [1.0]}, signature="recommend")]
    with server(authority, files) as script:
        settings = {"concurrency": 1, "seconds": 0.2, "warm_up_seconds": 0}
        report = run(script.address, requests, tls=Tls(ca=authority.path), **settings)
        assert set(report.codes) == {"OK"}
        with pytest.raises(ServingError, match="no answer from .*--tls-ca"):
            run(script.address, requests, timeout_seconds=0.5, **settings)
