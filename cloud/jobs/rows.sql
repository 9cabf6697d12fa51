-- The statements of rows.py.

-- name: waiting
-- What is not finished: bounds the queue.
SELECT count(*) AS jobs, coalesce(sum(bytes), 0)::bigint AS bytes FROM job WHERE state = ANY(%(open)s)

-- name: accept
-- Take a job in, unless its sender has used the key before.
INSERT INTO job(id, submitted_by, idempotency_key, state, name, sha256, bytes, kind, width, height, callback, email,
                about)
VALUES (%(id)s, %(submitted_by)s, %(key)s, 'queued', %(name)s, %(sha256)s, %(bytes)s, %(kind)s, %(width)s, %(height)s,
        %(callback)s, %(email)s, %(about)s)
ON CONFLICT (submitted_by, idempotency_key) WHERE idempotency_key IS NOT NULL DO NOTHING
RETURNING id

-- name: keep_picture
INSERT INTO job_picture(job, picture) VALUES (%(id)s, %(picture)s)

-- name: by_key
SELECT id FROM job WHERE submitted_by = %(submitted_by)s AND idempotency_key = %(key)s

-- name: defer
-- Put a task into the queue, in the transaction of what it is about.
SELECT procrastinate_defer_jobs_v1(ARRAY[
    ROW(%(queue)s, %(task)s, %(priority)s, NULL, NULL, %(args)s::jsonb, NULL)::procrastinate_job_to_defer_v1])

-- name: job
SELECT * FROM job WHERE id = %(id)s

-- name: jobs
SELECT * FROM job
WHERE (%(state)s::text IS NULL OR state = %(state)s)
  AND (%(at)s::timestamptz IS NULL OR (created_at, id) < (%(at)s, %(at_id)s))
ORDER BY created_at DESC, id DESC
LIMIT %(limit)s

-- name: counts
SELECT state, count(*) AS n FROM job GROUP BY state

-- name: with_thumbnail
SELECT job FROM job_picture WHERE job = ANY(%(ids)s) AND thumbnail IS NOT NULL

-- name: thumbnail
SELECT thumbnail FROM job_picture WHERE job = %(id)s

-- name: notices
SELECT n.id, n.job, n.way, n.target, n.state, n.attempts, n.created_at,
       coalesce(jsonb_agg(jsonb_build_object('attempt', d.attempt, 'at', d.at, 'code', d.code, 'detail', d.detail,
                                             'took_ms', d.took_ms) ORDER BY d.attempt)
                FILTER (WHERE d.notice IS NOT NULL), '[]') AS deliveries
FROM job_notice n LEFT JOIN job_delivery d ON d.notice = n.id
WHERE n.job = ANY(%(ids)s)
GROUP BY n.id
ORDER BY n.job, n.way

-- name: start
-- `attempts` after this is the token of this run.
UPDATE job SET state = %(into)s, attempts = attempts + 1, started_at = clock_timestamp()
WHERE id = %(id)s AND state = ANY(%(from)s)
RETURNING *

-- name: picture
SELECT picture FROM job_picture WHERE job = %(id)s

-- name: move
-- Every other event. Only the run that holds the token may tell it.
UPDATE job SET state = %(into)s, error_code = %(code)s, error_detail = %(detail)s, error_hint = %(hint)s,
    result = %(result)s, model_name = %(model_name)s, model_version = %(model_version)s,
    finished_at = CASE WHEN %(over)s THEN clock_timestamp() END
WHERE id = %(id)s AND state = ANY(%(from)s) AND attempts = %(attempt)s
RETURNING callback, email, about, created_at, bytes

-- name: keep_thumbnail
UPDATE job_picture SET thumbnail = %(thumbnail)s WHERE job = %(id)s

-- name: add_notice
INSERT INTO job_notice(id, job, way, target) VALUES (%(notice)s, %(id)s, %(way)s, %(target)s)
ON CONFLICT (job, way) DO NOTHING

-- name: start_notice
UPDATE job_notice SET attempts = attempts + 1
WHERE id = %(notice)s AND state = 'waiting'
RETURNING id, job, way, target, attempts

-- name: log_delivery
INSERT INTO job_delivery(notice, attempt, code, detail, took_ms)
VALUES (%(notice)s, %(attempt)s, %(code)s, %(detail)s, %(took_ms)s)
ON CONFLICT (notice, attempt) DO NOTHING

-- name: end_notice
UPDATE job_notice SET state = %(into)s WHERE id = %(notice)s AND state = 'waiting' AND attempts = %(attempt)s

-- name: tell
SELECT pg_notify('shelfwire_live', %(told)s)

-- name: offer_secret
INSERT INTO job_secret(secret) VALUES (%(secret)s) ON CONFLICT DO NOTHING

-- name: secret
SELECT secret FROM job_secret

-- name: forget_pictures
DELETE FROM job_picture p USING job j
WHERE j.id = p.job AND j.state = ANY(%(over)s) AND j.finished_at < clock_timestamp() - make_interval(secs => %(older_s)s)

-- name: forget_jobs
DELETE FROM job WHERE state = ANY(%(over)s) AND finished_at < clock_timestamp() - make_interval(secs => %(older_s)s)
