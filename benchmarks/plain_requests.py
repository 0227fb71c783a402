"""Asks plain requests until stdin ends, and prints how long the slowest took; see `hostile`.

In a process of its own, which imports little: what the one that sends hostile requests is busy with
would count otherwise.
"""

import http.client
import json
import pathlib
import sys
import threading
import time

import grpc

WAIT_SECONDS = 120.0


def main(address: str, rest_address: str, request: str) -> None:
    """Asks over both ports in turn; `request` is the file of a PredictRequest."""
    told = {"slowest_plain_seconds": 0.0, "plain_refused": 0, "plain_asked": 0}
    message = pathlib.Path(request).read_bytes()
    ended = threading.Event()
    with grpc.insecure_channel(address) as channel:
        call = channel.unary_unary("/tensorflow.serving.PredictionService/Predict")

        def ask() -> None:
            start = time.monotonic()
            refused = False
            try:
                call(message, timeout=WAIT_SECONDS)
                connection = http.client.HTTPConnection(rest_address, timeout=WAIT_SECONDS)
                connection.request("GET", "/v1/models/recommender")
                refused = connection.getresponse().status != 200
                connection.close()
            except (grpc.RpcError, OSError):
                refused = True
            seconds = time.monotonic() - start
            told["slowest_plain_seconds"] = max(told["slowest_plain_seconds"], round(seconds, 3))
            told["plain_refused"] += refused
            told["plain_asked"] += 1

        ask()
        told |= {"slowest_plain_seconds": 0.0, "plain_asked": 0}  # It also connected.
        print("asking", flush=True)
        threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
        while not ended.is_set():
            ask()
            ended.wait(0.02)
        ask()
    print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
