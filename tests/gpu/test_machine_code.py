"""The walk through machine code goes round loops as often as the arguments say."""

from __future__ import annotations

import struct
import sys
from collections import Counter
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))
from machine_code import Code, Thread

# As nvdisasm writes: an index, a division by multiplication, a loop, a branch on an element; a
# conversion that leaves the next register alone.
TEXT = """
.text.kernel:
        /*0000*/                   S2R R2, SR_CTAID.X ;
        /*0010*/                   ULDC UR4, c[0x0][0x0] ;
        /*0020*/                   S2R R3, SR_TID.X ;
        /*0030*/                   IMAD R3, R2, UR4, R3 ;
        /*0040*/                   ISETP.GE.AND P0, PT, R3, c[0x0][0x10], PT ;
        /*0050*/               @P0 EXIT ;
        /*0060*/                   IMAD.MOV.U32 R2, RZ, RZ, RZ ;
        /*0070*/                   ULDC.64 UR4, c[0x0][0x18] ;
        /*0080*/                   IMAD.HI.U32 R2, R3, UR4, R2 ;
        /*0090*/                   SHF.R.U32.HI R5, RZ, UR5, R2 ;
        /*00a0*/                   LOP3.LUT P2, RZ, R5, 0x1, RZ, 0xc0, !PT ;
        /*00a8*/                   F2F.F16.F64 R4, R10 ;
        /*00b0*/                   LDG.E R7, desc[UR6][R8.64] ;
        /*00c0*/                   FSETP.GT.AND P1, PT, R7, RZ, PT ;
        /*00d0*/              @!P1 BRA `(.L_x_1) ;
        /*00e0*/                   DADD R10, R10, R12 ;
.L_x_1:
        /*00f0*/                   VIADD R5, R5, 0xffffffff ;
        /*0100*/               @P2 LDG.E R7, desc[UR6][R8.64] ;
        /*0110*/                   ISETP.GT.AND P0, PT, R5, RZ, PT ;
        /*0120*/               @P0 BRA `(.L_x_1) ;
        /*0130*/                   EXIT ;
"""


def walked(block, thread, threads=1000):
    """How often each instruction is executed; n / 100 turns of the loop."""
    constants = struct.pack("<8I", 256, 0, 0, 0, threads, 0, 1202590843, 7)
    walk = Thread(Code(TEXT), constants, block, thread).walk()
    return Counter(line.name.partition(".")[0] for line, is_on in walk if is_on)


@pytest.mark.parametrize(
    ("block", "thread", "turns"), [(0, 99, 1), (0, 105, 1), (0, 205, 2), (2, 188, 7)]
)
def test_loops(block, thread, turns):
    counts = walked(block, thread)
    assert counts["VIADD"] == turns
    assert counts["LDG"] == 1 + ((block * 256 + thread) // 100 % 2) * turns
    assert counts["DADD"] == 1, "a branch on elements is not taken"


def test_a_thread_without_work_ends():
    assert walked(3, 999)["LDG"] == 0
