-- The outbox, version 1. Rows die only on the cloud's receipt, on eviction (counted), or move to the dead letters.

CREATE TABLE run(
  run           INTEGER PRIMARY KEY AUTOINCREMENT,
  run_id        TEXT NOT NULL UNIQUE CHECK(length(run_id) = 16),  -- 8 random bytes per process start, hexadecimal
  boot_id       TEXT NOT NULL,
  started_ns    INTEGER NOT NULL,                                 -- wall clock
  agent_version TEXT NOT NULL
) STRICT;

CREATE TABLE outbox(
  seq      INTEGER PRIMARY KEY AUTOINCREMENT,                     -- never used twice, also not after a delete
  run      INTEGER NOT NULL REFERENCES run(run),
  kind     TEXT NOT NULL,                                         -- wire record kind
  lane     INTEGER NOT NULL,                                      -- 0 goes first
  state    INTEGER NOT NULL DEFAULT 0 CHECK(state IN (0, 2)),     -- 0 ready (leases live in memory), 2 dead
  refusals INTEGER NOT NULL DEFAULT 0,                            -- times the cloud refused it for good
  wall_ns  INTEGER NOT NULL,
  boot_ns  INTEGER NOT NULL,
  clock    TEXT NOT NULL CHECK(clock IN ('synced', 'unsure')),
  bytes    INTEGER NOT NULL,
  error    TEXT,                                                  -- why it was refused or buried
  body     BLOB NOT NULL                                          -- JSON object without run and seq
) STRICT;
CREATE INDEX outbox_ready ON outbox(lane, seq) WHERE state = 0;
CREATE INDEX outbox_dead  ON outbox(seq)       WHERE state = 2;

-- Counted in the same transaction as the rows, so that the books always balance.
CREATE TABLE counter(name TEXT PRIMARY KEY, n INTEGER NOT NULL) STRICT;

-- Small facts that survive a restart: decision state, vision's last report.
CREATE TABLE fact(name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
