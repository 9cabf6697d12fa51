-- The statements of read.py. A parameter that is NULL does not narrow the answer.

-- name: devices
SELECT device, store, state, agent, status, seen_at, changed_at
FROM device
WHERE %(devices)s::text[] IS NULL OR device = ANY(%(devices)s)
ORDER BY store, device

-- name: answers
SELECT device, camera, run, seq, frame, captured_at, received_at, label, score, state, mode, labels,
       model_name, model_version, total_ms, truth, model_release
FROM camera_answer
WHERE %(devices)s::text[] IS NULL OR device = ANY(%(devices)s)
ORDER BY device, camera

-- name: pictures
SELECT device, camera, frame, captured_at, received_at, width, height
FROM camera_picture
WHERE %(devices)s::text[] IS NULL OR device = ANY(%(devices)s)
ORDER BY device, camera

-- name: picture
SELECT frame, captured_at, jpeg
FROM camera_picture
WHERE device = %(device)s AND camera = %(camera)s

-- name: thumbnail
SELECT frame, captured_at, thumbnail AS jpeg
FROM alert
WHERE device = %(device)s AND run = %(run)s AND seq = %(seq)s AND thumbnail IS NOT NULL

-- name: open_alerts
-- An alert is open when the newest record of its device, camera and rule says `raised`. `since` was told by the
-- device's clock, so it is corrected as `captured_at` was.
WITH newest AS (
    SELECT DISTINCT ON (device, camera, rule) *
    FROM alert
    ORDER BY device, camera, rule, captured_at DESC, received_at DESC, seq DESC)
SELECT device, run, seq, camera, rule, state, label, score, since + (captured_at - captured_device_at) AS since,
       frame, reason, captured_at, received_at,
       CASE WHEN thumbnail IS NOT NULL THEN run END AS picture_run,
       CASE WHEN thumbnail IS NOT NULL THEN seq END AS picture_seq
FROM newest
WHERE state = 'raised'
ORDER BY captured_at DESC
LIMIT %(limit)s

-- name: cleared_alerts
-- The picture of an alert that is over came with the record that raised it, and so did `since`: by how much that was
-- wrong is told there, for the device's clock may have been set between the two.
SELECT a.device, a.run, a.seq, a.camera, a.rule, a.state, a.label, a.score,
       a.since + coalesce(p.late, a.captured_at - a.captured_device_at) AS since, a.frame, a.reason, a.captured_at,
       a.received_at, p.picture_run, p.picture_seq
FROM (SELECT * FROM alert
      WHERE state = 'cleared' AND captured_at >= %(since)s
      ORDER BY captured_at DESC LIMIT %(limit)s) a
LEFT JOIN LATERAL (
    SELECT b.captured_at - b.captured_device_at AS late,
           CASE WHEN b.thumbnail IS NOT NULL THEN b.run END AS picture_run,
           CASE WHEN b.thumbnail IS NOT NULL THEN b.seq END AS picture_seq
    FROM alert b
    WHERE b.device = a.device AND b.camera = a.camera AND b.rule = a.rule AND b.since = a.since
      AND b.state = 'raised' AND b.captured_at BETWEEN a.captured_at - interval '1 day' AND a.captured_at
    ORDER BY b.thumbnail IS NULL, b.captured_at LIMIT 1) p ON true
ORDER BY a.captured_at DESC

-- name: results
-- Newest first over many cameras: the newest of each camera come from its own stretch of the index, and only those
-- are merged, so that the table is never sorted as a whole.
SELECT r.*
FROM camera_answer c CROSS JOIN LATERAL (
    SELECT r.device, r.run, r.seq, r.camera, r.frame, r.captured_at, r.captured_device_at, r.dated_by, r.received_at,
           r.label, r.score, r.state, r.changed, r.reason, r.labels, r.model_name, r.model_version, r.runtime, r.mode,
           r.waiting_ms, r.inference_ms, r.total_ms, r.truth
    FROM result r
    WHERE r.device = c.device AND r.camera = c.camera
      AND (%(label)s::text IS NULL OR r.label = %(label)s)
      AND (%(since)s::timestamptz IS NULL OR r.captured_at >= %(since)s)
      AND (%(at)s::timestamptz IS NULL
           OR r.captured_at <= %(at)s
              AND (r.captured_at, r.device, r.run, r.seq) < (%(at)s, %(at_device)s, %(at_run)s, %(at_seq)s))
    ORDER BY r.captured_at DESC, r.device DESC, r.run DESC, r.seq DESC
    LIMIT %(limit)s) r
WHERE (%(device)s::text IS NULL OR c.device = %(device)s) AND (%(camera)s::text IS NULL OR c.camera = %(camera)s)
ORDER BY r.captured_at DESC, r.device DESC, r.run DESC, r.seq DESC
LIMIT %(limit)s

-- name: late
-- The late answers of each camera's newest pictures: from each camera's own stretch of the index.
SELECT v.*
FROM camera_answer c CROSS JOIN LATERAL (
    SELECT v.device, v.camera, v.run, v.seq, v.frame, v.captured_at, v.committed_at AS stored_at, v.mode, v.label,
           v.score, v.agrees, v.model_name, v.model_version
    FROM verdict v
    WHERE v.device = c.device AND v.camera = c.camera
    ORDER BY v.captured_at DESC
    LIMIT %(per_camera)s) v
WHERE %(devices)s::text[] IS NULL OR c.device = ANY(%(devices)s)
ORDER BY v.device, v.camera, v.captured_at DESC, v.stored_at DESC

-- name: answered
-- A local answer counts when it was captured, a late one when it came: that is when its device was not alone.
SELECT c.device, 'real-time' AS mode, sum(r.n)::bigint AS n
FROM camera_answer c CROSS JOIN LATERAL (
    SELECT count(*) AS n
    FROM (SELECT 1 FROM result r
          WHERE r.device = c.device AND r.camera = c.camera AND r.captured_at >= %(since)s LIMIT %(most)s) r) r
GROUP BY c.device
HAVING sum(r.n) > 0
UNION ALL
SELECT v.device, m.mode, count(*)
FROM unnest(ARRAY['serverless', 'asynchronous', 'batch']) AS m (mode) CROSS JOIN LATERAL (
    SELECT v.device FROM verdict v
    WHERE v.mode = m.mode AND v.committed_at >= %(since)s ORDER BY v.committed_at DESC LIMIT %(most)s) v
GROUP BY v.device, m.mode
ORDER BY 1, 2

-- name: place_of_record
SELECT camera, frame, captured_at FROM answer
WHERE device = %(device)s AND run = %(run)s AND seq = %(seq)s
LIMIT 1

-- name: place_of_picture
-- Late answers are found by their frame. A local one has no such index, and is looked for among the camera's newest.
(SELECT camera, frame, captured_at FROM verdict
 WHERE device = %(device)s AND run = %(run)s AND camera = %(camera)s AND frame = %(frame)s LIMIT 1)
UNION ALL
(SELECT camera, frame, captured_at
 FROM (SELECT camera, frame, captured_at, run FROM result
       WHERE device = %(device)s AND camera = %(camera)s ORDER BY captured_at DESC LIMIT 20000) r
 WHERE run = %(run)s AND frame = %(frame)s LIMIT 1)
LIMIT 1

-- name: answers_of_record
SELECT device, run, seq, camera, frame, captured_at, stored_at, mode, label, score, labels, model_name, model_version,
       model_release, model_digest, runtime, inference_ms, agrees, rank
FROM answer
WHERE device = %(device)s AND run = %(run)s AND seq = %(seq)s
ORDER BY rank DESC, stored_at DESC

-- name: answers_of_picture
-- The bounds of time keep both halves of the view on an index of their camera.
SELECT device, run, seq, camera, frame, captured_at, stored_at, mode, label, score, labels, model_name, model_version,
       model_release, model_digest, runtime, inference_ms, agrees, rank
FROM answer
WHERE device = %(device)s AND camera = %(camera)s AND captured_at BETWEEN %(from)s AND %(to)s
  AND run = %(run)s AND frame = %(frame)s
ORDER BY rank DESC, stored_at DESC

-- name: verdicts
-- Newest first over the modes: each mode's newest come from its own stretch of the index, and only those are merged.
SELECT v.*
FROM unnest(%(modes)s::text[]) AS m (mode) CROSS JOIN LATERAL (
    SELECT v.device, v.run, v.seq, v.mode, v.camera, v.frame, v.captured_at, v.asked_at, v.answered_at, v.committed_at,
           v.label, v.score, v.labels, v.agrees, v.model_name, v.model_version, v.model_release, v.model_digest,
           v.runtime, v.inference_ms, v.picture_bytes, v.billed_ms, v.usd
    FROM verdict v
    WHERE v.mode = m.mode
      AND (%(device)s::text IS NULL OR v.device = %(device)s) AND (%(camera)s::text IS NULL OR v.camera = %(camera)s)
      AND (%(at)s::timestamptz IS NULL
           OR v.committed_at <= %(at)s
              AND (v.committed_at, v.device, v.run, v.seq) < (%(at)s, %(at_device)s, %(at_run)s, %(at_seq)s))
    ORDER BY v.committed_at DESC, v.device DESC, v.run DESC, v.seq DESC
    LIMIT %(limit)s) v
ORDER BY v.committed_at DESC, v.device DESC, v.run DESC, v.seq DESC
LIMIT %(limit)s

-- name: tallies
SELECT coalesce(device, '') AS device, name, n
FROM tally
ORDER BY 1, 2

-- name: stored
SELECT device, 'results' AS name, count(*) AS n FROM result GROUP BY device
UNION ALL
SELECT device, 'alerts', count(*) FROM alert GROUP BY device
UNION ALL
SELECT coalesce(device, ''), 'quarantine', count(*) FROM quarantine GROUP BY 1

-- name: latency_to_commit
-- A result that could not be dated has no beginning to measure from. One dated by its age leaves out the way of its
-- envelope, unless device and server share one clock.
WITH recent AS (
    SELECT r.*
    FROM camera_answer c CROSS JOIN LATERAL (
        SELECT r.total_ms,
               extract(epoch FROM pg_xact_commit_timestamp(r.xmin) -
                   CASE WHEN %(same_clock)s THEN r.captured_device_at
                        WHEN r.dated_by <> 'unsure' THEN r.captured_at END)::float8 * 1000 AS cloud_ms
        FROM result r
        WHERE r.device = c.device AND r.camera = c.camera AND r.captured_at >= %(since)s
        ORDER BY r.captured_at DESC
        LIMIT %(limit)s) r)
SELECT count(total_ms) AS answer_n,
       percentile_cont(ARRAY[0.5, 0.95, 0.99]) WITHIN GROUP (ORDER BY total_ms::float8) AS answer_ms,
       count(cloud_ms) AS cloud_n,
       percentile_cont(ARRAY[0.5, 0.95, 0.99]) WITHIN GROUP (ORDER BY cloud_ms) AS cloud_ms
FROM recent

-- name: latency_to_reception
-- The same where PostgreSQL keeps no commit times (track_commit_timestamp is off).
WITH recent AS (
    SELECT r.*
    FROM camera_answer c CROSS JOIN LATERAL (
        SELECT r.total_ms,
               extract(epoch FROM r.received_at -
                   CASE WHEN %(same_clock)s THEN r.captured_device_at
                        WHEN r.dated_by <> 'unsure' THEN r.captured_at END)::float8 * 1000 AS cloud_ms
        FROM result r
        WHERE r.device = c.device AND r.camera = c.camera AND r.captured_at >= %(since)s
        ORDER BY r.captured_at DESC
        LIMIT %(limit)s) r)
SELECT count(total_ms) AS answer_n,
       percentile_cont(ARRAY[0.5, 0.95, 0.99]) WITHIN GROUP (ORDER BY total_ms::float8) AS answer_ms,
       count(cloud_ms) AS cloud_n,
       percentile_cont(ARRAY[0.5, 0.95, 0.99]) WITHIN GROUP (ORDER BY cloud_ms) AS cloud_ms
FROM recent

-- name: quarantine
SELECT id, received_at, topic, device, run, seq, code, detail, octet_length(payload) AS payload_bytes,
       substr(payload, 1, 256) AS payload_start
FROM quarantine
WHERE (%(device)s::text IS NULL OR device = %(device)s) AND (%(before)s::bigint IS NULL OR id < %(before)s)
ORDER BY id DESC
LIMIT %(limit)s
