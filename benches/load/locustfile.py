"""A client of the service, as locust runs it; `python -m load` gives it what it sends.

    BODIES=FILE REQUEST_PATH=/embed locust -f locustfile.py --headless --host URL -u 64 -r 64 -t 10s

FILE has a body of JSON in each line. Every client sends them one after the other, each from another
place on.
"""

import os
from itertools import count, cycle, islice
from pathlib import Path

from locust import FastHttpUser, task

BODIES = [line.encode() for line in Path(os.environ["BODIES"]).read_text().splitlines()]
PATH = os.environ["REQUEST_PATH"]
HEADERS = {"content-type": "application/json"}
numbers = count()


class Client(FastHttpUser):
    """Sends the next request as soon as the last one is answered."""

    def on_start(self) -> None:
        # Spread over all bodies, whatever their number.
        start = next(numbers) * 7919 % len(BODIES)
        self.bodies = cycle(islice(cycle(BODIES), start, start + len(BODIES)))

    @task
    def embed(self) -> None:
        self.client.post(PATH, data=next(self.bodies), headers=HEADERS)
