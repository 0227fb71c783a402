"""A typed client for the models of an export, and a command (`__main__`).

    python -m serving.client recommend --address localhost:8500 --user u42 --k 10
    python -m serving.client recommend --user u42 --exclude i3 --allow genre=comedy,genre=drama
    python -m serving.client recommend --user stranger --profile "likes the sea" --features age=31
    python -m serving.client rank --user u42 --items i1,i2,i3
    python -m serving.client similar --item i7
    python -m serving.client embed-user --user u42
    python -m serving.client embed-item --text "a small grey bird" --image a.jpg --image b.webp
    python -m serving.client search --audio call.wav --k 5
    python -m serving.client search --video clip.mp4
    python -m serving.client tag --text "a small grey bird" --k 3
    python -m serving.client status

`Client` waits for each answer; `AsyncClient` has the same methods as coroutines. Both speak to
stock TensorFlow Serving and to `serving.local_server` alike.
"""

from serving.client.aio import AsyncClient
from serving.client.answers import (
    FoundItems,
    ItemEmbeddings,
    ItemLabels,
    NewRanking,
    Outputs,
    Ranking,
    Recommendations,
    SimilarItems,
    UserEmbeddings,
)
from serving.client.channels import Tls
from serving.client.media import frames, sound_track
from serving.client.sync import Client

__all__ = [
    "AsyncClient",
    "Client",
    "FoundItems",
    "ItemEmbeddings",
    "ItemLabels",
    "NewRanking",
    "Outputs",
    "Ranking",
    "Recommendations",
    "SimilarItems",
    "Tls",
    "UserEmbeddings",
    "frames",
    "sound_track",
]
