-- The batch's own look at the night's files.

-- name: lock
-- Held as long as its connection lives: a run that is killed frees it.
SELECT pg_try_advisory_lock(hashtext('shelfwire-batch'), %(day)s::date - '2000-01-01'::date)

-- name: shards
SELECT s.name, s.store, s.device, s.part, s.rows, s.bytes, s.sha256, s.received_at, d.output
FROM shard s LEFT JOIN shard_score d ON d.shard = s.name AND d.model_digest = %(model_digest)s
WHERE s.day = %(day)s AND s.state = 'received' ORDER BY s.store, s.device, s.part, s.name

-- name: save
INSERT INTO shard_score (shard, model_digest, model_name, engine, rows, answered, unreadable, took_s, cpu_s, output)
VALUES (%(shard)s, %(model_digest)s, %(model_name)s, %(engine)s, %(rows)s, %(answered)s, %(unreadable)s, %(took_s)s,
        %(cpu_s)s, %(output)s)
ON CONFLICT (shard, model_digest) DO UPDATE SET
    engine = excluded.engine, answered = excluded.answered, unreadable = excluded.unreadable, took_s = excluded.took_s,
    cpu_s = excluded.cpu_s, output = excluded.output, finished_at = clock_timestamp()

-- name: days
-- Every day with files, the newest first, and what was made of it by each model.
SELECT s.day, count(*) FILTER (WHERE s.state = 'received') AS shards,
       count(*) FILTER (WHERE s.state = 'expected') AS expected, count(*) FILTER (WHERE s.state = 'bad') AS bad,
       coalesce(sum(s.rows) FILTER (WHERE s.state = 'received'), 0)::bigint AS frames,
       coalesce(sum(s.bytes) FILTER (WHERE s.state = 'received'), 0)::bigint AS bytes,
       count(DISTINCT s.device) AS devices
FROM shard s GROUP BY s.day ORDER BY s.day DESC LIMIT %(limit)s

-- name: day
SELECT s.day, count(*) FILTER (WHERE s.state = 'received') AS shards,
       count(*) FILTER (WHERE s.state = 'expected') AS expected, count(*) FILTER (WHERE s.state = 'bad') AS bad,
       coalesce(sum(s.rows) FILTER (WHERE s.state = 'received'), 0)::bigint AS frames,
       coalesce(sum(s.bytes) FILTER (WHERE s.state = 'received'), 0)::bigint AS bytes,
       count(DISTINCT s.device) AS devices
FROM shard s WHERE s.day = %(day)s GROUP BY s.day

-- name: scored
SELECT s.day, d.model_digest, max(d.model_name) AS model_name, count(*) AS shards, sum(d.rows)::bigint AS frames,
       sum(d.answered)::bigint AS answered, sum(d.unreadable)::bigint AS unreadable,
       max(d.finished_at) AS finished_at
FROM shard_score d JOIN shard s ON s.name = d.shard WHERE s.day = ANY(%(days)s)
GROUP BY s.day, d.model_digest ORDER BY s.day DESC, max(d.finished_at) DESC

-- name: outputs
-- The files with one model's answers for a day.
SELECT s.sha256, d.output, d.finished_at FROM shard_score d JOIN shard s ON s.name = d.shard
WHERE s.day = %(day)s AND d.model_digest = %(model_digest)s AND s.state = 'received'
ORDER BY s.store, s.device, s.part, s.name

-- name: received
SELECT name FROM shard WHERE sha256 = %(sha256)s AND day = %(day)s AND state = 'received' LIMIT 1
