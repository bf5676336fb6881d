"""A process of its own that comes with one code many times at once: otp_worker.py HOME USER CODE NOW.

It says `ready`, waits for a line, and prints how often it was let in, and what went wrong besides.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from support.authenticating import decide, make_context

from backend.auth import otp


async def come(authenticator: otp.Otp, user: str, code: str) -> None:
    decisions = await asyncio.gather(*(decide(authenticator, user, code) for _ in range(25)))
    print(sum(decision.allowed for decision in decisions), [each.detail for each in decisions if each.detail])
    await authenticator.close()


def main(home: str, user: str, code: str, now: float) -> None:
    otp.GUESSES = 1000
    context = make_context(Path(home))
    authenticator = otp.Otp(context, {"type": "otp"})
    authenticator.clock = lambda: now
    print("ready", flush=True)
    sys.stdin.readline()
    asyncio.run(come(authenticator, user, code))
    context.store.close()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], float(sys.argv[4]))
