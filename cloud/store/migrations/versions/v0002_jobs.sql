-- Asynchronous inference. The life of a job is the table in cloud/jobs/lifecycle.py; `attempts` is also the token
-- of the run that holds the job: only the newest run may finish it.
CREATE TABLE job (
    id               uuid PRIMARY KEY,
    submitted_by     text NOT NULL,
    idempotency_key  text,
    state            text NOT NULL CHECK (state IN ('queued', 'running', 'done', 'failed', 'dead')),
    name             text NOT NULL DEFAULT '',
    sha256           bytea NOT NULL,
    bytes            integer NOT NULL,
    kind             text NOT NULL,
    width            integer NOT NULL,
    height           integer NOT NULL,
    callback         text,
    email            text,
    attempts         integer NOT NULL DEFAULT 0,
    error_code       text,
    error_detail     text,
    error_hint       text,
    result           jsonb,
    model_name       text,
    model_version    text,
    created_at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    started_at       timestamptz,
    finished_at      timestamptz
);
CREATE UNIQUE INDEX job_by_key ON job (submitted_by, idempotency_key) WHERE idempotency_key IS NOT NULL;
CREATE INDEX job_by_age ON job (created_at DESC, id DESC);
CREATE INDEX job_by_state ON job (state, created_at DESC, id DESC);

-- The picture as it came, until retention deletes it, and what the pages show of it, once a worker has decoded it.
CREATE TABLE job_picture (
    job        uuid PRIMARY KEY REFERENCES job ON DELETE CASCADE,
    picture    bytea NOT NULL,
    thumbnail  bytea
);
ALTER TABLE job_picture ALTER COLUMN picture SET STORAGE EXTERNAL;  -- a picture is compressed already

-- One row per notice; its id is the webhook's message id and the mail's Message-ID, so that a copy can be known.
CREATE TABLE job_notice (
    id          uuid PRIMARY KEY,
    job         uuid NOT NULL REFERENCES job ON DELETE CASCADE,
    way         text NOT NULL CHECK (way IN ('webhook', 'email')),
    target      text NOT NULL,
    state       text NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'sent', 'dead')),
    attempts    integer NOT NULL DEFAULT 0,
    created_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    UNIQUE (job, way)
);

-- What each attempt met.
CREATE TABLE job_delivery (
    notice   uuid NOT NULL REFERENCES job_notice ON DELETE CASCADE,
    attempt  integer NOT NULL,
    at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    code     text NOT NULL,
    detail   text NOT NULL,
    took_ms  real NOT NULL,
    PRIMARY KEY (notice, attempt)
);

-- The secret that signs webhooks when the operator names none of their own.
CREATE TABLE job_secret (
    only_one  boolean PRIMARY KEY DEFAULT true CHECK (only_one),
    secret    text NOT NULL
);
