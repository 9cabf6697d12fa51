-- Words by which an operator picks devices: canary, small-shop.
CREATE TABLE fleet_label (
    device  text NOT NULL,
    label   text NOT NULL,
    PRIMARY KEY (device, label)
);

-- A rollout of a model or of settings. `rules` is what the operator chose, `target` the order's part, `batch` the newest
-- open one (from 0), `good_since` when it began to soak, `reason` what it waits for or why it stopped.
CREATE TABLE rollout (
    id          text PRIMARY KEY,
    what        text NOT NULL CHECK (what IN ('model', 'config')),
    title       text NOT NULL,
    target      jsonb NOT NULL,
    rules       jsonb NOT NULL,
    reverts     text REFERENCES rollout,
    state       text NOT NULL,
    batch       integer NOT NULL DEFAULT 0,
    good_since  timestamptz,
    reason      text NOT NULL DEFAULT '',
    made_by     text NOT NULL,
    made_at     timestamptz NOT NULL,
    changed_at  timestamptz NOT NULL
);
CREATE INDEX rollout_open ON rollout (made_at) WHERE state IN ('running', 'paused', 'catching-up');

-- One device's part in a rollout, as the plan fixed it. `former` is the goal that its order took the place of.
CREATE TABLE rollout_part (
    rollout     text NOT NULL REFERENCES rollout ON DELETE CASCADE,
    device      text NOT NULL,
    store       text NOT NULL,
    batch       integer NOT NULL,
    place       integer NOT NULL,
    state       text NOT NULL DEFAULT 'waiting',
    revision    bigint,
    ordered_at  timestamptz,
    ended_at    timestamptz,
    update_state text NOT NULL DEFAULT '',
    progress    real NOT NULL DEFAULT 0,
    code        text NOT NULL DEFAULT '',
    text        text NOT NULL DEFAULT '',
    numbers     jsonb NOT NULL DEFAULT '{}',
    former      jsonb,
    PRIMARY KEY (rollout, device)
);
CREATE INDEX rollout_part_by_device ON rollout_part (device);

-- What each device should run, as it is published. The revision counts up for ever: a device acts on the highest only.
CREATE TABLE desired (
    device    text PRIMARY KEY,
    revision  bigint NOT NULL CHECK (revision >= 1),
    body      jsonb NOT NULL
);
CREATE FUNCTION desired_counts_up() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.revision <= OLD.revision THEN
        RAISE EXCEPTION 'the revision of % must count up from %', OLD.device, OLD.revision;
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER desired_counts_up BEFORE UPDATE ON desired FOR EACH ROW EXECUTE FUNCTION desired_counts_up();

-- What each device last said it runs and did; `highest` is the highest revision in it.
CREATE TABLE reported (
    device       text PRIMARY KEY,
    body         jsonb NOT NULL,
    highest      bigint NOT NULL,
    received_at  timestamptz NOT NULL
);

-- Every step of every update that a device has told, once.
CREATE TABLE reported_step (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    device       text NOT NULL,
    what         text NOT NULL,
    revision     bigint NOT NULL,
    state        text NOT NULL,
    code         text NOT NULL,
    attempt      integer NOT NULL,
    rollout      text NOT NULL,
    text         text NOT NULL,
    numbers      jsonb NOT NULL,
    received_at  timestamptz NOT NULL,
    UNIQUE (device, what, revision, state, code, attempt)
);

-- What was done, by whom: lines that are only ever added. `hash` is the SHA-256 of the hash before and of `line`.
CREATE TABLE audit (
    n     bigint PRIMARY KEY,
    line  text NOT NULL,
    hash  bytea NOT NULL
);
CREATE FUNCTION audit_is_only_added_to() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the audit is only added to';
END $$;
CREATE TRIGGER audit_is_only_added_to BEFORE UPDATE OR DELETE OR TRUNCATE ON audit
    FOR EACH STATEMENT EXECUTE FUNCTION audit_is_only_added_to();
