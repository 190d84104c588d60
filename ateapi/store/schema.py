"""Numbered migrations, and the record in the database of those that it has seen.

A migration is one file and one transaction, and is never changed once released. New versions of
the program first add, and take away a release later, so that old and new replicas can run
together.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources

from ateapi.store.clock import now_ms
from ateapi.store.engine import Execute
from ateerrors.errors import AteError
from ateerrors.reason import Reason

_VERSIONS = (
    "create table if not exists schema_version ("
    "number bigint primary key, sha256 text not null, applied_ms bigint not null)"
)


@dataclass(frozen=True, slots=True)
class Migration:
    """One step of the schema."""

    number: int
    sql: str

    @property
    def sha256(self) -> str:
        """Return what tells a changed migration."""
        return hashlib.sha256(self.sql.encode()).hexdigest()


def shipped() -> list[Migration]:
    """Return the migrations of this program, in order."""
    folder = resources.files("ateapi.store") / "migrations"
    files = sorted(
        (file for file in folder.iterdir() if file.name.endswith(".sql")), key=lambda f: f.name
    )
    return [Migration(int(file.name.split("_")[0]), file.read_text("utf-8")) for file in files]


def migrate(x: Execute, migrations: Sequence[Migration]) -> None:
    """Apply the migrations that the database lacks, in the transaction that the caller holds.

    Raises:
        AteError: INVALID_ARGUMENT: a newer version of this program wrote the database, or one that
            never was.
    """
    x(_VERSIONS)
    applied: dict[int, str] = dict(
        x("select number, sha256 from schema_version order by number").fetchall()
    )
    newest = migrations[-1].number
    if applied and max(applied) > newest:
        msg = (
            f"cannot open the store: its schema is version {max(applied)}, this program knows"
            f" {newest}: run the newer program that wrote it"
        )
        raise AteError(Reason.INVALID_ARGUMENT, msg)
    for migration in migrations:
        if migration.number not in applied:
            x(migration.sql)
            x(
                "insert into schema_version (number, sha256, applied_ms) values (?, ?, ?)",
                (migration.number, migration.sha256, now_ms()),
            )
        elif applied[migration.number] != migration.sha256:
            msg = (
                f"cannot open the store: version {migration.number} of its schema is not this"
                " program's: another program wrote it"
            )
            raise AteError(Reason.INVALID_ARGUMENT, msg)
