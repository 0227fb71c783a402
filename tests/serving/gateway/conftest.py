"""What the tests of the gateway share: a Redis of their own, where there is one."""

import shutil
import subprocess
import time

import pytest


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory):
    """A Redis on a socket in a folder of its own; tests are skipped where none is installed."""
    if shutil.which("redis-server") is None:
        pytest.skip("needs redis-server on the PATH: apt-get install redis-server")
    folder = tmp_path_factory.mktemp("redis")
    socket = folder / "redis.sock"
    command = ["redis-server", "--port", "0", "--unixsocket", str(socket), "--dir", str(folder)]
    server = subprocess.Popen([*command, "--save", ""], stdout=subprocess.DEVNULL)
    for _ in range(100):
        if socket.exists():
            break
        time.sleep(0.05)
    yield f"unix://{socket}"
    server.terminate()
    server.wait(10)
