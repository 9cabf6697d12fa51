-- What ingest writes, in the order in which a transaction runs it. Two ingesters always lock rows in the same order.

-- name: make_incoming_result
-- Where COPY puts results. `n` is the place in the batch; labels are turned into jsonb on the way to `result`.
CREATE TEMP TABLE incoming_result (n integer NOT NULL, LIKE result) ON COMMIT DELETE ROWS;
ALTER TABLE incoming_result ALTER COLUMN labels TYPE text;

-- name: make_incoming_alert
CREATE TEMP TABLE incoming_alert (n integer NOT NULL, LIKE alert) ON COMMIT DELETE ROWS;

-- name: insert_results
-- Keep the first of each key; tell how many were new, by device.
WITH fresh AS (
    INSERT INTO result (device, run, seq, camera, frame, captured_at, captured_device_at, dated_by, boot_ns, label,
                        score, state, changed, reason, labels, model_name, model_version, model_release, model_digest,
                        runtime, mode, waiting_ms, inference_ms, total_ms, truth, received_at, content)
    SELECT device, run, seq, camera, frame, captured_at, captured_device_at, dated_by, boot_ns, label,
           score, state, changed, reason, labels::jsonb, model_name, model_version, model_release, model_digest,
           runtime, mode, waiting_ms, inference_ms, total_ms, truth, received_at, content
    FROM incoming_result ORDER BY device, run, seq, n
    ON CONFLICT DO NOTHING
    RETURNING device
)
SELECT device, count(*) FROM fresh GROUP BY device

-- name: insert_alerts
WITH fresh AS (
    INSERT INTO alert (device, run, seq, camera, rule, state, label, score, since, frame, reason, thumbnail,
                       captured_at, captured_device_at, dated_by, boot_ns, received_at, content)
    SELECT device, run, seq, camera, rule, state, label, score, since, frame, reason, thumbnail,
           captured_at, captured_device_at, dated_by, boot_ns, received_at, content
    FROM incoming_alert ORDER BY device, run, seq, n
    ON CONFLICT DO NOTHING
    RETURNING device
)
SELECT device, count(*) FROM fresh GROUP BY device

-- name: conflicting_results
-- Which of the batch have a key that is taken by another content. LATERAL keeps the planner on the primary key.
SELECT i.n FROM incoming_result i
CROSS JOIN LATERAL (SELECT r.content FROM result r WHERE (r.device, r.run, r.seq) = (i.device, i.run, i.seq)) AS kept
WHERE kept.content <> i.content

-- name: conflicting_alerts
SELECT i.n FROM incoming_alert i
CROSS JOIN LATERAL (SELECT r.content FROM alert r WHERE (r.device, r.run, r.seq) = (i.device, i.run, i.seq)) AS kept
WHERE kept.content <> i.content

-- name: forget_conflicting_results
DELETE FROM incoming_result WHERE n = ANY(%s)

-- name: upsert_answers
-- Newest answer of each camera: inside a run the greater frame is newer, between runs the later capture. A late
-- backlog, or a copy, is older and changes nothing; nor does a local answer replace a late one for the same frame.
INSERT INTO camera_answer AS shown (device, camera, run, seq, frame, captured_at, received_at, label, score, state, mode,
                                    labels, model_name, model_version, model_release, total_ms, truth)
SELECT DISTINCT ON (device, camera)
       device, camera, run, seq, frame, captured_at, received_at, label, score, state, mode, labels::jsonb,
       model_name, model_version, model_release, total_ms, truth
FROM (SELECT DISTINCT ON (device, camera, run) * FROM incoming_result
      ORDER BY device, camera, run, frame DESC, seq DESC) AS newest
ORDER BY device, camera, captured_at DESC, run
ON CONFLICT (device, camera) DO UPDATE SET
    run = excluded.run, seq = excluded.seq, frame = excluded.frame, captured_at = excluded.captured_at,
    received_at = excluded.received_at, label = excluded.label, score = excluded.score, state = excluded.state,
    mode = excluded.mode, labels = excluded.labels, model_name = excluded.model_name,
    model_version = excluded.model_version, model_release = excluded.model_release, total_ms = excluded.total_ms,
    truth = excluded.truth
WHERE CASE WHEN shown.run = excluded.run THEN excluded.frame > shown.frame
           ELSE excluded.captured_at > shown.captured_at END

-- name: upsert_picture
-- Newest picture of a camera. Every ingester gets every picture: an equal one is not written again, an older one not
-- at all, unless the device's clock was set back and nothing newer has come for a while.
INSERT INTO camera_picture AS shown (device, camera, frame, captured_at, received_at, width, height, jpeg)
VALUES (%(device)s, %(camera)s, %(frame)s, %(captured_at)s, %(received_at)s, %(width)s, %(height)s, %(jpeg)b)
ON CONFLICT (device, camera) DO UPDATE SET
    frame = excluded.frame, captured_at = excluded.captured_at, received_at = excluded.received_at,
    width = excluded.width, height = excluded.height, jpeg = excluded.jpeg
WHERE excluded.captured_at > shown.captured_at OR shown.received_at < excluded.received_at - interval '10 seconds'

-- name: deliver
-- A device's receipt ends what it names: among its own verdicts, under this cloud's name, and only what was sent.
WITH named AS (
    SELECT o.id FROM unnest(%s::text[], %s::bigint[], %s::bigint[]) AS span (run, first, last)
    JOIN cloud_run USING (run)
    JOIN outbound o ON o.device = %s AND o.id BETWEEN span.first AND span.last AND o.attempts > 0
    ORDER BY o.id FOR UPDATE OF o
)
DELETE FROM outbound USING named WHERE outbound.id = named.id

-- name: decline
UPDATE outbound SET refused = said.code
FROM unnest(%s::text[], %s::bigint[], %s::text[]) AS said (run, seq, code) JOIN cloud_run USING (run)
WHERE outbound.device = %s AND outbound.id = said.seq AND outbound.attempts > 0 AND outbound.refused IS NULL

-- name: hurry
-- A device that comes (back) gets at once what waits for it. All rows are locked, so that no courier puts one off that
-- this has passed; what was sent before stays known as sent.
WITH mine AS (
    SELECT id FROM outbound
    WHERE device = %(device)s AND refused IS NULL AND NOT EXISTS (
        SELECT 1 FROM device WHERE device = %(device)s AND state = 'online' AND session = %(session)s)
    ORDER BY id FOR UPDATE
)
UPDATE outbound SET next_at = clock_timestamp(), attempts = least(attempts, 1) FROM mine WHERE outbound.id = mine.id

-- name: touch_devices
-- Whoever sends is there, even before a status has said so.
INSERT INTO device AS known (device, seen_at, changed_at)
SELECT device, seen_at, seen_at FROM unnest(%s::text[], %s::timestamptz[]) AS t (device, seen_at) ORDER BY device
ON CONFLICT (device) DO UPDATE SET seen_at = excluded.seen_at WHERE known.seen_at < excluded.seen_at

-- name: set_presence
-- A will speaks for one connection: `offline` of a former session changes nothing. Neither a kept copy nor a will
-- shows that the device was there just now, so only live news moves seen_at.
INSERT INTO device AS known (device, store, session, state, agent, status, seen_at, changed_at)
VALUES (%(device)s, %(store)s, %(session)s, %(state)s, %(agent)s, %(status)s::jsonb, %(seen_at)s, %(received_at)s)
ON CONFLICT (device) DO UPDATE SET
    store = coalesce(nullif(excluded.store, ''), known.store),
    agent = coalesce(nullif(excluded.agent, ''), known.agent),
    session = excluded.session, state = excluded.state, status = excluded.status,
    seen_at = CASE WHEN %(live)s THEN greatest(known.seen_at, excluded.seen_at) ELSE known.seen_at END,
    changed_at = CASE WHEN known.state = excluded.state AND known.session IS NOT DISTINCT FROM excluded.session
                      THEN known.changed_at ELSE excluded.changed_at END
WHERE excluded.state = 'online' OR known.session IS NULL OR known.session = excluded.session

-- name: set_reported
-- The last word counts. The same word again, which every ingester hears after a reconnect, changes nothing.
INSERT INTO reported AS known (device, body, highest, received_at)
VALUES (%(device)s, %(body)s::jsonb, %(highest)s, %(received_at)s)
ON CONFLICT (device) DO UPDATE SET
    body = excluded.body, highest = greatest(known.highest, excluded.highest), received_at = excluded.received_at
WHERE known.body <> excluded.body AND known.received_at <= excluded.received_at

-- name: add_step
INSERT INTO reported_step (device, what, revision, state, code, attempt, rollout, text, numbers, received_at)
VALUES (%(device)s, %(what)s, %(revision)s, %(state)s, %(code)s, %(attempt)s, %(rollout)s, %(text)s, %(numbers)s::jsonb,
        %(received_at)s)
ON CONFLICT DO NOTHING

-- name: thin_steps
-- A device in a loop may not fill the disk: its newest steps stay.
DELETE FROM reported_step WHERE device = %(device)s AND id <= (
    SELECT id FROM reported_step WHERE device = %(device)s ORDER BY id DESC OFFSET %(most)s LIMIT 1)

-- name: insert_quarantine
INSERT INTO quarantine (received_at, topic, device, run, seq, code, detail, payload)
VALUES (%s, %s, %s, %s, %s, %s, %s, %b)

-- name: thin_quarantine
-- A device may not fill the disk with rubbish: above the limit, every second row of the older half goes.
WITH place AS (
    SELECT id, row_number() OVER (ORDER BY id) AS place, count(*) OVER () AS n FROM quarantine WHERE device = %(device)s
)
DELETE FROM quarantine USING place
WHERE quarantine.id = place.id AND place.n > %(limit)s AND place.place <= place.n / 2 AND place.place %% 2 = 0

-- name: add_tallies
INSERT INTO tally AS known (device, name, n)
SELECT device, name, n FROM unnest(%s::text[], %s::text[], %s::bigint[]) AS t (device, name, n) ORDER BY device, name
ON CONFLICT (device, name) DO UPDATE SET n = known.n + excluded.n

-- name: notify
-- Listeners hear of it when the transaction is committed, and not before.
SELECT pg_notify('shelfwire_live', %s)
