-- Whole clients' lives: each thread has one connection and goes through the requests of the file that
-- BENCH_REQUESTS names, all but the first of which name the session that the first was given. Prints what came of it.

local ffi = require("ffi")
ffi.cdef [[
   typedef struct { long seconds; long nanoseconds; } bench_time;
   int clock_gettime(int clock, bench_time *time);
]]
local MONOTONIC = 1
local moment = ffi.new("bench_time")

local threads = {}
local steps
local step = 1
local session
local started

-- Read by done() from the threads.
flows = 0
flow_microseconds = 0
wrong = 0

local function now()
   ffi.C.clock_gettime(MONOTONIC, moment)
   return tonumber(moment.seconds) * 1e6 + tonumber(moment.nanoseconds) / 1e3
end

function setup(thread)
   table.insert(threads, thread)
end

function init()
   steps = dofile(os.getenv("BENCH_REQUESTS"))
end

function request()
   local each = steps[step]
   each.headers["Mcp-Session-Id"] = session
   if step == 1 then
      started = now()
   end
   return wrk.format(each.method, nil, each.headers, each.body)
end

function response(status, headers, body)
   local each = steps[step]
   if not each.accept[status] or not body:find(each.expect, 1, true) then
      wrong = wrong + 1
      step, session = 1, nil
      return
   end
   if step == 1 then
      for name, value in pairs(headers) do
         if name:lower() == "mcp-session-id" then
            session = value
         end
      end
   end
   step = step + 1
   if step > #steps then
      flows = flows + 1
      flow_microseconds = flow_microseconds + now() - started
      step, session = 1, nil
   end
end

function done(summary, latency, requests)
   local errors = summary.errors
   local all, microseconds, refused = 0, 0, 0
   for _, thread in ipairs(threads) do
      all = all + thread:get("flows")
      microseconds = microseconds + thread:get("flow_microseconds")
      refused = refused + thread:get("wrong")
   end
   io.write(string.format(
      "bench requests=%d microseconds=%d bytes=%d refused=%d broken=%d p50=%d p99=%d flows=%d flow_microseconds=%d\n",
      summary.requests, summary.duration, summary.bytes, refused,
      errors.connect + errors.read + errors.write + errors.timeout,
      latency:percentile(50), latency:percentile(99), all, microseconds))
end
