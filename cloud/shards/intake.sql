-- Taking the night's files in.

-- name: expect
-- Announced again, a shard that has come stays as it is; one that was bad is awaited anew.
INSERT INTO shard AS known (name, day, store, device, part, rows, bytes, sha256)
VALUES (%(name)s, %(day)s, %(store)s, %(device)s, %(part)s, %(rows)s, %(bytes)s, %(sha256)s)
ON CONFLICT (name) DO UPDATE SET
    state = CASE WHEN known.state = 'received' THEN known.state ELSE 'expected' END,
    rows = CASE WHEN known.state = 'received' THEN known.rows ELSE excluded.rows END,
    bytes = CASE WHEN known.state = 'received' THEN known.bytes ELSE excluded.bytes END
WHERE known.sha256 = excluded.sha256
RETURNING state

-- name: find
SELECT name, day, store, device, part, rows, bytes, sha256, state, detail FROM shard
WHERE sha256 = %(sha256)s AND device = %(device)s ORDER BY expected_at DESC LIMIT 1

-- name: receive
UPDATE shard SET state = 'received', detail = '', received_at = clock_timestamp()
WHERE name = %(name)s AND state <> 'received'

-- name: refuse
UPDATE shard SET state = 'bad', detail = %(detail)s WHERE name = %(name)s AND state <> 'received'

-- name: tell
SELECT pg_notify('shelfwire_live', %(told)s)
