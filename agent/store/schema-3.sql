-- The outbox, version 3: marks of frames whose verdicts were thinned out, so that a later one counts no second answer.

CREATE TABLE answered(
  number INTEGER PRIMARY KEY,                                    -- the lowest goes first
  run_id TEXT NOT NULL,
  block  INTEGER NOT NULL,                                       -- holds the sequence numbers from 4096 * block
  bits   BLOB NOT NULL,                                          -- 512 bytes, the lowest bit of the first one first
  UNIQUE(run_id, block)
) STRICT;
