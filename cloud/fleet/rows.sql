-- name: add_device
-- A new device, or one that is added again: an earlier revocation ends with it.
INSERT INTO fleet_device (device, store) VALUES (%(device)s, %(store)s)
ON CONFLICT (device) DO UPDATE SET store = excluded.store, revoked_at = NULL;

-- name: device_standing
-- What is known of a device before it is added: whether it is revoked, and has a certificate that still counts.
SELECT d.revoked_at IS NOT NULL,
       EXISTS (SELECT FROM fleet_certificate c
               WHERE c.device = d.device AND c.revoked_at IS NULL AND c.not_after > %(now)s)
FROM fleet_device d WHERE d.device = %(device)s
FOR UPDATE;

-- name: drop_codes
-- Codes of a device that were not used count no longer once there is a newer one.
DELETE FROM fleet_code WHERE device = %(device)s AND used_at IS NULL;

-- name: add_code
INSERT INTO fleet_code (id, device, salt, server_key, device_sha256, created_at, expires_at)
VALUES (%(id)s, %(device)s, %(salt)s, %(server_key)s, %(device_sha256)s, %(now)s, %(expires_at)s)
ON CONFLICT (id) DO UPDATE SET
    device = excluded.device, salt = excluded.salt, server_key = excluded.server_key,
    device_sha256 = excluded.device_sha256, created_at = excluded.created_at, expires_at = excluded.expires_at,
    attempts = 0, used_at = NULL, key_sha256 = NULL
WHERE fleet_code.expires_at < %(now)s
RETURNING id;

-- name: code
SELECT c.id, c.device, d.store, c.salt, c.server_key, c.device_sha256, c.expires_at, c.attempts, c.used_at,
       c.key_sha256, d.revoked_at IS NOT NULL AS revoked
FROM fleet_code c JOIN fleet_device d USING (device)
WHERE c.id = %(id)s;

-- name: code_for_use
-- The same, held until the end of the transaction: a code is used by one device.
SELECT c.id, c.device, d.store, c.salt, c.server_key, c.device_sha256, c.expires_at, c.attempts, c.used_at,
       c.key_sha256, d.revoked_at IS NOT NULL AS revoked
FROM fleet_code c JOIN fleet_device d USING (device)
WHERE c.id = %(id)s
FOR UPDATE;

-- name: count_attempt
UPDATE fleet_code SET attempts = attempts + 1 WHERE id = %(id)s RETURNING attempts;

-- name: use_code
UPDATE fleet_code SET used_at = %(now)s, key_sha256 = %(key_sha256)s WHERE id = %(id)s;

-- name: add_certificate
INSERT INTO fleet_certificate (serial, device, code, key_sha256, pem, issued_at, not_before, not_after)
VALUES (%(serial)s, %(device)s, %(code)s, %(key_sha256)s, %(pem)s, %(now)s, %(not_before)s, %(not_after)s);

-- name: certificate_of_key
SELECT pem FROM fleet_certificate
WHERE device = %(device)s AND key_sha256 = %(key_sha256)s AND revoked_at IS NULL
ORDER BY issued_at DESC LIMIT 1;

-- name: peer
-- Whether a certificate may be used, and where its device stands.
SELECT c.device, d.store, c.code, c.not_after, c.seen_at, c.revoked_at IS NOT NULL OR d.revoked_at IS NOT NULL
FROM fleet_certificate c JOIN fleet_device d USING (device)
WHERE c.serial = %(serial)s;

-- name: saw
UPDATE fleet_certificate SET seen_at = %(now)s WHERE serial = %(serial)s;

-- name: supersede
-- Certificates of earlier enrolments end when the new one is used for the first time: the old board may be anywhere.
UPDATE fleet_certificate SET revoked_at = %(now)s
WHERE device = %(device)s AND code <> %(code)s AND revoked_at IS NULL
  AND issued_at < (SELECT issued_at FROM fleet_certificate WHERE serial = %(serial)s)
RETURNING serial;

-- name: revoke_device
UPDATE fleet_device SET revoked_at = coalesce(revoked_at, %(now)s) WHERE device = %(device)s RETURNING device;

-- name: revoke_certificates
UPDATE fleet_certificate SET revoked_at = %(now)s
WHERE device = %(device)s AND revoked_at IS NULL RETURNING serial;

-- name: kill_codes
DELETE FROM fleet_code WHERE device = %(device)s;

-- name: tell
SELECT pg_notify('shelfwire_fleet', %(what)s);

-- name: revoked_serials
-- For the list of the brokers; one that has run out needs no place on it.
SELECT serial FROM fleet_certificate
WHERE revoked_at IS NOT NULL AND not_after > %(now)s - interval '30 days'
ORDER BY revoked_at, serial;

-- name: revoked_since
-- Whose sessions have to be cut: a certificate of theirs was revoked.
SELECT device, max(revoked_at) FROM fleet_certificate WHERE revoked_at > %(since)s GROUP BY device ORDER BY device;

-- name: devices
SELECT d.device, d.store, d.added_at, d.revoked_at,
       (SELECT max(k.expires_at) FROM fleet_code k
        WHERE k.device = d.device AND k.used_at IS NULL AND k.expires_at > %(now)s AND k.attempts < %(most)s),
       c.serial, c.issued_at, c.not_after, c.seen_at, s.state, s.seen_at
FROM fleet_device d
LEFT JOIN LATERAL (SELECT serial, issued_at, not_after, seen_at FROM fleet_certificate f
                   WHERE f.device = d.device AND f.revoked_at IS NULL
                   ORDER BY f.issued_at DESC LIMIT 1) c ON true
LEFT JOIN device s ON s.device = d.device
WHERE %(device)s::text IS NULL OR d.device = %(device)s
ORDER BY d.device;

-- name: certificates
SELECT serial, issued_at, not_before, not_after, seen_at, revoked_at FROM fleet_certificate
WHERE device = %(device)s ORDER BY issued_at DESC LIMIT 20;

-- name: set_address
INSERT INTO fleet_address (api, broker) VALUES (%(api)s, %(broker)s)
ON CONFLICT (only_one) DO UPDATE SET api = excluded.api, broker = excluded.broker;

-- name: address
SELECT api, broker FROM fleet_address;
