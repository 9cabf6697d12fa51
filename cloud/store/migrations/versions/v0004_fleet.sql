-- A device that may be enrolled, or is. `revoked_at` shuts it out until an operator adds it anew.
CREATE TABLE fleet_device (
    device      text PRIMARY KEY,
    store       text NOT NULL,
    added_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    revoked_at  timestamptz
);

-- A one-time code. `id` is its public part; of the secret there are only `server_key` (which proves that this server
-- knows it) and the digest of what the device has to show, both stretched. `attempts` counts wrong ones. `key_sha256`
-- is the public key that used it: the same device may fetch its certificate again when the answer was lost.
CREATE TABLE fleet_code (
    id             text PRIMARY KEY,
    device         text NOT NULL REFERENCES fleet_device ON DELETE CASCADE,
    salt           bytea NOT NULL,
    server_key     bytea NOT NULL,
    device_sha256  bytea NOT NULL,
    created_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    expires_at     timestamptz NOT NULL,
    attempts       integer NOT NULL DEFAULT 0,
    used_at        timestamptz,
    key_sha256     bytea
);
CREATE INDEX fleet_code_by_device ON fleet_code (device);

-- Every certificate ever made for a device. `code` is the code that it was enrolled with; a renewal keeps it.
-- `seen_at` is when the device last used it here.
CREATE TABLE fleet_certificate (
    serial      text PRIMARY KEY,
    device      text NOT NULL REFERENCES fleet_device ON DELETE CASCADE,
    code        text NOT NULL,
    key_sha256  bytea NOT NULL,
    pem         text NOT NULL,
    issued_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    not_before  timestamptz NOT NULL,
    not_after   timestamptz NOT NULL,
    seen_at     timestamptz,
    revoked_at  timestamptz
);
CREATE INDEX fleet_certificate_by_device ON fleet_certificate (device, issued_at DESC);

-- Where devices find this cloud, as `serve` was told.
CREATE TABLE fleet_address (
    only_one  boolean PRIMARY KEY DEFAULT true CHECK (only_one),
    api       text NOT NULL,
    broker    text NOT NULL
);
