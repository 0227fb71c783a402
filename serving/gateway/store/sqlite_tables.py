"""The tables of a SQLite store."""

FORMAT = 1

TABLES = """
CREATE TABLE IF NOT EXISTS event (
  sequence INTEGER PRIMARY KEY AUTOINCREMENT,
  id TEXT NOT NULL UNIQUE,
  user TEXT NOT NULL,
  item TEXT NOT NULL,
  type TEXT NOT NULL,
  time INTEGER NOT NULL,
  list TEXT NOT NULL,
  position INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS event_user ON event (user);
CREATE INDEX IF NOT EXISTS event_list ON event (list, item) WHERE list <> '';
CREATE TABLE IF NOT EXISTS history (
  user TEXT NOT NULL,
  item TEXT NOT NULL,
  time INTEGER NOT NULL,
  liked INTEGER NOT NULL,
  PRIMARY KEY (user, item)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS history_time ON history (user, liked, time, item);
CREATE TABLE IF NOT EXISTS list (
  sequence INTEGER PRIMARY KEY AUTOINCREMENT,
  id TEXT NOT NULL UNIQUE,
  user TEXT NOT NULL,
  time INTEGER NOT NULL,
  answered INTEGER NOT NULL,
  content BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS list_user ON list (user, sequence);
CREATE INDEX IF NOT EXISTS list_time ON list (time);
CREATE TABLE IF NOT EXISTS shown (
  list TEXT NOT NULL,
  position INTEGER NOT NULL,
  item TEXT NOT NULL,
  slot TEXT NOT NULL,
  propensity REAL,
  PRIMARY KEY (list, position)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS item_count (
  item TEXT PRIMARY KEY,
  met INTEGER NOT NULL DEFAULT 0,
  shown INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS item_met ON item_count (met DESC, item);
CREATE TABLE IF NOT EXISTS item (
  id TEXT PRIMARY KEY,
  state TEXT NOT NULL,
  withdrawn INTEGER NOT NULL,
  content BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS item_withdrawn ON item (id) WHERE withdrawn = 1;
CREATE INDEX IF NOT EXISTS item_state ON item (state, id);
CREATE TABLE IF NOT EXISTS media (
  item TEXT NOT NULL,
  kind TEXT NOT NULL,
  place INTEGER NOT NULL,
  data BLOB NOT NULL,
  PRIMARY KEY (item, kind, place)
);
CREATE TABLE IF NOT EXISTS embedding (
  item TEXT NOT NULL,
  version INTEGER NOT NULL,
  content BLOB NOT NULL,
  PRIMARY KEY (item, version)
);
CREATE TABLE IF NOT EXISTS erased (
  user TEXT PRIMARY KEY,
  time INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS meta (
  name TEXT PRIMARY KEY,
  value TEXT NOT NULL
);
"""

# Counted once a list and item, however often it was clicked there.
COUNT = """
INSERT INTO item_count (item, met) SELECT :item, 1
WHERE :list = '' OR NOT EXISTS (
  SELECT 1 FROM event
  WHERE list = :list AND list <> '' AND item = :item AND sequence < :sequence
    AND type IN ('view', 'click', 'play', 'like', 'buy')
)
ON CONFLICT (item) DO UPDATE SET met = met + 1
"""
REMEMBER = """
INSERT INTO history (user, item, time, liked) VALUES (:user, :item, :time, :liked)
ON CONFLICT (user, item) DO UPDATE SET time = excluded.time, liked = excluded.liked
WHERE excluded.time >= time
"""
TRIM = """
DELETE FROM history WHERE user = :user AND liked = :liked AND item IN (
  SELECT item FROM history WHERE user = :user AND liked = :liked
  ORDER BY time DESC, item DESC LIMIT -1 OFFSET :most
)
"""
