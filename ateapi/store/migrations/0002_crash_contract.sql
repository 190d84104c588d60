-- What a failed suspend leaves, how often an actor crashed, and what waits to be uploaded.

alter table operations add column policy text not null default 'crash'
    check (policy in ('crash', 'keep-running', 'pause'));

-- The copy on a node of what a crash could not make durable.
alter table snapshots add column salvage smallint not null default 0
    check (salvage = 0 or (salvage = 1 and kind = 'local'));
create index snapshots_salvage on snapshots (node_id, created_ms) where salvage = 1;

-- Actors that crashed, as long as they exist: how often in a row, and when at last.
create table crashes (
    actor_uid text primary key references actors (uid),
    in_a_row bigint not null,
    last_ms bigint not null,
    -- Whether it is CRASHED now: no changing column of actors may be indexed.
    is_crashed smallint not null check (is_crashed in (0, 1)),
    -- Until when a resume is tried that follows a revert by itself; 0: none does.
    resume_until_ms bigint not null default 0 check (is_crashed = 0 or resume_until_ms = 0)
) without rowid;
create index crashes_now on crashes (last_ms) where is_crashed = 1;
create index crashes_resume on crashes (last_ms) where resume_until_ms > 0;
insert into crashes (actor_uid, in_a_row, last_ms, is_crashed)
    select uid, 1, updated_ms, 1 from actors where status = 7;

-- Actors that are PAUSED only until their snapshot can be uploaded.
create table pending_uploads (
    actor_uid text primary key references actors (uid),
    since_ms bigint not null
) without rowid;

-- Of a revision of a template: the snapshot that those of its actors begin with that have none of
-- their own. It is kept as long as it is golden, whatever becomes of the actor that it is of.
create table golden (
    template_uid text primary key references resources (uid) on delete cascade,
    snapshot_id text not null unique references snapshots (snapshot_id),
    atespace text not null,
    name text not null,
    state text not null check (state in ('ready', 'broken')),
    reason text not null,
    message text not null,
    set_ms bigint not null,
    check ((state = 'broken') = (reason <> ''))
) without rowid;

drop view actor_rows;
create view actor_rows as
select
    a.uid, a.atespace, a.name, a.template_namespace, a.template_name, a.template_uid, a.selector,
    a.created_ms,
    a.status, a.version, a.epoch, a.worker_uid, a.updated_ms, a.crash,
    s.snapshot_id, s.kind, s.location, s.node_id, s.digest, s.size_bytes,
    s.created_ms as snapshot_created_ms, s.epoch as snapshot_epoch, s.bad, s.salvage
from actors a left join snapshots s on s.snapshot_id = a.snapshot_id;

drop view snapshot_rows;
create view snapshot_rows as
select
    snapshot_id, kind, location, node_id, digest, size_bytes, created_ms, epoch, bad, salvage,
    actor_uid, sequence, condemned
from snapshots;

drop view operation_rows;
create view operation_rows as
select
    o.operation_id, o.actor_uid, a.atespace, a.name, o.verb, o.owner, o.epoch, o.origin,
    o.worker_uid, coalesce(w.claim, 0) as claim, coalesce(w.boot_id, '') as boot_id,
    o.snapshot_id, o.destination, o.boot, o.begun_ms, o.policy
from operations o join actors a on a.uid = o.actor_uid left join workers w on w.uid = o.worker_uid;

create view golden_rows as
select
    s.snapshot_id, s.kind, s.location, s.node_id, s.digest, s.size_bytes, s.created_ms, s.epoch,
    s.bad, s.salvage,
    g.template_uid, s.actor_uid, g.atespace, g.name, g.state, g.reason, g.message, g.set_ms
from golden g join snapshots s on s.snapshot_id = g.snapshot_id;
