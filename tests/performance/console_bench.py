"""How fast the console takes what a guest writes, beside stock pyte in the same run."""

from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from time import process_time

import pyte

from kc_tui.terminal.emulator import Emulator

COLUMNS, ROWS = 120, 40
_ROUNDS = 5
_PIECE = 4096
_OURS_BYTES, _STOCK_BYTES = 1_000_000, 50_000


@dataclass(frozen=True)
class Throughput:
    """Megabytes a second of CPU time for one kind of output; medians of rounds run in turns."""

    name: str
    ours: float
    stock: float

    @property
    def ratio(self) -> float:
        """How many times as fast as stock pyte."""
        return self.ours / self.stock


def plain_boot(size: int) -> bytes:
    """Return kernel and systemd lines without colour, `size` bytes of them."""
    return _lines(lambda number: f"[{number / 769:12.6f}] systemd[1]: Starting service {number} of the boot...", size)


def coloured_boot(size: int) -> bytes:
    """Return systemd's coloured lines."""
    return _lines(lambda number: f"[\x1b[0;32m  OK  \x1b[0m] Started \x1b[0;1;39msshd{number}\x1b[0m - Server.", size)


def unicode_boot(size: int) -> bytes:
    """Return lines with characters beyond ASCII."""
    return _lines(lambda number: f"  ● unit-{number}.service – läuft seit gestern …", size)


def _lines(line: Callable[[int], str], size: int) -> bytes:
    lines: list[bytes] = []
    length = 0
    while length < size:
        lines.append(line(len(lines)).encode() + b"\r\n")
        length += len(lines[-1])
    return b"".join(lines)


def _rate(feed: Callable[[bytes], None], data: bytes) -> float:
    """Return megabytes a second of CPU time for feeding `data` in pieces as a stream delivers them."""
    pieces = [data[start : start + _PIECE] for start in range(0, len(data), _PIECE)]
    started = process_time()
    for piece in pieces:
        feed(piece)
    return len(data) / 1e6 / (process_time() - started)


def measure_console() -> list[Throughput]:
    """Measure the emulator and stock pyte in turns on each kind of output; some 10 s."""
    measured = []
    for name, generate in (("plain", plain_boot), ("coloured", coloured_boot), ("unicode", unicode_boot)):
        ours, stock = [], []
        for _ in range(_ROUNDS):
            ours.append(_rate(Emulator(COLUMNS, ROWS).feed, generate(_OURS_BYTES)))
            stock.append(_rate(pyte.ByteStream(pyte.Screen(COLUMNS, ROWS)).feed, generate(_STOCK_BYTES)))
        measured.append(Throughput(name, median(ours), median(stock)))
    return measured


if __name__ == "__main__":
    print(f"{'console output':16}{'KC MB/s':>10}{'pyte MB/s':>12}{'ratio':>8}")
    for result in measure_console():
        print(f"{result.name:16}{result.ours:10.2f}{result.stock:12.2f}{result.ratio:8.1f}")
