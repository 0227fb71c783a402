"""What Redis does in one step: a click."""

# KEYS: the event's id, the counter, the log, what the user liked, what the user disliked, the
# counts of items, the places of the user's events in the log, what was counted of the list.
# ARGV: id, user, item, type, time, list, position; "1" liked, "0" disliked or "" neither; the most
# of a history; for how many seconds an id and a list are remembered.
ADD_EVENT = """
if not redis.call('SET', KEYS[1], '1', 'NX', 'EX', ARGV[10]) then return 0 end
local sequence = redis.call('INCR', KEYS[2])
redis.call('XADD', KEYS[3], sequence .. '-0', 'id', ARGV[1], 'user', ARGV[2], 'item', ARGV[3],
  'type', ARGV[4], 'time', ARGV[5], 'list', ARGV[6], 'position', ARGV[7])
redis.call('RPUSH', KEYS[7], sequence)
if ARGV[8] == '' then return 1 end
local this, other = KEYS[4], KEYS[5]
if ARGV[8] == '0' then this, other = KEYS[5], KEYS[4] end
local before = redis.call('ZSCORE', other, ARGV[3])
if not (before and tonumber(before) > tonumber(ARGV[5])) then
  redis.call('ZREM', other, ARGV[3])
  redis.call('ZADD', this, 'GT', ARGV[5], ARGV[3])
  redis.call('ZREMRANGEBYRANK', this, 0, -(tonumber(ARGV[9]) + 1))
end
if ARGV[8] == '1' then
  local counts = true
  if ARGV[6] ~= '' then
    counts = redis.call('SADD', KEYS[8], ARGV[3]) == 1
    redis.call('EXPIRE', KEYS[8], ARGV[10])
  end
  if counts then redis.call('ZINCRBY', KEYS[6], -1, ARGV[3]) end
end
return 1
"""
