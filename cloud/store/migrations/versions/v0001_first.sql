-- Presence and health. `status` is the last wire Status as it came; `session` is the connection it speaks for.
CREATE TABLE device (
    device      text PRIMARY KEY,
    store       text NOT NULL DEFAULT '',
    session     text,
    state       text NOT NULL DEFAULT 'unknown',
    agent       text NOT NULL DEFAULT '',
    status      jsonb,
    seen_at     timestamptz NOT NULL,
    changed_at  timestamptz NOT NULL
);

-- Every answer, once. `captured_at` is the time to show, `captured_device_at` what the device's clock said, and
-- `dated_by` ('device', 'boot-clock' or 'unsure') where the time to show comes from. `score` belongs to the first
-- of `labels`; `content` is the SHA-256 of the canonical record, so that a second record with the key is known
-- for a copy or for a forgery.
CREATE TABLE result (
    device              text,
    run                 text,
    seq                 bigint,
    camera              text NOT NULL,
    frame               bigint NOT NULL,
    captured_at         timestamptz NOT NULL,
    captured_device_at  timestamptz NOT NULL,
    dated_by            text NOT NULL,
    boot_ns             bigint NOT NULL,
    label               text NOT NULL,
    score               real NOT NULL,
    state               text NOT NULL,
    changed             boolean NOT NULL,
    reason              text NOT NULL,
    labels              jsonb NOT NULL,
    model_name          text,
    model_version       text,
    model_release       integer,
    model_digest        text,
    runtime             text NOT NULL,
    mode                text NOT NULL,
    waiting_ms          real,
    inference_ms        real,
    total_ms            real,
    truth               text,
    received_at         timestamptz NOT NULL,
    content             bytea NOT NULL,
    PRIMARY KEY (device, run, seq)
);
CREATE INDEX result_by_camera ON result (device, camera, captured_at DESC);

CREATE TABLE alert (
    device              text,
    run                 text,
    seq                 bigint,
    camera              text NOT NULL,
    rule                text NOT NULL,
    state               text NOT NULL,
    label               text NOT NULL,
    score               real NOT NULL,
    since               timestamptz NOT NULL,
    frame               bigint NOT NULL,
    reason              text NOT NULL,
    thumbnail           bytea,
    captured_at         timestamptz NOT NULL,
    captured_device_at  timestamptz NOT NULL,
    dated_by            text NOT NULL,
    boot_ns             bigint NOT NULL,
    received_at         timestamptz NOT NULL,
    content             bytea NOT NULL,
    PRIMARY KEY (device, run, seq)
);
CREATE INDEX alert_recent ON alert (captured_at DESC);
CREATE INDEX alert_standing ON alert (device, camera, rule, captured_at DESC);

-- The newest answer of each camera. Late backlog never overwrites it: see upsert_answers in write.sql.
CREATE TABLE camera_answer (
    device         text,
    camera         text,
    run            text,
    seq            bigint,
    frame          bigint,
    captured_at    timestamptz,
    received_at    timestamptz,
    label          text,
    score          real,
    state          text,
    mode           text,
    labels         jsonb,
    model_name     text,
    model_version  text,
    total_ms       real,
    truth          text,
    PRIMARY KEY (device, camera)
);

-- The newest picture of each camera; no older one is kept.
CREATE TABLE camera_picture (
    device       text,
    camera       text,
    frame        bigint,
    captured_at  timestamptz,
    received_at  timestamptz,
    width        integer,
    height       integer,
    jpeg         bytea,
    PRIMARY KEY (device, camera)
);

-- What was refused, for a person to look at. `payload` is the first 64 KiB of what came.
CREATE TABLE quarantine (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    received_at  timestamptz NOT NULL,
    topic        text NOT NULL,
    device       text,
    run          text,
    seq          bigint,
    code         text NOT NULL,
    detail       text NOT NULL,
    payload      bytea NOT NULL
);
CREATE INDEX quarantine_by_device ON quarantine (device, id);

-- Counters, changed only in the transaction that changes the rows they count.
CREATE TABLE tally (
    device  text,
    name    text,
    n       bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (device, name)
);
