"""Starts the server of Ray's workers when the fork server of the commands imports this."""

import os

from tests.warm_workers import SOCKET_VARIABLE, serve_beside_this_process

serve_beside_this_process(os.environ[SOCKET_VARIABLE])
