-- Verdicts on their way to devices. A row is lent by its `next_at`: it is sent again from then on, unless a receipt has
-- deleted it (`deliver` in write.sql). Nothing is held longer than one short transaction, so a courier may die anywhere.

-- name: run
SELECT run FROM cloud_run

-- name: first
-- Whose row has been due longest, of those that no other courier is taking.
SELECT device FROM outbound WHERE refused IS NULL AND next_at <= clock_timestamp()
ORDER BY next_at, id LIMIT 1 FOR UPDATE SKIP LOCKED

-- name: last
SELECT device FROM outbound WHERE refused IS NULL AND next_at <= clock_timestamp()
ORDER BY next_at DESC, id DESC LIMIT 1 FOR UPDATE SKIP LOCKED

-- name: away
-- Locked, so that a device cannot come back between this look and what follows from it; one whose row is being
-- changed just now counts as there.
SELECT 1 FROM device WHERE device = %(device)s AND state = 'offline' FOR SHARE SKIP LOCKED

-- name: postpone
WITH due AS (
    SELECT id FROM outbound WHERE device = %(device)s AND refused IS NULL AND next_at <= clock_timestamp()
    ORDER BY id FOR UPDATE SKIP LOCKED
)
UPDATE outbound AS o SET next_at = clock_timestamp() + make_interval(secs => %(in_s)s)
FROM due WHERE o.id = due.id

-- name: lend_first
-- Each time without a receipt doubles the wait, up to a ceiling.
WITH due AS (
    SELECT id FROM outbound WHERE device = %(device)s AND refused IS NULL AND next_at <= clock_timestamp()
    ORDER BY next_at, id LIMIT %(limit)s FOR UPDATE SKIP LOCKED
)
UPDATE outbound AS o SET attempts = o.attempts + 1, next_at = clock_timestamp() + make_interval(secs =>
    least(%(most_s)s, %(patience_s)s * power(2, least(o.attempts, 30))) * %(jitter)s)
FROM due WHERE o.id = due.id RETURNING o.id, o.body::text

-- name: lend_last
WITH due AS (
    SELECT id FROM outbound WHERE device = %(device)s AND refused IS NULL AND next_at <= clock_timestamp()
    ORDER BY next_at DESC, id DESC LIMIT %(limit)s FOR UPDATE SKIP LOCKED
)
UPDATE outbound AS o SET attempts = o.attempts + 1, next_at = clock_timestamp() + make_interval(secs =>
    least(%(most_s)s, %(patience_s)s * power(2, least(o.attempts, 30))) * %(jitter)s)
FROM due WHERE o.id = due.id RETURNING o.id, o.body::text

-- name: delay
-- For what was lent and not taken: due again after this, unless its device has come back since (`hurry` in write.sql).
WITH lent AS (
    SELECT id FROM outbound WHERE id = ANY(%(ids)s) AND refused IS NULL AND next_at > clock_timestamp()
    ORDER BY id FOR UPDATE SKIP LOCKED
)
UPDATE outbound AS o SET next_at = clock_timestamp() + make_interval(secs => %(in_s)s)
FROM lent WHERE o.id = lent.id

-- name: refuse
UPDATE outbound SET refused = %(code)s WHERE id = ANY(%(ids)s) AND refused IS NULL

-- name: waiting
SELECT count(*), coalesce(extract(epoch FROM clock_timestamp() - min(created_at)), 0)::float8,
       (SELECT count(*) FROM outbound WHERE refused IS NOT NULL)
FROM outbound WHERE refused IS NULL
