"""Macaroons: the same as another implementation's, one text each, and nothing that was put on comes off."""

from __future__ import annotations

import base64
import random
import time

import pymacaroons
import pytest

from backend.auth import macaroon
from backend.auth.macaroon import Macaroon, attenuate, decode, encode, is_genuine, mint
from backend.errors import RefusedError

KEY = bytes(range(32))
IDENTIFIER = b"0d9a7a4e-7d1f-4c5d-8f4e-9d6b0c4f1a2b"
CAVEATS = (b'["actions",["vm.start"]]', '["selector","name=\u00fc"]'.encode(), b"x" * 300)


def text_of(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def data_of(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def verifies(theirs: pymacaroons.Macaroon, key: bytes) -> bool:
    verifier = pymacaroons.Verifier()
    verifier.satisfy_general(lambda _: True)
    try:
        return bool(verifier.verify(theirs, key))
    except pymacaroons.exceptions.MacaroonInvalidSignatureException:
        return False


def test_another_implementation_verifies_ours() -> None:
    ours = attenuate(mint(KEY, IDENTIFIER), CAVEATS)
    theirs = pymacaroons.Macaroon.deserialize(encode(ours))
    assert theirs.identifier_bytes == IDENTIFIER
    assert [caveat.caveat_id_bytes for caveat in theirs.caveats] == list(CAVEATS)
    assert theirs.signature == ours.signature.hex()
    assert verifies(theirs, KEY)
    assert not verifies(theirs, KEY[::-1])


def test_we_verify_what_another_implementation_mints_and_narrows() -> None:
    theirs = pymacaroons.Macaroon(identifier=IDENTIFIER.decode(), key=KEY, version=pymacaroons.MACAROON_V2)
    theirs.add_first_party_caveat(CAVEATS[0].decode())
    found = decode(theirs.serialize())
    assert found is not None
    assert (found.identifier, found.caveats) == (IDENTIFIER, CAVEATS[:1])
    assert is_genuine(found, KEY)
    assert not is_genuine(found, bytes(32))
    narrowed = pymacaroons.Macaroon.deserialize(encode(attenuate(mint(KEY, IDENTIFIER), CAVEATS[:1])))
    narrowed.add_first_party_caveat(CAVEATS[1].decode())
    again = decode(narrowed.serialize())
    assert again is not None
    assert again == attenuate(found, CAVEATS[1:2])
    assert is_genuine(again, KEY)


def test_a_caveat_does_not_come_off_nor_change_places() -> None:
    whole = attenuate(mint(KEY, IDENTIFIER), CAVEATS)
    assert is_genuine(whole, KEY)
    for caveats in (CAVEATS[:2], CAVEATS[1:], CAVEATS[::-1], (), (*CAVEATS, b"more"), (b"".join(CAVEATS),)):
        assert not is_genuine(whole._replace(caveats=caveats), KEY)
    earlier = attenuate(mint(KEY, IDENTIFIER), CAVEATS[:1])
    assert not is_genuine(earlier._replace(signature=whole.signature), KEY)
    assert not is_genuine(whole._replace(identifier=b"another"), KEY)
    assert not is_genuine(Macaroon(IDENTIFIER, (), whole.signature), KEY)


def test_three_thousand_mutations_are_refused_or_mean_the_same() -> None:
    chance = random.Random(20261123)
    whole = attenuate(mint(KEY, IDENTIFIER), CAVEATS[:2])
    text = encode(whole)
    accepted = 0
    for _ in range(3000):
        data = bytearray(data_of(text))
        letters = list(text)
        how = chance.randrange(5)
        at = chance.randrange(len(data))
        if how == 0:
            data[at] ^= 1 << chance.randrange(8)
        elif how == 1:
            del data[at : at + chance.randrange(1, 40)]
        elif how == 2:
            data[at:at] = chance.randbytes(chance.randrange(1, 40))
        elif how == 3:
            start = chance.randrange(len(data))
            data[at : at + 20] = data[start : start + 20]
        if how == 4:
            letters[chance.randrange(len(letters))] = chance.choice("ABab09-_+/=. \n")
            mutated = "".join(letters)
        else:
            mutated = text_of(bytes(data))
        found = decode(mutated)
        if found is not None and is_genuine(found, KEY):
            accepted += 1
            assert mutated == text
    # Some mutations change nothing (a letter by itself); most do.
    assert accepted < 300


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data[:1] + b"\1\3loc" + data[1:],
        lambda data: data[:1] + b"\1\0\1\0" + data[1:],
        lambda data: b"\1" + data[1:],
        lambda data: data + b"\0",
        lambda data: data[:-1],
        lambda data: data[:1] + b"\2\xa4\x00" + data[3:],
        lambda data: data[:1] + b"\2" + b"\xff" * 3000,
        lambda data: data.replace(b'"]]\0', b'"]]\4\3vid\0'),
        lambda _: b"",
    ],
    ids=["location", "two-empty-locations", "version", "longer", "shorter", "long-varint", "endless-varint",
         "third-party", "empty"],
)  # fmt: skip
def test_what_is_written_in_another_way_is_none(change: object) -> None:
    data = data_of(encode(attenuate(mint(KEY, IDENTIFIER), CAVEATS[:1])))
    assert decode(text_of(data)) is not None
    changed = change(data)
    assert changed != data
    assert decode(text_of(changed)) is None


def test_a_text_has_one_form() -> None:
    text = encode(attenuate(mint(KEY, IDENTIFIER), [b"1234"]))
    # The last letter has bits that mean nothing.
    assert len(text) % 4
    last = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_".index(text[-1])
    twin = text[:-1] + "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"[last ^ 1]
    assert data_of(twin) == data_of(text)
    for other in (twin, text + "=", text + "\n", " " + text, text.replace("A", "A\n", 1), text[:5] + "+" + text[5:]):
        assert decode(other) is None
    assert decode(text) is not None


def test_bombs_cost_nothing() -> None:
    many = attenuate(mint(KEY, IDENTIFIER), [b"x"] * (macaroon.MAXIMUM_CAVEATS + 1))
    with pytest.raises(RefusedError, match="32 caveats"):
        encode(many)
    with pytest.raises(RefusedError, match="4096 characters"):
        encode(attenuate(mint(KEY, IDENTIFIER), [b"x" * 4000]))
    body = b"\2\2\x24" + IDENTIFIER + b"\0"
    end = b"\0\6\x20" + bytes(32)
    for bomb in (
        "A" * 100_000, "A" * 4096, text_of(body + b"\2\1x\0" * 33 + end), text_of(body + b"\2\0\0" * 900 + end),
        text_of(body + b"\2\xff\x17" + b"x" * 3000), text_of(b"\2\2" + b"\xff" * 3000),
    ):  # fmt: skip
        began = time.perf_counter()
        assert decode(bomb) is None
        assert time.perf_counter() - began < 0.005
    assert decode(text_of(body + b"\2\1x\0" * 32 + end)) is not None


def test_the_signature_is_not_in_what_a_crash_would_show() -> None:
    made = mint(KEY, IDENTIFIER)
    assert made.signature.hex() not in repr(made)
    assert repr(made.signature) not in repr(made)
