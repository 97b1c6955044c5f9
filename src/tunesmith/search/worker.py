"""A process that works for a search: it speaks over standard input and output, and ends with who started it."""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
from collections.abc import Mapping
from typing import Any


def main() -> None:
    """Serve over standard input and output, and end as soon as the input is closed, in the midst of a step too."""
    speaking = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a package prints must not come between messages
    inbox: queue.Queue[Mapping[str, Any]] = queue.Queue()

    def listen() -> None:
        for line in sys.stdin:
            inbox.put(json.loads(line))
        os._exit(0)

    def send(message: Mapping[str, Any]) -> None:
        speaking.write(json.dumps(message) + "\n")
        speaking.flush()

    threading.Thread(target=listen, daemon=True).start()
    from tunesmith.core.threads import settle_threads  # after the thread, which hears an end while torch loads
    from tunesmith.search.serving import serve

    settle_threads()
    serve(inbox.get, send)


if __name__ == "__main__":
    main()
