"""Walks the machine code of a kernel as one thread would: which instructions it executes, in order.

Integers are computed as far as branches depend on them; what depends on elements is unknown. A
branch on that is taken where it skips reading, which only a NaN makes necessary; else it is not: in
a warp, some threads do what others skip. Functions, which divisions call for rare numbers, are not
followed. Enough of sm_90 for the kernels of `rows.cu`.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

Word = int | None  # 32 bits, or unknown
_MASK = 0xFFFFFFFF
_LINE = re.compile(r"/\*([0-9a-f]{4,})\*/\s+(?:@(!?)(U?P\w+)\s+)?([A-Z][\w.]*)\s*(.*?)\s*;")
_COMPARE: dict[str, Callable[[int, int], bool]] = {
    "EQ": operator.eq,
    "NE": operator.ne,
    "LT": operator.lt,
    "LE": operator.le,
    "GT": operator.gt,
    "GE": operator.ge,
}


class Instruction(NamedTuple):
    """One line of `nvdisasm -c`; `predicate` is "" where it is always executed."""

    negated: bool
    predicate: str
    name: str
    operands: tuple[str, ...]


class Code:
    """The instructions of a kernel, and the places of its labels."""

    def __init__(self, text: str) -> None:
        self.lines: list[Instruction] = []
        self.labels: dict[str, int] = {}
        for line in text.splitlines():
            if label := re.match(r"(\.L_\w+):", line):
                self.labels[label[1]] = len(self.lines)
            elif found := _LINE.search(line):
                _, negated, predicate, name, rest = found.groups()
                operands = tuple(part.strip() for part in rest.split(",")) if rest else ()
                self.lines.append(Instruction(bool(negated), predicate or "", name, operands))


class Thread:
    """A thread and what it knows.

    Args:
        code: the kernel.
        constants: bank 0: the sizes of blocks, and the arguments.
        block, thread: which one it is.
    """

    def __init__(self, code: Code, constants: bytes, block: int, thread: int) -> None:
        self._code, self._constants = code, constants
        self._places = {"SR_CTAID.X": block, "SR_TID.X": thread}
        self._words: dict[str, Word] = {"RZ": 0, "URZ": 0, "SRZ": 0}
        self._flags: dict[str, bool | None] = {"PT": True, "UPT": True}

    def walk(self) -> Iterator[tuple[Instruction, bool]]:
        """Every instruction, and whether it is executed or only takes its turn."""
        at = 0
        while True:
            line = self._code.lines[at]
            is_on = self._flag(("!" if line.negated else "") + line.predicate)
            if line.name.startswith("BRA") and len(line.operands) == 2:
                is_on = _both(is_on, self._flag(line.operands[0]))
            at += 1
            kind = line.name.partition(".")[0]
            if kind in ("BRA", "EXIT"):
                yield line, True
                if is_on is None and kind == "BRA":
                    is_on = self._reads_between(at, line)
                if is_on is not False and kind == "EXIT":
                    return
                if is_on and kind == "BRA":
                    at = self._code.labels[line.operands[-1].strip("`()")]
                continue
            yield line, is_on is not False
            if is_on is not False:
                self._execute(line, is_sure=is_on is True)

    def _reads_between(self, at: int, branch: Instruction) -> bool:
        skipped = self._code.lines[at : self._code.labels[branch.operands[-1].strip("`()")]]
        return any(line.name.startswith("LDG") for line in skipped)

    def _execute(self, line: Instruction, is_sure: bool) -> None:
        kind, *ways = line.name.split(".")
        kind = kind[1:] if kind.startswith("U") else kind
        if kind in ("STG", "BSSY", "BSYNC", "CALL", "NOP") or not line.operands:
            return
        if kind in ("ISETP", "FSETP", "DSETP", "PLOP3"):
            self._flags[line.operands[0]] = self._compared(kind, ways, line) if is_sure else None
            return
        target = line.operands[0]
        if kind == "LOP3" and re.fullmatch(r"U?P\d", target):
            word = (
                self._computed(kind, ways, line._replace(operands=line.operands[1:]))
                if is_sure
                else None
            )
            self._flags[target] = None if word is None else word & _MASK != 0
            return
        carries = [each for each in line.operands[1:3] if re.fullmatch(r"U?P\d", each)]
        for each in carries if kind in ("IADD3", "LEA") else ():
            self._flags[each] = None
        value = self._computed(kind, ways, line) if is_sure else None
        self._words[target] = None if value is None else value & _MASK
        if {"64", "128", "WIDE"} & set(ways) or kind == "CS2R":
            high = None if value is None else value >> 32 & _MASK
            for number in range(1, 4 if "128" in ways else 2):
                self._words[_after(target, number)] = high
        elif kind[0] == "D" or (ways[:1] == ["F64"] and kind != "F2I"):  # not those from float64
            self._words[_after(target, 1)] = None

    def _computed(self, kind: str, ways: list[str], line: Instruction) -> Word:
        """What an integer instruction gives; None for others."""
        given = [self._word(each, signed="U32" not in ways) for each in line.operands[1:]]
        if kind in ("LDC", "MOV", "CS2R", "R2UR"):
            return (
                self._constant(line.operands[1], 8 if "64" in ways else 4)
                if kind == "LDC"
                else given[0]
            )
        if kind in ("S2R", "S2UR"):
            return self._places.get(line.operands[1])
        if kind == "P2R":
            flags = [self._flags.get(f"P{number}") for number in range(7)]
            mask = int(line.operands[3], 16)
            if any(flag is None and mask >> number & 1 for number, flag in enumerate(flags)):
                return None
            return sum(bool(flag) << number for number, flag in enumerate(flags)) & mask
        if kind == "SEL":
            flag = self._flag(line.operands[3])
            return None if flag is None else given[0 if flag else 1]
        values = [each for each in given if each is not None]
        numbers = 3 if kind in ("IMAD", "IADD3", "LOP3", "SHF", "VIADDMNMX") else 2
        if len(values) < numbers or any(each is None for each in given[:numbers]):
            return None
        a, b, *rest = values
        if kind == "IMAD" and not {"X", "HI", "WIDE"} & set(ways):
            return a * b + rest[0]
        if kind == "IMAD" and "HI" in ways:
            low = self._word(line.operands[3], signed=False)
            high = self._word(_after(line.operands[3], 1), signed=False)
            a, b = a & _MASK, b & _MASK
            return None if low is None or high is None else a * b + (high << 32 | low) >> 32
        if kind == "IADD3" and "X" not in ways:
            return a + b + rest[0]
        if kind == "VIADD":
            return a + b
        if kind == "VIMNMX":
            return min(a, b) if line.operands[3] == "PT" else max(a, b)
        if kind == "VIADDMNMX":
            return min(a + b, rest[0]) if line.operands[4] == "PT" else max(a + b, rest[0])
        if kind == "SHF":
            return self._shifted(ways, a, b, rest[0])
        if kind == "LOP3":
            return _by_table(a, b, rest[0], int(line.operands[4], 16))
        if kind == "LEA" and not {"HI", "X"} & set(ways):
            return (a << int(line.operands[3], 16)) + b
        if kind == "LEA" and "HI" in ways and "X" not in ways:
            return ((a & _MASK) >> 32 - int(line.operands[4], 16)) + b
        return None

    @staticmethod
    def _shifted(ways: list[str], low: int, by: int, high: int) -> Word:
        if "U64" in ways or by > 31 or by < 0:
            return None
        if "L" in ways:
            return low << by if "HI" not in ways else None
        return (high if "S32" in ways else high & _MASK) >> by if "HI" in ways else low >> by

    def _compared(self, kind: str, ways: list[str], line: Instruction) -> bool | None:
        if kind == "PLOP3":
            flags = [self._flag(each) for each in line.operands[2:5]]
            if any(each is None for each in flags):
                return None
            a, b, c = map(int, map(bool, flags))
            return bool(int(line.operands[5], 16) >> (a * 4 + b * 2 + c) & 1)
        also = self._flag(line.operands[4])
        a, b = (self._word(each, signed="U32" not in ways) for each in line.operands[2:4])
        result = None
        if kind == "ISETP" and a is not None and b is not None:
            result = _COMPARE[ways[0]](a, b)
            if "EX" in ways and a == b:
                result = self._flag(line.operands[5])
        if "AND" in ways:
            return _both(also, result)
        neither = _both(_not(also), _not(result))
        return _not(neither)

    def _constant(self, operand: str, size: int) -> Word:
        place = re.fullmatch(r"c\[0x0\]\[(0x[0-9a-f]+)\]", operand)
        return place and int.from_bytes(self._constants[int(place[1], 16) :][:size], "little")

    def _word(self, operand: str, signed: bool) -> Word:
        bare = operand.removesuffix(".reuse")
        sign = bare[:1] if bare[:1] in "-~" else ""
        bare = bare[len(sign) :]
        if bare.startswith("0x"):
            value: Word = int(bare, 16)
        else:
            value = self._words.get(bare) if bare[:1] in "RUS" else self._constant(bare, 4)
        if value is None:
            return None
        value = {"-": -value, "~": ~value, "": value}[sign] & _MASK
        return value - (value >> 31 << 32) if signed else value

    def _flag(self, name: str) -> bool | None:
        bare = name.lstrip("!")
        value = self._flags.get(bare) if bare else True
        return _not(value) if name.startswith("!") else value


def _not(flag: bool | None) -> bool | None:
    return None if flag is None else not flag


def _both(one: bool | None, other: bool | None) -> bool | None:
    """Whether both are true; what is unknown may not matter."""
    if one is False or other is False:
        return False
    return None if one is None or other is None else True


def _after(register: str, number: int) -> str:
    bare = register.removesuffix(".reuse")
    return re.sub(r"\d+$", lambda digits: str(int(digits[0]) + number), bare)


def _by_table(a: int, b: int, c: int, table: int) -> int:
    result = 0
    for row in range(8):
        if table >> row & 1:
            result |= (a if row & 4 else ~a) & (b if row & 2 else ~b) & (c if row & 1 else ~c)
    return result
