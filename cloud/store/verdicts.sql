-- What every way to a late answer writes, in the transaction of whoever answers.

-- name: insert_verdict
-- The first verdict of a frame, way and model is kept; a copy changes nothing.
INSERT INTO verdict (device, run, seq, mode, model_digest, camera, frame, captured_at, label, score, labels, agrees,
                     model_name, model_version, model_release, runtime, inference_ms, answered_at, asked_at,
                     picture_bytes, billed_ms, usd)
VALUES (%(device)s, %(run)s, %(seq)s, %(mode)s, %(model_digest)s, %(camera)s, %(frame)s, %(captured_at)s, %(label)s,
        %(score)s, %(labels)s::jsonb, %(agrees)s, %(model_name)s, %(model_version)s, %(model_release)s, %(runtime)s,
        %(inference_ms)s, %(answered_at)s, %(asked_at)s, %(picture_bytes)s, %(billed_ms)s, %(usd)s)
ON CONFLICT DO NOTHING
RETURNING 1

-- name: send
INSERT INTO outbound (device, body) VALUES (%(device)s, %(body)s::jsonb)

-- name: show
-- A late answer becomes what the camera shows when it speaks of a newer frame, or of the same one by a newer model.
-- It never replaces the answer of a newer frame.
INSERT INTO camera_answer AS shown (device, camera, run, seq, frame, captured_at, received_at, label, score, state,
                                    mode, labels, model_name, model_version, model_release)
VALUES (%(device)s, %(camera)s, %(run)s, %(seq)s, %(frame)s, %(captured_at)s, clock_timestamp(), %(label)s, %(score)s,
        CASE WHEN %(label)s = 'unknown' THEN 'unknown' ELSE 'confirmed' END, %(mode)s, %(labels)s::jsonb,
        %(model_name)s, %(model_version)s, %(model_release)s)
ON CONFLICT (device, camera) DO UPDATE SET
    run = excluded.run, seq = excluded.seq, frame = excluded.frame, captured_at = excluded.captured_at,
    received_at = excluded.received_at, label = excluded.label, score = excluded.score, state = excluded.state,
    mode = excluded.mode, labels = excluded.labels, model_name = excluded.model_name,
    model_version = excluded.model_version, model_release = excluded.model_release, total_ms = NULL, truth = NULL
WHERE CASE WHEN shown.run = excluded.run AND excluded.frame IS NOT NULL
           THEN excluded.frame > shown.frame
                OR excluded.frame = shown.frame AND excluded.model_release > coalesce(shown.model_release, 0)
           ELSE excluded.captured_at > shown.captured_at END

-- name: known_camera
-- Only a camera that the device has told of is shown: a picture that a person submitted belongs to none.
SELECT 1 FROM camera_answer WHERE device = %(device)s AND camera = %(camera)s
UNION ALL SELECT 1 FROM camera_picture WHERE device = %(device)s AND camera = %(camera)s LIMIT 1

-- name: add_tally
INSERT INTO tally AS known (device, name, n) VALUES (%(device)s, %(name)s, %(n)s)
ON CONFLICT (device, name) DO UPDATE SET n = known.n + excluded.n

-- name: tell
SELECT pg_notify('shelfwire_live', %(told)s)

-- name: serverless
-- Whether the function has answered this frame before; and the time, by the clock that dates every row.
SELECT clock_timestamp(), v.device IS NOT NULL, v.billed_ms, v.usd
FROM (SELECT 1) AS one LEFT JOIN LATERAL (
    SELECT * FROM verdict WHERE device = %(device)s AND run = %(run)s AND seq = %(seq)s AND mode = 'serverless'
    ORDER BY committed_at LIMIT 1) AS v ON true
