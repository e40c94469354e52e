-- Sends the requests of the file that BENCH_REQUESTS names, one after the other, each time with another id; prints
-- what came of it.

local FIRST_ID = "1000000001"

local prepared = {}
local at = 0
local id = tonumber(FIRST_ID)

function init()
   for number, each in ipairs(dofile(os.getenv("BENCH_REQUESTS"))) do
      local whole = wrk.format(each.method, nil, each.headers, each.body)
      local first, last = whole:find(FIRST_ID, 1, true)
      prepared[number] = { whole:sub(1, first - 1), whole:sub(last + 1) }
   end
end

function request()
   at = at % #prepared + 1
   id = id + 1
   local each = prepared[at]
   -- Ids keep their length, so that the length of the body stays what its header says.
   return each[1] .. string.format("%d", id) .. each[2]
end

function done(summary, latency, requests)
   local errors = summary.errors
   io.write(string.format(
      "bench requests=%d microseconds=%d bytes=%d refused=%d broken=%d p50=%d p99=%d\n",
      summary.requests, summary.duration, summary.bytes, errors.status,
      errors.connect + errors.read + errors.write + errors.timeout,
      latency:percentile(50), latency:percentile(99)))
end
