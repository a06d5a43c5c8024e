# Counts of an audit log, in the form of `broker report --json`. Only a part: jq would need more than a line
# for tokens, sets of scopes and the caller of a call.
#
#     jq --null-input --from-file report.jq LOG

def by($key; $word): if $word then .[$key][$word] += 1 else . end;

# The most of the sorted times within 60 s.
def most_in_a_minute:
  . as $times
  | reduce range(0; length) as $last ({first: 0, most: 0};
      until($times[.first] + 60000 > $times[$last]; .first += 1)
      | .most = ([.most, $last - .first + 1] | max))
  | .most;

reduce inputs as $line (
  {
    requests: {total: 0, ok: 0, denied: 0, failed: 0, by_route: {}, by_reason: {}},
    cache: {hit: 0, collapsed: 0, miss: 0, stale: 0},
    calls: {total: 0, ok: 0, failed: 0, by_application: {}, by_credential: {}, by_reason: {}, longest_ms: null},
    callers: {},
    times: []
  };
  if $line.credential then
    .calls |= (.total += 1 | .[$line.outcome] += 1
      | .by_application[$line.application] += 1
      | .by_credential[$line.credential] += 1
      | by("by_reason"; $line.reason)
      | if .longest_ms < $line.upstream_ms then .longest_ms = $line.upstream_ms else . end)
    # The host did not send such a call.
    | if $line.reason != "outbound_denied" then .times += [$line.time_ms] else . end
  else
    .requests |= (.total += 1 | .[$line.outcome] += 1
      | .by_route[$line.route] += 1
      | by("by_reason"; $line.reason))
    | if $line.cache then .cache[$line.cache] += 1 else . end
    | .callers[$line.caller] |= ((. // {requests: 0, ok: 0, denied: 0, failed: 0, by_reason: {}})
      | .requests += 1 | .[$line.outcome] += 1
      | by("by_reason"; $line.reason))
  end
)
| .calls.busiest_minute = (.times | sort | most_in_a_minute)
| del(.times)
