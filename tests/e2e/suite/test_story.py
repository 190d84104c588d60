"""The main job with real sandboxes, from the command line."""

import asyncio

from tests.kit.installation import Installation


async def test_an_actor_goes_on_where_it_was(suite: Installation) -> None:
    """Memory and files survive suspend and pause, on another worker each time."""
    await suite.prepare()
    await suite.ok("resume", "actor", "a", "-a", "demo")
    first = await suite.actor()
    assert [(await suite.ask())["count"] for _ in range(3)] == [1, 2, 3]

    await suite.ok("suspend", "actor", "a", "-a", "demo")
    assert await suite.status() == "SUSPENDED"
    await suite.workers_free(2)

    # Somebody else takes the worker it was on.
    await suite.ok("create", "actor", "b", "-a", "demo", "-t", "default/counter")
    while (await suite.actor("b")).get("ateomPodUid") != first["ateomPodUid"]:
        await suite.ok("suspend", "actor", "b", "-a", "demo")
        await suite.ok("resume", "actor", "b", "-a", "demo")
    await suite.ok("resume", "actor", "a", "-a", "demo")
    second = await suite.actor()
    assert second["ateomPodUid"] != first["ateomPodUid"]
    answer = await suite.ask()
    assert (answer["count"], answer["file"]) == (4, 4)

    await suite.ok("pause", "actor", "a", "-a", "demo")
    assert await suite.status() == "PAUSED"
    await suite.workers_free(1)
    await suite.ok("resume", "actor", "a", "-a", "demo")
    assert (await suite.ask())["count"] == 5

    await suite.ok("pause", "actor", "a", "-a", "demo")
    await suite.ok("suspend", "actor", "a", "-a", "demo")
    assert await suite.status() == "SUSPENDED"
    await suite.ok("resume", "actor", "a", "-a", "demo")
    answer = await suite.ask()
    assert (answer["count"], answer["file"]) == (6, 6)


async def test_two_actors_of_one_name_are_two(suite: Installation) -> None:
    await suite.prepare("x", "team-a")
    await suite.prepare("x", "team-b")
    for atespace in ("team-a", "team-b"):
        await suite.ok("resume", "actor", "x", "-a", atespace)
    assert (await suite.ask("/?note=mine", "x", "team-a"))["count"] == 1
    assert (await suite.ask("/", "x", "team-b"))["notes"] == []
    one, two = await suite.actor("x", "team-a"), await suite.actor("x", "team-b")
    assert one["uid"] != two["uid"]
    assert one["ateomPodIp"] != two["ateomPodIp"]
    await suite.ok("suspend", "actor", "x", "-a", "team-a")
    assert (await suite.ask("/", "x", "team-b"))["count"] == 2
    await suite.ok("resume", "actor", "x", "-a", "team-a")
    answer = await suite.ask("/", "x", "team-a")
    assert (answer["count"], answer["notes"], answer["atespace"]) == (2, ["mine"], "team-a")


async def test_ten_actors_share_two_workers(suite: Installation) -> None:
    names = [f"a{i}" for i in range(10)]
    await suite.prepare(names[0])
    for name in names[1:]:
        await suite.ok("create", "actor", name, "-a", "demo", "-t", "default/counter")
    for count in (1, 2):
        for pair in zip(names[::2], names[1::2], strict=True):
            await asyncio.gather(
                *(suite.ok("resume", "actor", name, "-a", "demo") for name in pair)
            )
            answers = [await suite.ask(f"/?note={name}", name) for name in pair]
            assert [answer["count"] for answer in answers] == [count, count]
            assert [set(answer["notes"]) for answer in answers] == [{name} for name in pair]
            third = next(name for name in names if name not in pair)
            await suite.fails("NO_FREE_WORKERS", "resume", "actor", third, "-a", "demo")
            await asyncio.gather(
                *(suite.ok("suspend", "actor", name, "-a", "demo") for name in pair)
            )
    await suite.workers_free(2)
