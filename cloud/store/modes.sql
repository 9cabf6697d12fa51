-- The statements of modes.py: how each of the four ways does over a time. None looks at more rows than its bounds say.

-- name: local
-- The device's own answers may be millions, so no more than %(most)s are looked at per camera and slice of the time, the
-- first ones of the slice. Where there are more, the slice is taken to go on as it began, and its answers weigh more.
WITH slice AS (
    SELECT n, %(since)s::timestamptz + n * make_interval(secs => %(slice_s)s::float8) AS begins
    FROM generate_series(0, %(slices)s::int - 1) AS n),
seen AS (
    SELECT s.n, c.device, c.camera, r.captured_at, r.total_ms
    FROM camera_answer c CROSS JOIN slice s CROSS JOIN LATERAL (
        SELECT r.captured_at, r.total_ms
        FROM result r
        WHERE r.device = c.device AND r.camera = c.camera
          AND r.captured_at >= s.begins AND r.captured_at < s.begins + make_interval(secs => %(slice_s)s::float8)
        ORDER BY r.captured_at
        LIMIT %(most)s) r),
told AS (
    SELECT n, total_ms, count(*) OVER cell AS found,
           extract(epoch FROM max(captured_at) OVER cell - min(captured_at) OVER cell)::float8 AS took_s
    FROM seen
    WINDOW cell AS (PARTITION BY n, device, camera)),
weighed AS (
    SELECT n, total_ms, found = %(most)s AND took_s > 0 AS estimated,
           CASE WHEN found = %(most)s AND took_s > 0
                THEN greatest(1, (found - 1) / took_s * %(slice_s)s / found) ELSE 1 END::float8 AS weight
    FROM told),
ranked AS (
    SELECT total_ms::float8 AS ms, sum(weight) OVER (ORDER BY total_ms, n ROWS UNBOUNDED PRECEDING) AS below,
           sum(weight) OVER () AS all_of_them
    FROM weighed
    WHERE total_ms IS NOT NULL)
SELECT coalesce((SELECT sum(weight) FROM weighed), 0)::float8 AS answers,
       coalesce((SELECT bool_or(estimated) FROM weighed), false) AS bounded,
       (SELECT count(*) FROM ranked) AS measured,
       (SELECT ARRAY[min(ms) FILTER (WHERE below >= 0.5 * all_of_them), min(ms) FILTER (WHERE below >= 0.95 * all_of_them),
                     min(ms) FILTER (WHERE below >= 0.99 * all_of_them)] FROM ranked HAVING count(*) > 0) AS ms,
       (SELECT json_agg(json_build_array(bin, answers))
        FROM (SELECT n / %(per_bin)s AS bin, sum(weight) AS answers FROM weighed GROUP BY 1) b) AS bins

-- name: late
-- The newest answers of one late way, %(most)s at most.
WITH recent AS (
    SELECT committed_at, greatest(extract(epoch FROM committed_at - captured_at), 0)::float8 * 1000 AS late_ms, agrees,
           picture_bytes, usd
    FROM verdict
    WHERE mode = %(mode)s AND committed_at >= %(since)s
    ORDER BY committed_at DESC
    LIMIT %(most)s)
SELECT count(*)::float8 AS answers, count(*) = %(most)s AS bounded, count(*) AS measured,
       percentile_cont(ARRAY[0.5, 0.95, 0.99]) WITHIN GROUP (ORDER BY late_ms) AS ms,
       (SELECT json_agg(json_build_array(bin, answers))
        FROM (SELECT floor(extract(epoch FROM committed_at - %(since)s::timestamptz) / %(bin_s)s)::int AS bin,
                     count(*) AS answers
              FROM recent GROUP BY 1) b) AS bins,
       count(agrees) AS compared, count(*) FILTER (WHERE agrees) AS agreed,
       avg(picture_bytes)::float8 AS bytes_per_answer, sum(usd)::float8 AS usd, count(usd) AS priced
FROM recent

-- name: newest
-- When the newest answer of each way came.
SELECT 'real-time' AS mode, max(r.received_at) AS at
FROM camera_answer c CROSS JOIN LATERAL (
    SELECT r.received_at FROM result r
    WHERE r.device = c.device AND r.camera = c.camera ORDER BY r.captured_at DESC LIMIT 1) r
UNION ALL
SELECT m.mode, v.committed_at
FROM unnest(ARRAY['serverless', 'asynchronous', 'batch']) AS m (mode) LEFT JOIN LATERAL (
    SELECT v.committed_at FROM verdict v WHERE v.mode = m.mode ORDER BY v.committed_at DESC LIMIT 1) v ON true

-- name: some_results
-- A few of the newest, to weigh them.
SELECT r.*
FROM camera_answer c CROSS JOIN LATERAL (
    SELECT r.run, r.seq, r.camera, r.captured_device_at AS captured_at, r.boot_ns, r.frame, r.labels, r.label, r.state,
           r.changed, r.reason, r.model_name, r.model_version, r.model_release, r.model_digest, r.runtime, r.mode,
           r.waiting_ms, r.inference_ms, r.total_ms, r.truth
    FROM result r
    WHERE r.device = c.device AND r.camera = c.camera AND r.captured_at >= %(since)s
    ORDER BY r.captured_at DESC
    LIMIT 4) r
LIMIT %(most)s

-- name: cameras
SELECT count(*) AS n FROM camera_answer
