"""How the second sandbox class talks to its machine monitor: one short QMP session a verb."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, Final

from qemu.qmp import EventListener, ExecuteError, QMPClient, QMPError
from qemu.qmp.protocol import ConnectError

from ateom.runtime import Failure, SandboxRuntimeError

# How long a session may take to end; its other side may hang.
_GOODBYE_S: Final = 0.5
_NO_SPACE: Final = ("No space left on device", "Disk quota exceeded")


class Session:
    """A session with one monitor."""

    def __init__(self, client: QMPClient) -> None:
        self._client = client

    async def execute(self, command: str, **arguments: object) -> dict[str, Any]:
        """Run a command; its dashes are underscores here."""
        given = {key.replace("_", "-"): value for key, value in arguments.items()}
        answer = await self._client.execute(command, given or None)
        return answer if isinstance(answer, dict) else {}

    async def migrate(self, command: str, **arguments: object) -> None:
        """Run a migration to its end, which an event tells.

        Raises:
            SandboxRuntimeError: It failed.
        """
        capability = {"capability": "events", "state": True}
        await self.execute("migrate-set-capabilities", capabilities=[capability])
        with self._listening("MIGRATION") as events:
            await self.execute(command, **arguments)
            async for event in events:
                data: Any = event["data"]
                status = data["status"]
                if status == "completed":
                    return
                if status in ("failed", "cancelled"):
                    break
        said = await self.execute("query-migrate")
        raise failed(str(said.get("error-desc", said.get("status", ""))))

    @contextlib.contextmanager
    def _listening(self, name: str) -> Iterator[EventListener]:
        with self._client.listener(name) as listener:
            yield listener


def failed(message: str) -> SandboxRuntimeError:
    """Return what an error text means."""
    is_full = any(text in message for text in _NO_SPACE)
    return SandboxRuntimeError(Failure.NO_SPACE if is_full else Failure.REFUSED, message[:256])


@contextlib.asynccontextmanager
async def session(socket: Path, verb: str, timeout_s: float) -> AsyncIterator[Session]:
    """Talk to a monitor; what goes wrong is raised as SandboxRuntimeError."""
    client = QMPClient(verb)
    try:
        async with asyncio.timeout(timeout_s):
            await client.connect(str(socket))
            yield Session(client)
    except TimeoutError as exc:
        msg = f"{verb} did not end within {timeout_s:g} s"
        raise SandboxRuntimeError(Failure.TIMED_OUT, msg) from exc
    except ExecuteError as exc:
        raise failed(f"{verb}: {exc}") from exc
    except (QMPError, EOFError, OSError) as exc:
        is_absent = isinstance(exc, ConnectError) and isinstance(exc.exc, OSError)
        failure = Failure.MISSING if is_absent else Failure.DIED
        raise SandboxRuntimeError(
            failure, f"{verb}: {str(exc) or 'the connection was lost'}"
        ) from exc
    finally:
        with contextlib.suppress(TimeoutError, QMPError, EOFError, OSError):
            async with asyncio.timeout(_GOODBYE_S):
                await client.disconnect()
