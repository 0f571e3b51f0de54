"""gRPC between our processes: server, channels, interceptors, and the coalescing stream for the hot methods.

`status` maps error kinds to status codes and back, `interceptors` keep exception texts inside the process, `stream`
packs many requests into one message.
"""
