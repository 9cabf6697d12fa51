-- Rollouts, orders and reports. The conductor alone moves open rollouts on; commands change their state.

-- name: members
-- Every device that belongs to the fleet: enrolled and not shut out, or heard at the broker; with its labels.
SELECT coalesce(f.device, d.device) AS device, coalesce(f.store, nullif(d.store, ''), '') AS store,
       ARRAY(SELECT label FROM fleet_label l WHERE l.device = coalesce(f.device, d.device) ORDER BY label) AS labels
FROM fleet_device f FULL JOIN device d ON d.device = f.device
WHERE f.revoked_at IS NULL
ORDER BY 1

-- name: add_label
INSERT INTO fleet_label (device, label) VALUES (%(device)s, %(label)s) ON CONFLICT DO NOTHING

-- name: drop_label
DELETE FROM fleet_label WHERE device = %(device)s AND label = %(label)s

-- name: add_rollout
INSERT INTO rollout (id, what, title, target, rules, reverts, state, made_by, made_at, changed_at)
VALUES (%(id)s, %(what)s, %(title)s, %(target)s::jsonb, %(rules)s::jsonb, %(reverts)s, 'running', %(who)s, %(now)s,
        %(now)s)

-- name: add_part
INSERT INTO rollout_part (rollout, device, store, batch, place)
VALUES (%(rollout)s, %(device)s, %(store)s, %(batch)s, %(place)s)

-- name: in_the_way
-- Open rollouts of the same kind that still have something to do on one of these devices.
SELECT DISTINCT r.id, r.state FROM rollout r JOIN rollout_part p ON p.rollout = r.id
WHERE r.what = %(what)s AND r.state IN ('running', 'paused', 'catching-up') AND p.device = ANY(%(devices)s)
  AND p.state IN ('waiting', 'ordered')
ORDER BY r.id

-- name: rollouts
-- Rollouts with the counts of their parts, the newest first.
SELECT r.*, (SELECT coalesce(jsonb_object_agg(c.state, c.n), '{}') FROM
             (SELECT p.state, count(*) AS n FROM rollout_part p WHERE p.rollout = r.id GROUP BY p.state) c) AS counts
FROM rollout r
WHERE (%(id)s::text IS NULL OR r.id = %(id)s)
ORDER BY r.made_at DESC, r.id LIMIT %(limit)s

-- name: rollout_for_change
-- Held until the end of the transaction: a command and the conductor do not pass each other by.
SELECT id, state, batch FROM rollout WHERE id = %(id)s FOR UPDATE

-- name: set_state
UPDATE rollout SET state = %(state)s, batch = %(batch)s, good_since = %(good_since)s, reason = %(reason)s,
                   changed_at = %(now)s
WHERE id = %(id)s

-- name: set_rules
UPDATE rollout SET rules = %(rules)s::jsonb, changed_at = %(now)s WHERE id = %(id)s

-- name: open
SELECT id FROM rollout WHERE state IN ('running', 'paused', 'catching-up') ORDER BY made_at, id

-- name: late_ends
-- Rollouts that are over still hear of their devices: a technician may go back days later.
SELECT DISTINCT p.rollout FROM rollout_part p JOIN rollout r ON r.id = p.rollout JOIN reported s USING (device)
WHERE r.state IN ('finished', 'aborted', 'replaced') AND p.revision IS NOT NULL
  AND s.received_at > greatest(r.changed_at, %(since)s)
  AND p.state IN ('ordered', 'done', 'failed', 'silent', 'dropped')

-- name: parts
-- The parts of a rollout, with what their devices said last and whether they are there. `stale_s` without a word is gone.
SELECT p.device, p.store, p.batch, p.place, p.state, p.revision, p.ordered_at, p.ended_at, p.update_state, p.progress,
       p.code, p.text, p.numbers, p.former, s.body AS reported,
       coalesce(d.state = 'online' AND d.seen_at > %(now)s - make_interval(secs => %(stale_s)s), false) AS online,
       EXISTS (SELECT FROM rollout_part o JOIN rollout t ON t.id = o.rollout
               WHERE o.device = p.device AND o.rollout <> p.rollout AND o.state = 'ordered'
                 AND t.state IN ('running', 'paused', 'catching-up')) AS busy,
       EXISTS (SELECT FROM fleet_device f WHERE f.device = p.device AND f.revoked_at IS NOT NULL) AS shut_out
FROM rollout_part p LEFT JOIN device d USING (device) LEFT JOIN reported s USING (device)
WHERE p.rollout = %(rollout)s
ORDER BY p.place

-- name: under_way_elsewhere
-- Shops in which another open rollout has a device under way.
SELECT DISTINCT p.device, p.store FROM rollout_part p JOIN rollout r ON r.id = p.rollout
WHERE p.state = 'ordered' AND r.state IN ('running', 'paused', 'catching-up') AND r.id <> %(rollout)s

-- name: set_part
UPDATE rollout_part SET state = %(state)s, revision = %(revision)s, ordered_at = %(ordered_at)s, ended_at = %(ended_at)s,
    update_state = %(update_state)s, progress = %(progress)s, code = %(code)s, text = %(text)s,
    numbers = %(numbers)s::jsonb, former = %(former)s::jsonb
WHERE rollout = %(rollout)s AND device = %(device)s

-- name: desired
SELECT revision, body FROM desired WHERE device = %(device)s FOR UPDATE

-- name: order
-- A new goal for a device. The revision passes every one that was ever given or reported, also after a backup came back.
INSERT INTO desired AS known (device, revision, body)
VALUES (%(device)s, 1 + coalesce((SELECT highest FROM reported WHERE device = %(device)s), 0), %(body)s::jsonb)
ON CONFLICT (device) DO UPDATE SET
    revision = 1 + greatest(known.revision, (SELECT highest FROM reported WHERE device = %(device)s)),
    body = excluded.body
RETURNING revision

-- name: outrun
-- Devices that have seen a higher revision than is kept here (a backup came back): they would act on nothing.
SELECT d.device FROM desired d JOIN reported s USING (device) WHERE s.highest > d.revision

-- name: raise
UPDATE desired d SET revision = s.highest + 1 FROM reported s
WHERE d.device = %(device)s AND s.device = d.device AND s.highest > d.revision RETURNING d.revision

-- name: raise_part
UPDATE rollout_part SET revision = %(revision)s WHERE device = %(device)s AND state = 'ordered'

-- name: desired_revisions
SELECT device, revision FROM desired ORDER BY device

-- name: desired_bodies
SELECT device, revision, body::text FROM desired WHERE device = ANY(%(devices)s)

-- name: drop_parts
-- Who has not had its turn when a rollout ends does not get one.
UPDATE rollout_part SET state = 'dropped', ended_at = %(now)s WHERE rollout = %(rollout)s AND state = 'waiting'

-- name: why
-- What a device takes part in, the newest first, and what it says.
SELECT r.id, r.what, r.title, r.state AS rollout_state, r.batch AS open_batch, r.reason, r.rules, r.made_at, p.*
FROM rollout_part p JOIN rollout r ON r.id = p.rollout
WHERE p.device = %(device)s ORDER BY r.made_at DESC LIMIT %(limit)s

-- name: device
SELECT m.device, m.store, m.state, m.seen_at, m.agent, m.status, s.body AS reported, s.received_at AS reported_at,
       g.revision, g.body AS desired,
       ARRAY(SELECT label FROM fleet_label l WHERE l.device = m.device ORDER BY label) AS labels
FROM (SELECT coalesce(f.device, d.device) AS device, coalesce(f.store, nullif(d.store, ''), '') AS store, d.state,
             d.seen_at, d.agent, d.status
      FROM fleet_device f FULL JOIN device d ON d.device = f.device
      WHERE f.revoked_at IS NULL) m
LEFT JOIN reported s ON s.device = m.device LEFT JOIN desired g ON g.device = m.device
WHERE %(device)s::text IS NULL OR m.device = %(device)s
ORDER BY m.store, m.device

-- name: steps
SELECT what, revision, state, code, attempt, rollout, text, numbers, received_at FROM reported_step
WHERE device = %(device)s ORDER BY id DESC LIMIT %(limit)s
