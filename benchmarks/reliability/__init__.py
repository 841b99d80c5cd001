"""Experiments with faults: each injects one into real processes and measures its effects.

python -m benchmarks.reliability            # every experiment, then docs/reliability.md
python -m benchmarks.reliability kills      # some of them; the other rows stay as they were
"""
