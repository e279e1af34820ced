"""On PYTHONPATH while chapters run under pytest: no connection leaves this machine.

Python imports a module of this name at start. Only Python's own sockets are watched;
Jupyter's kernels speak ZeroMQ, over loopback.
"""

import ipaddress
import socket

_connect, _connect_ex = socket.socket.connect, socket.socket.connect_ex
_sendto, _getaddrinfo = socket.socket.sendto, socket.getaddrinfo


def _require_loopback(host) -> None:
    try:
        local = ipaddress.ip_address(host).is_loopback
    except ValueError:
        local = host in ("localhost", "", None)
    if not local:
        raise OSError(f"a chapter wants {host!r}, but chapters need no network")


def _guard(original):
    def guarded(self, *args):
        address = args[-1]
        if self.family in (socket.AF_INET, socket.AF_INET6):
            _require_loopback(address[0])
        return original(self, *args)

    return guarded


def _guarded_getaddrinfo(host, *args, **kwargs):
    _require_loopback(host.decode() if isinstance(host, bytes) else host)
    return _getaddrinfo(host, *args, **kwargs)


socket.socket.connect = _guard(_connect)
socket.socket.connect_ex = _guard(_connect_ex)
socket.socket.sendto = _guard(_sendto)
socket.getaddrinfo = _guarded_getaddrinfo
