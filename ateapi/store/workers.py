"""Verbs on nodes and worker slots."""

from collections.abc import Sequence

from ateapi.store import decode
from ateapi.store.begin import draw_slot
from ateapi.store.engine import Execute, Row, first
from ateapi.store.rows import ActorRow, NodeRow, WorkerReport, WorkerRow
from ateerrors.errors import AteError
from ateerrors.reason import Reason


def put_node(x: Execute, node: NodeRow) -> None:
    """See Store.put_node."""
    row = (node.node_id, node.name, node.target, node.arch, node.machine_boot_id, node.session_id)
    if first(x("select * from nodes where node_id = ?", (node.node_id,))) == row:
        return
    x(
        "insert into nodes (node_id, name, target, arch, machine_boot_id, session_id)"
        " values (?, ?, ?, ?, ?, ?) on conflict (node_id) do update set name = excluded.name,"
        " target = excluded.target, arch = excluded.arch,"
        " machine_boot_id = excluded.machine_boot_id, session_id = excluded.session_id",
        row,
    )


def nodes(x: Execute) -> list[NodeRow]:
    """See Store.nodes."""
    rows = x(
        "select node_id, name, target, arch, machine_boot_id, session_id from nodes"
        " order by node_id"
    )
    return [decode.node(row) for row in rows.fetchall()]


def put_workers(x: Execute, node_id: str, node_name: str, reports: Sequence[WorkerReport]) -> None:
    """See Store.put_workers."""
    known = {report.uid: _select(x, report.uid) for report in reports}
    for report in reports:
        _check_claim(report, known[report.uid])
    for report in reports:
        row = known[report.uid]
        if row is None:
            _insert(x, node_id, node_name, report)
            continue
        told = (
            report.name,
            node_id,
            node_name,
            report.address,
            report.sandbox_class,
            report.boot_id,
        )
        if row[3:9] != told:
            x(
                "update workers set name = ?, node_id = ?, node_name = ?, address = ?,"
                " sandbox_class = ?, boot_id = ? where uid = ?",
                (*told, report.uid),
            )


def _check_claim(report: WorkerReport, row: Row | None) -> None:
    if row is None or report.claim <= row[decode.WORKER_CLAIM]:
        return
    raise AteError(
        Reason.STORE_BEHIND,
        f"worker {report.name} has seen claim {report.claim}, the store knows"
        f" {row[decode.WORKER_CLAIM]}: it was restored or failed over with loss",
        metadata={"worker": report.uid},
    )


def _insert(x: Execute, node_id: str, node_name: str, report: WorkerReport) -> None:
    x(
        "insert into workers (uid, namespace, pool, name, node_id, node_name, address,"
        " sandbox_class, boot_id, status, claim, actor_uid, epoch, reason, slot)"
        " values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, null, 0, ?, ?)",
        (
            report.uid,
            report.namespace,
            report.pool,
            report.name,
            node_id,
            node_name,
            report.address,
            report.sandbox_class,
            report.boot_id,
            1 if report.empty else 3,
            report.claim,
            "" if report.empty else "found busy",
            draw_slot(),
        ),
    )


def _select(x: Execute, uid: str) -> Row | None:
    return first(x("select * from worker_rows where uid = ?", (uid,)))


def worker(x: Execute, uid: str) -> WorkerRow | None:
    """See Store.worker."""
    row = _select(x, uid)
    return None if row is None else decode.worker(row)


def workers(x: Execute, node_id: str = "") -> list[tuple[WorkerRow, ActorRow | None]]:
    """See Store.workers."""
    which = (node_id, node_id)
    assigned = x(
        "select a.* from workers w join actor_rows a on a.uid = w.actor_uid where w.status = 2"
        " and (? = '' or w.node_id = ?)",
        which,
    )
    actors = {row[0]: decode.actor(row) for row in assigned.fetchall()}
    rows = x(
        "select * from worker_rows where ? = '' or node_id = ?"
        " order by namespace, pool, name, uid",
        which,
    ).fetchall()
    return [
        (decode.worker(row), actors.get(row[11]) if row[decode.WORKER_STATUS] == 2 else None)
        for row in rows
    ]


def quarantine(x: Execute, uid: str, claim: int, reason: str) -> bool:
    """See Store.quarantine."""
    return _changed(
        x,
        "update workers set status = 3, claim = claim + 1, reason = ?"
        " where uid = ? and claim = ? and status = 1 returning uid",
        (reason or "unknown", uid, claim),
    )


def explain(x: Execute, uid: str, claim: int, reason: str) -> bool:
    """See Store.explain."""
    return _changed(
        x,
        "update workers set reason = ? where uid = ? and claim = ? and status = 3 returning uid",
        (reason or "unknown", uid, claim),
    )


def release(x: Execute, uid: str, claim: int) -> bool:
    """See Store.release."""
    return _changed(
        x,
        "update workers set status = 1, actor_uid = null, epoch = 0, reason = '', slot = ?"
        " where uid = ? and claim = ? and status = 3 returning uid",
        (draw_slot(), uid, claim),
    )


def remove(x: Execute, uid: str, claim: int) -> bool:
    """See Store.remove_worker."""
    return _changed(
        x,
        "delete from workers where uid = ? and claim = ? and status in (1, 3) returning uid",
        (uid, claim),
    )


def assign_pool(x: Execute, uid: str, namespace: str, pool: str) -> bool:
    """See Store.assign_pool."""
    return _changed(
        x,
        "update workers set namespace = ?, pool = ? where uid = ? and status = 1 returning uid",
        (namespace, pool, uid),
    )


def _changed(x: Execute, sql: str, values: tuple[str | int, ...]) -> bool:
    return first(x(sql, values)) is not None


def pool_counts(x: Execute) -> dict[tuple[str, str], tuple[int, int]]:
    """See Store.pool_counts."""
    rows = x(
        "select namespace, pool, sum(case status when 1 then 1 else 0 end), count(*) from workers"
        " group by namespace, pool"
    )
    return {(row[0], row[1]): (row[2], row[3]) for row in rows.fetchall()}
