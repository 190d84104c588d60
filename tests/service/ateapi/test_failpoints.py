"""Replies that are lost between the control service, its callers and its database."""

import grpc
import pytest

import atefail
from ateapi.store.rows import ActorRef
from ateerrors.errors import AteError
from ateerrors.reason import Reason
from aterpc import channels
from tests.service.ateapi.conftest import Api, create_request, template


async def prepare(api: Api) -> None:
    await api.apply(template())
    await api.store.create_atespace("team-a")


async def create(api: Api) -> None:
    await channels.call(api.actors.CreateActor, create_request(), timeout_s=5)


async def test_lost_reply_of_a_call_is_unavailable_and_its_work_is_done(api: Api) -> None:
    await prepare(api)
    atefail.configure("ateapi.serve.CreateActor=1*lose-reply")
    with pytest.raises(AteError) as caught:
        await create(api)
    assert caught.value.code is grpc.StatusCode.UNAVAILABLE
    assert (await api.store.actor(ActorRef("team-a", "bob"))).ref.name == "bob"
    with pytest.raises(AteError) as again:
        await create(api)
    assert again.value.reason is Reason.ALREADY_EXISTS


async def test_lost_reply_of_the_database_is_storage_unavailable(api: Api) -> None:
    """With RetryInfo: to ask again is right, and finds what was done."""
    await prepare(api)
    atefail.configure("ateapi.store.create_actor=1*lose-reply")
    with pytest.raises(AteError) as caught:
        await create(api)
    assert caught.value.reason is Reason.STORAGE_UNAVAILABLE
    assert caught.value.retry_s
    assert (await api.store.actor(ActorRef("team-a", "bob"))).ref.name == "bob"


async def test_error_of_the_database_is_before_the_verb(api: Api) -> None:
    await prepare(api)
    atefail.configure("ateapi.store.create_actor=1*error")
    with pytest.raises(AteError) as caught:
        await create(api)
    assert caught.value.reason is Reason.STORAGE_UNAVAILABLE
    await create(api)
