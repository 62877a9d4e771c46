-- What wrk sends, and what it writes when it is done; `python -m load` gives it the file of bodies.
--
--     BODIES=FILE REQUEST_PATH=/embed wrk -t1 -c64 -d10s -s wrk.lua URL
--
-- FILE has a body of JSON in each line. All clients together send one after the other.

local requests, number = {}, 0

function init()
   local path = os.getenv("REQUEST_PATH")
   local headers = { ["content-type"] = "application/json" }
   for body in io.lines(os.getenv("BODIES")) do
      requests[#requests + 1] = wrk.format("POST", path, headers, body)
   end
end

function request()
   number = number % #requests + 1
   return requests[number]
end

function done(summary, latency)
   local failed = 0
   for _, errors in pairs(summary.errors) do failed = failed + errors end
   -- wrk counts microseconds.
   local written = '{"requests": %d, "seconds": %f, "failures": %d, "p50": %f, "p99": %f}\n'
   io.write(written:format(summary.requests, summary.duration / 1e6, failed,
      latency:percentile(50) / 1e3, latency:percentile(99) / 1e3))
end
