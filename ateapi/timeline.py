"""Pages of the events that the store keeps: of all actors, of an atespace, of one name."""

import asyncio
import base64
import binascii
import json
from typing import Final

from ateapi import convert, validate
from ateapi.store.rows import EventRow
from ateapi.store.store import Store
from ateerrors.errors import FieldViolation, invalid_argument
from atepb import ateapi_pb2 as pb

# Looks of the store for one page: each sees a bounded part of the events, and all together as many
# as are kept. A page may be short, even empty, and still have a token.
_LOOKS: Final = 10


async def page(store: Store, request: pb.ListEventsRequest) -> pb.ListEventsResponse:
    """Return a page of events, oldest first.

    Raises:
        AteError: INVALID_ARGUMENT; OUT_OF_RANGE: what follows the token is not kept any more.
    """
    size = validate.list_events(request)
    after: int | None = _decode(request) if request.page_token else 0
    found: list[EventRow] = []
    for _ in range(_LOOKS):
        if after is None or len(found) == size:
            break
        some, after = await store.events_named(
            request.atespace, request.actor, after, size - len(found)
        )
        found += some
        # A look keeps the event loop for a moment: others are let in between.
        await asyncio.sleep(0)
    token = "" if after is None else _encode(request, after)
    return pb.ListEventsResponse(events=map(convert.event, found), next_page_token=token)


def _encode(request: pb.ListEventsRequest, after: int) -> str:
    text = json.dumps([request.atespace, request.actor, after])
    return base64.urlsafe_b64encode(text.encode()).decode()


def _decode(request: pb.ListEventsRequest) -> int:
    """Return the revision that a token stands after.

    Raises:
        AteError: INVALID_ARGUMENT: not a token of this listing.
    """
    token = request.page_token.encode()
    try:
        fields = json.loads(base64.b64decode(token, altchars=b"-_", validate=True))
    except (binascii.Error, ValueError, RecursionError):
        fields = None
    match fields:
        case [request.atespace, request.actor, int(after)] if 0 < after < 1 << 63:
            return after
    raise invalid_argument([FieldViolation("page_token", "is not a token of this listing")])
