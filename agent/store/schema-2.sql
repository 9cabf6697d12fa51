-- The outbox, version 2: pictures on their way to the cloud, the night's files, and late answers.

-- A sealed file of the night. Its rows and pictures go when the cloud has verified it.
CREATE TABLE shard(
  shard     INTEGER PRIMARY KEY AUTOINCREMENT,
  device    TEXT NOT NULL,                                       -- as the file says: either may be renamed meanwhile
  store     TEXT NOT NULL,
  day       TEXT NOT NULL,                                       -- YYYY-MM-DD, the shop's local day
  part      INTEGER NOT NULL,                                    -- from 1, within the day
  file      TEXT NOT NULL UNIQUE,                                -- name in the folder `batch`
  rows      INTEGER NOT NULL,
  bytes     INTEGER NOT NULL,
  sha256    TEXT NOT NULL,
  sealed_ns INTEGER NOT NULL,                                    -- wall clock
  refusals  INTEGER NOT NULL DEFAULT 0,                          -- times the cloud refused it for good
  error     TEXT
) STRICT;

-- Only records of kind 'frame' have a picture: a file in the spool, which the row's death takes along. With `shard` the
-- picture lies in that file instead.
ALTER TABLE outbox ADD COLUMN picture       TEXT;
ALTER TABLE outbox ADD COLUMN picture_bytes INTEGER NOT NULL DEFAULT 0;
ALTER TABLE outbox ADD COLUMN picture_sha256 TEXT;
ALTER TABLE outbox ADD COLUMN expires_ns    INTEGER;             -- boot clock; then a frame to offload is the night's
ALTER TABLE outbox ADD COLUMN shard         INTEGER REFERENCES shard(shard);
CREATE INDEX outbox_shard ON outbox(shard) WHERE shard IS NOT NULL;
CREATE INDEX outbox_picture ON outbox(picture) WHERE picture IS NOT NULL;  -- for the sweeper of the spool

-- Rows with pictures are deleted by the sender, the night, eviction and burial; none of them can forget these two.
CREATE TRIGGER picture_kept AFTER INSERT ON outbox WHEN NEW.picture IS NOT NULL BEGIN
  INSERT INTO counter(name, n) VALUES ('pictures:files', 1), ('pictures:bytes', NEW.picture_bytes)
    ON CONFLICT(name) DO UPDATE SET n = n + excluded.n;
END;
CREATE TRIGGER picture_gone AFTER DELETE ON outbox WHEN OLD.picture IS NOT NULL BEGIN
  UPDATE counter SET n = n - 1 WHERE name = 'pictures:files';
  UPDATE counter SET n = n - OLD.picture_bytes WHERE name = 'pictures:bytes';
END;
CREATE TRIGGER picture_lost AFTER UPDATE OF picture ON outbox WHEN OLD.picture IS NOT NULL AND NEW.picture IS NULL BEGIN
  UPDATE counter SET n = n - 1 WHERE name = 'pictures:files';
  UPDATE counter SET n = n - OLD.picture_bytes WHERE name = 'pictures:bytes';
END;

-- Who made a run: vision, or a person with `submit`, whose pictures are no captured frames.
ALTER TABLE run ADD COLUMN role TEXT NOT NULL DEFAULT 'vision' CHECK(role IN ('vision', 'submit'));

-- The cloud's answers, once per frame, way and model. Beside the local answer, never over it.
CREATE TABLE verdict(
  run_id      TEXT NOT NULL,
  seq         INTEGER NOT NULL,
  mode        TEXT NOT NULL CHECK(mode IN ('serverless', 'asynchronous', 'batch')),
  digest      TEXT NOT NULL,                                     -- of the model
  camera      TEXT NOT NULL,
  frame       INTEGER,
  label       TEXT NOT NULL,
  score       REAL NOT NULL,
  release     INTEGER NOT NULL,                                  -- of the model: the highest is shown
  agrees      INTEGER,                                           -- with the device's own answer; NULL: it had none
  received_ns INTEGER NOT NULL,                                  -- wall clock
  body        BLOB NOT NULL,                                     -- the wire's Verdict
  PRIMARY KEY(run_id, seq, mode, digest)
) STRICT, WITHOUT ROWID;
CREATE INDEX verdict_by_camera ON verdict(camera, received_ns);
CREATE INDEX verdict_by_age ON verdict(received_ns);
