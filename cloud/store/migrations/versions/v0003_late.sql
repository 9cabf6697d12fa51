-- Every late answer, once per frame, way and model. `asked_at` is when the cloud got the picture, `committed_at` when
-- the answer was in this table: both by this database's clock. `billed_ms` and `usd` are what the call cost, where that
-- is known; `picture_bytes` is what came over the wire for it.
CREATE TABLE verdict (
    device         text,
    run            text,
    seq            bigint,
    mode           text CHECK (mode IN ('serverless', 'asynchronous', 'batch')),
    model_digest   text,
    camera         text NOT NULL,
    frame          bigint,
    captured_at    timestamptz NOT NULL,
    label          text NOT NULL,
    score          real NOT NULL,
    labels         jsonb NOT NULL,
    agrees         boolean,
    model_name     text NOT NULL,
    model_version  text NOT NULL,
    model_release  integer NOT NULL,
    runtime        text NOT NULL,
    inference_ms   real NOT NULL,
    answered_at    timestamptz NOT NULL,
    asked_at       timestamptz NOT NULL,
    committed_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    picture_bytes  integer,
    billed_ms      integer,
    usd            double precision,
    PRIMARY KEY (device, run, seq, mode, model_digest)
);
CREATE INDEX verdict_by_frame ON verdict (device, run, camera, frame);
CREATE INDEX verdict_by_camera ON verdict (device, camera, captured_at DESC);
CREATE INDEX verdict_by_mode ON verdict (mode, committed_at DESC);

-- The name under which this cloud numbers what it sends to devices.
CREATE TABLE cloud_run (
    only_one  boolean PRIMARY KEY DEFAULT true CHECK (only_one),
    run       text NOT NULL
);
INSERT INTO cloud_run (run) VALUES (substr(replace(gen_random_uuid()::text, '-', ''), 1, 16));

-- The cloud's own outbox: verdicts on their way to devices. A row goes when the device's receipt names its id.
-- `next_at` is when it is sent again without one; `refused` is why the device will never take it.
CREATE TABLE outbound (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    device      text NOT NULL,
    body        jsonb NOT NULL,
    attempts    integer NOT NULL DEFAULT 0,
    next_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    refused     text,
    created_at  timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX outbound_due ON outbound (next_at, id) WHERE refused IS NULL;
CREATE INDEX outbound_by_device ON outbound (device, id);

-- Who asked, of a job that a device has sent: {device, run, seq, camera, frame, captured_at, local_label}.
ALTER TABLE job ADD COLUMN about jsonb;

-- The night's files. `name` is the object's key, which holds its digest. `declared_*` is what the device said before
-- the file came; it is `received` only when the file agrees with that.
CREATE TABLE shard (
    name           text PRIMARY KEY,
    day            date NOT NULL,
    store          text NOT NULL,
    device         text NOT NULL,
    part           integer NOT NULL,
    rows           integer NOT NULL,
    bytes          bigint NOT NULL,
    sha256         text NOT NULL,
    state          text NOT NULL DEFAULT 'expected' CHECK (state IN ('expected', 'received', 'bad')),
    detail         text NOT NULL DEFAULT '',
    expected_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    received_at    timestamptz
);
CREATE INDEX shard_by_day ON shard (day, store, device, part);
CREATE INDEX shard_by_digest ON shard (sha256);

-- What a batch made of a shard: once per model. `output` is the key of the file with the answers.
CREATE TABLE shard_score (
    shard         text NOT NULL REFERENCES shard ON DELETE CASCADE,
    model_digest  text NOT NULL,
    model_name    text NOT NULL,
    engine        text NOT NULL,
    rows          integer NOT NULL,
    answered      integer NOT NULL,
    unreadable    integer NOT NULL,
    took_s        real NOT NULL,
    cpu_s         real NOT NULL,
    output        text NOT NULL,
    finished_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (shard, model_digest)
);

-- The newest answer of a camera may now come from another way, and a better model may answer the same frame again.
ALTER TABLE camera_answer ADD COLUMN model_release integer;

-- Every answer of every frame, whoever gave it. `rank` orders the answers of one frame: the newest model first, then
-- the way that had most time.
CREATE VIEW answer AS
SELECT device, run, seq, camera, frame, captured_at, mode, label, score, labels, model_name, model_version,
       model_release, model_digest, runtime, inference_ms, received_at AS stored_at, NULL::boolean AS agrees,
       NULL::integer AS picture_bytes, NULL::double precision AS usd,
       (coalesce(model_release, 0)::bigint * 10) AS rank
FROM result
UNION ALL
SELECT device, run, seq, camera, frame, captured_at, mode, label, score, labels, model_name, model_version,
       model_release, model_digest, runtime, inference_ms, committed_at, agrees, picture_bytes, usd,
       (model_release::bigint * 10 + CASE mode WHEN 'serverless' THEN 1 WHEN 'asynchronous' THEN 2 ELSE 3 END)
FROM verdict;
