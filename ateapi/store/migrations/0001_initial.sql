-- Statuses are the numbers of ateapi.lifecycle.Status and ateapi.store.rows.WorkerStatus; times are
-- milliseconds since 1970; what is only carried around is JSON.
-- No changing column of actors may be indexed: an update would have to rewrite every index.

create table atespaces (
    name text primary key,
    uid text not null unique,
    created_ms bigint not null,
    actors bigint not null default 0 check (actors >= 0)
);

create table resources (
    uid text primary key,
    kind text not null,
    namespace text not null,
    name text not null,
    labels text not null,
    spec text not null,
    created_ms bigint not null,
    is_current smallint not null check (is_current in (0, 1))
);
create unique index resources_current on resources (kind, namespace, name) where is_current = 1;

create table snapshots (
    actor_uid text not null,
    -- Version of the actor that it was promoted with.
    sequence bigint not null,
    snapshot_id text not null unique,
    kind text not null check (kind in ('local', 'external')),
    location text not null,
    node_id text not null,
    digest text not null,
    size_bytes bigint not null,
    created_ms bigint not null,
    epoch bigint not null,
    bad smallint not null default 0 check (bad in (0, 1)),
    condemned smallint not null default 0 check (condemned in (0, 1)),
    primary key (actor_uid, sequence)
) without rowid;
create index snapshots_condemned on snapshots (actor_uid, sequence) where condemned = 1;

create table actors (
    uid text primary key,
    atespace text not null references atespaces (name),
    name text not null,
    template_namespace text not null,
    template_name text not null,
    template_uid text not null references resources (uid),
    selector text not null,
    created_ms bigint not null,
    status smallint not null check (status between 1 and 7),
    version bigint not null,
    epoch bigint not null,
    worker_uid text,
    updated_ms bigint not null,
    crash text,
    snapshot_id text,
    unique (atespace, name),
    -- At rest (SUSPENDED, PAUSED, CRASHED) without a worker, RUNNING with one.
    check (status not in (4, 6, 7) or worker_uid is null),
    check (status <> 2 or worker_uid is not null),
    check ((status = 7) = (crash is not null))
);
create index actors_template on actors (template_uid);

create table workers (
    uid text primary key,
    namespace text not null,
    pool text not null,
    name text not null,
    node_id text not null,
    node_name text not null,
    address text not null,
    sandbox_class text not null,
    boot_id text not null,
    status smallint not null,
    claim bigint not null,
    actor_uid text,
    epoch bigint not null,
    reason text not null,
    -- Random and new whenever the worker becomes free: claims start anywhere, so that there is no
    -- hot head of the queue, and no worker wins for ever.
    slot bigint not null,
    check (
        (status = 1 and actor_uid is null and reason = '')
        or (status = 2 and actor_uid is not null and reason = '')
        or (status = 3 and reason <> '')
    )
);
create unique index workers_actor on workers (actor_uid) where status = 2;
create index workers_free on workers (namespace, pool, node_id, slot) where status = 1;
create index workers_pool on workers (namespace, pool, name);

create table operations (
    operation_id text primary key,
    actor_uid text not null unique references actors (uid),
    verb text not null check (verb in ('resume', 'suspend', 'pause')),
    owner text not null,
    epoch bigint not null,
    origin smallint not null,
    worker_uid text,
    snapshot_id text not null,
    destination text not null,
    boot smallint not null check (boot in (0, 1)),
    begun_ms bigint not null
) without rowid;

create table outcomes (
    sequence integer primary key,
    operation_id text not null unique,
    actor_uid text not null,
    atespace text not null,
    name text not null,
    verb text not null,
    owner text not null,
    epoch bigint not null,
    status smallint,
    reason text not null,
    message text not null,
    begun_ms bigint not null,
    finished_ms bigint not null
);

-- The outbox: revisions are gapless, and in the order of commits. No index on the actor: it would
-- cost a fifth of what begin and finish cost, to find what few ask for.
create table events (
    revision integer primary key,
    time_ms bigint not null,
    actor_uid text not null,
    atespace text not null,
    name text not null,
    what text not null,
    status smallint,
    operation_id text not null,
    epoch bigint not null,
    reason text not null,
    message text not null,
    fields text not null
);

create table nodes (
    node_id text primary key,
    name text not null,
    target text not null,
    arch text not null,
    machine_boot_id text not null,
    session_id text not null
);

-- What ateapi.store.decode reads, column by column.
create view actor_rows as
select
    a.uid, a.atespace, a.name, a.template_namespace, a.template_name, a.template_uid, a.selector,
    a.created_ms,
    a.status, a.version, a.epoch, a.worker_uid, a.updated_ms, a.crash,
    s.snapshot_id, s.kind, s.location, s.node_id, s.digest, s.size_bytes,
    s.created_ms as snapshot_created_ms, s.epoch as snapshot_epoch, s.bad
from actors a left join snapshots s on s.snapshot_id = a.snapshot_id;

create view snapshot_rows as
select
    snapshot_id, kind, location, node_id, digest, size_bytes, created_ms, epoch, bad,
    actor_uid, sequence, condemned
from snapshots;

create view worker_rows as
select
    uid, namespace, pool, name, node_id, node_name, address, sandbox_class, boot_id, status, claim,
    actor_uid, epoch, reason,
    slot
from workers;

create view operation_rows as
select
    o.operation_id, o.actor_uid, a.atespace, a.name, o.verb, o.owner, o.epoch, o.origin,
    o.worker_uid, coalesce(w.claim, 0) as claim, coalesce(w.boot_id, '') as boot_id,
    o.snapshot_id, o.destination, o.boot, o.begun_ms
from operations o join actors a on a.uid = o.actor_uid left join workers w on w.uid = o.worker_uid;
