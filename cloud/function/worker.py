"""A worker of the local host: AWS's own runtime client, in a process that does not outlive the host.

`python -m cloud.function.worker MODULE.FUNCTION` asks the Runtime API at $AWS_LAMBDA_RUNTIME_API for calls.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # prctl(2)


def die_with_parent() -> None:
    """Let the kernel kill this process when the host ends, however that ends."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != int(os.environ.get("SHELFWIRE_HOST_PID", os.getppid())):  # it ended before this call
        os._exit(1)


if __name__ == "__main__":
    die_with_parent()
    # After the line above: the import takes time in which the host may end.
    from awslambdaric.__main__ import main  # type: ignore[import-untyped]

    main(sys.argv)
