import asyncio, sys, gc, time, uvloop, os
sys.argv_=sys.argv
mode=sys.argv[1]
ballast=[{"a":i,"b":[i]} for i in range(400_000)]   # a price list
if mode!="none": gc.collect(); gc.freeze()
if mode=="thr": gc.set_threshold(10_000,10,10)
exec(open('/tmp/cw/smoke.py').read().split("async def main")[0])
async def main():
    server = Server("127.0.0.1:0", Serving())
    g.add_RateGuardServiceServicer_to_server(Svc(), server)
    await server.start()
    lat=[]
    async with channel(f"127.0.0.1:{server.port}") as ch, StreamClient(ch, "callwarden.api.rateguard.v1.RateGuardService") as c:
        async def worker(n):
            for _ in range(n):
                t=time.perf_counter(); await c.call("Count", pb.CountRequest(edge="e1"), pb.CountReply, timeout_s=1); lat.append(time.perf_counter()-t)
        await asyncio.gather(*(worker(50) for _ in range(64))); lat.clear()
        cpu=time.process_time(); await asyncio.gather(*(worker(1500) for _ in range(64)))
        lat.sort(); n=len(lat)
        print(mode, f"{(time.process_time()-cpu)/n*1e6:.2f} us cpu, p50 {lat[n//2]*1e3:.2f} p99 {lat[n*99//100]*1e3:.2f} max {lat[-1]*1e3:.1f} ms", gc.get_stats()[2]["collections"])
    await server.drain(0)
uvloop.run(main())
