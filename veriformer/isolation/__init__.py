"""An implementation in a process of its own: the proxy that properties call, the worker it lives in, and the wire between them."""
