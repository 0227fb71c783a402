"""Users: what is kept of them, and that it goes."""

from starlette.requests import Request
from starlette.responses import Response

from serving.gateway.http.endpoint import Endpoint, answer
from serving.gateway.lists.arms import arm_name
from serving.gateway.messages import ErasedOut, UserOut
from serving.gateway.refusals import invalid
from serving.gateway.service import Gateway


def user_id(request: Request) -> str:
    """The id in the path."""
    found = str(request.path_params["id"])
    if len(found) > 256:
        raise invalid("id", f"wanted at most 256 characters; got {len(found)}")
    return found


async def get_user(gateway: Gateway, request: Request) -> Response:
    """What is kept of a user."""
    return answer(await user_out(gateway, user_id(request)))


async def user_out(gateway: Gateway, user: str) -> UserOut:
    """As `get_user`."""
    history = await gateway.store.history(user)
    counts = await gateway.store.user_counts(user)
    return UserOut(
        user=user,
        history=history.liked,
        disliked=history.disliked,
        events=counts["events"],
        lists=counts["lists"],
        arm=arm_name(gateway.recommending.arms.of(user)),
        erased=await gateway.store.erased(user),
    )


async def delete_user(gateway: Gateway, request: Request) -> Response:
    """Erases a user."""
    await gateway.erase(user_id(request))
    return answer(ErasedOut(True, gateway.remains_in), status=202)


ENDPOINTS = (
    Endpoint("GET", "/v1/users/{id:path}", "What is kept of a user.", get_user, gives=UserOut),
    Endpoint(
        "DELETE",
        "/v1/users/{id:path}",
        "Erases a user here; the answer says what still holds the user.",
        delete_user,
        gives=ErasedOut,
        status=202,
    ),
)
