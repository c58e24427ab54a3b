"""Proxies: labelled data whose features the embedded target is aligned to."""

from orca_sweep.config.declaration import Declaration
from orca_sweep.proxies.catalogue import PROXIES
from orca_sweep.proxies.finding import (
    canonicalise_proxy,
    describe_proxy,
    explain_missing_proxy,
    find_local_path,
    find_proxy,
)
from orca_sweep.proxies.images import Scaling, Treatment, Views, apply_views, choose_proxy_scaling, draw_views
from orca_sweep.proxies.phrases import draw_samples
from orca_sweep.proxies.records import Features, Noise, Pooling, Proxy, ProxyData, Spans, Tagged

__all__ = [
    "PROXIES",
    "Declaration",
    "Features",
    "Noise",
    "Pooling",
    "Proxy",
    "ProxyData",
    "Scaling",
    "Spans",
    "Tagged",
    "Treatment",
    "Views",
    "apply_views",
    "canonicalise_proxy",
    "choose_proxy_scaling",
    "describe_proxy",
    "draw_samples",
    "draw_views",
    "explain_missing_proxy",
    "find_local_path",
    "find_proxy",
]
