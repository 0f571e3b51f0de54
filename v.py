import os,sys,asyncio
if sys.argv[1]=="before": os.environ["GRPC_VERBOSITY"]="ERROR"
import grpc, grpc.aio
if sys.argv[1]=="after": os.environ["GRPC_VERBOSITY"]="ERROR"
async def main():
    s=grpc.aio.server(); 
    async def h(r,c): await asyncio.sleep(100)
    s.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("a.B",{"C":grpc.unary_unary_rpc_method_handler(h)}),))
    p=s.add_insecure_port("127.0.0.1:0"); await s.start()
    ch=grpc.aio.insecure_channel(f"127.0.0.1:{p}")
    t=asyncio.ensure_future(ch.unary_unary("/a.B/C")(b""))
    await asyncio.sleep(0.2); await s.stop(0)
    try: await t
    except Exception as e: print(type(e))
asyncio.run(main())
